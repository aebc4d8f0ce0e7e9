# vulnerable: options in a variable
import jwt

def whoami(token):
    opts = {"verify_signature": False}
    return jwt.decode(token, options=opts)["sub"]
# vulnerable: none among the algorithms
import jwt

class Auth:
    def __init__(self, key):
        self.key = key

    def claims(self, token):
        return jwt.decode(token, self.key, algorithms=["HS256", "none"])
# vulnerable: old style verify flag
import jwt

def handler(event, context):
    data = jwt.decode(event["headers"]["authorization"], verify=False)
    return {"statusCode": 200, "body": data["email"]}
# vulnerable: jose unverified claims
from jose import jwt

def user_of(token):
    claims = jwt.get_unverified_claims(token)
    return claims["sub"]
# vulnerable: payload decoded by hand
import base64
import json

def read_token(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=="))
# vulnerable: hmac compared with an operator
import hashlib
import hmac

def valid(secret, body, header):
    mac = hmac.new(secret, body, hashlib.sha256)
    return "sha256=" + mac.hexdigest() == header
# vulnerable: header only has to be there
from flask import Flask, request, abort

app = Flask(__name__)

@app.route("/github", methods=["POST"])
def github():
    sig = request.headers.get("X-Hub-Signature-256")
    if sig is None:
        abort(400)
    deploy(request.get_json())
    return ""
# vulnerable: failed verification swallowed
from cryptography.exceptions import InvalidSignature

def install(package, signature, public_key, padding, algorithm):
    try:
        public_key.verify(signature, package, padding, algorithm)
    except InvalidSignature:
        pass
    unpack(package)
# vulnerable: unsafe loads of itsdangerous
from itsdangerous import URLSafeSerializer

def read_cookie(request, key):
    ok, data = URLSafeSerializer(key).loads_unsafe(request.cookies["prefs"])
    return data
# secure: algorithms and audience
import jwt

def whoami(token, key):
    options = {"require": ["exp", "sub"]}
    return jwt.decode(token, key, algorithms=["ES256"], audience="api", options=options)["sub"]
# secure: presence then comparison
import hashlib
import hmac
from flask import Flask, request, abort

app = Flask(__name__)

@app.route("/github", methods=["POST"])
def github():
    sig = request.headers.get("X-Hub-Signature-256")
    if not sig:
        abort(400)
    digest = hmac.new(app.config["HOOK_KEY"], request.data, hashlib.sha256).hexdigest()
    if not hmac.compare_digest("sha256=" + digest, sig):
        abort(403)
    return ""
# secure: checksum of a download
import hashlib
from pathlib import Path

def check(path, expected):
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if digest != expected:
        raise ValueError("wrong checksum")
# secure: helper of a payment library
import stripe
from fastapi import FastAPI, HTTPException, Request

app = FastAPI()

@app.post("/stripe")
async def hook(request: Request):
    signature = request.headers.get("stripe-signature")
    if not signature:
        raise HTTPException(400)
    event = stripe.Webhook.construct_event(await request.body(), signature, app.state.hook_key)
    return {"type": event["type"]}
# secure: issuer read first to choose the key
import jwt

KEYS = {}

def claims_of(token):
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
    return jwt.decode(token, KEYS[issuer], algorithms=["RS256"], issuer=issuer)
# secure: verify raises
from cryptography.exceptions import InvalidSignature

def install(package, signature, public_key, padding, algorithm):
    try:
        public_key.verify(signature, package, padding, algorithm)
    except InvalidSignature:
        raise SystemExit("signature does not match")
    unpack(package)
# secure: signature split before it is compared
import hmac

def accept(request, key):
    signature = request.headers.get("X-Signature", "")
    if not signature:
        return False
    _, _, given = signature.partition("=")
    return hmac.compare_digest(hmac.digest(key, request.body, "sha512").hex(), given)
# secure: base64 of a file name with dots
import base64

def label(name):
    stem = name.split(".")[0]
    return base64.b64encode(stem.encode()).decode()
