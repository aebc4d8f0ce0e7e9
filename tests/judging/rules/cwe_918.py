# vulnerable: flask proxy without any check
import requests
from flask import Flask, request

app = Flask(__name__)

@app.route("/proxy")
def proxy():
    return requests.get(request.args["url"], timeout=5).text
# vulnerable: urlopen in a django view
from urllib.request import urlopen
from django.http import HttpResponse

def feed(request):
    address = request.GET.get("feed")
    with urlopen(address) as page:
        return HttpResponse(page.read())
# vulnerable: substring test of the address
import requests
from flask import Flask, request, abort

app = Flask(__name__)

@app.post("/import")
def load():
    url = request.get_json()["url"]
    if "example.com" not in url:
        abort(400)
    return requests.get(url, timeout=5).json()
# vulnerable: prefix without a closing slash
import httpx
from fastapi import FastAPI, HTTPException

app = FastAPI()

@app.get("/img")
def image(src: str):
    if not src.startswith("https://img.example.com"):
        raise HTTPException(400)
    return {"size": len(httpx.get(src).content)}
# vulnerable: pydantic body and an async client
import httpx
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()

class Hook(BaseModel):
    target: str

@app.post("/test-hook")
async def test_hook(hook: Hook):
    async with httpx.AsyncClient() as client:
        answer = await client.post(hook.target, json={"ping": True})
    return {"status": answer.status_code}
# vulnerable: only the host is taken
import requests

def lambda_handler(event, context):
    host = event["queryStringParameters"]["host"]
    return {"statusCode": requests.head("https://{}/".format(host), timeout=3).status_code}
# vulnerable: urljoin does not pin the host
import requests
from urllib.parse import urljoin
from flask import Blueprint, request

bp = Blueprint("docs", __name__)

@bp.get("/docs")
def docs():
    return requests.get(urljoin("https://docs.example.com/", request.args["page"]), timeout=5).text
# secure: host in a list
import requests
from urllib.parse import urlsplit
from flask import Flask, request, abort

app = Flask(__name__)
PARTNERS = {"a.example", "b.example"}

@app.route("/proxy")
def proxy():
    url = request.args["url"]
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname not in PARTNERS:
        abort(400)
    return requests.get(url, timeout=5, allow_redirects=False).text
# secure: value only in the query
import requests
from flask import Flask, request

app = Flask(__name__)

@app.get("/search")
def search():
    return requests.get("https://api.example.com/search", params={"q": request.args["q"]}, timeout=5).json()
# secure: number in the path
import httpx
from fastapi import FastAPI

app = FastAPI()
BASE_URL = "https://users.example.com"

@app.get("/users/{user_id}")
async def user(user_id: int):
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{BASE_URL}/users/{user_id}")).json()
# secure: fixed host and quoted path
import requests
from urllib.parse import quote
from django.http import JsonResponse

def package(request, name):
    name = request.GET["name"]
    return JsonResponse(requests.get("https://pypi.org/pypi/" + quote(name, safe="") + "/json", timeout=5).json())
# secure: private addresses refused
import ipaddress
import socket
from urllib.parse import urlparse
import requests
from flask import Flask, abort, request

app = Flask(__name__)

@app.get("/title")
def title():
    url = request.args["url"]
    address = ipaddress.ip_address(socket.gethostbyname(urlparse(url).hostname))
    if address.is_private or address.is_loopback:
        abort(403)
    return requests.get(url, timeout=5, allow_redirects=False).text
# secure: helper that validates
import requests
from flask import Flask, request, abort
from .net import is_allowed_url

app = Flask(__name__)

@app.post("/hooks")
def hooks():
    target = request.form["target"]
    if not is_allowed_url(target):
        abort(400)
    requests.post(target, json={"ok": True}, timeout=5)
    return ""
# secure: library code with an address parameter
import requests

def download(url, path):
    with requests.get(url, stream=True, timeout=30) as answer, open(path, "wb") as out:
        for chunk in answer.iter_content(65536):
            out.write(chunk)
# secure: request data kept in a cache
from flask import Flask, request, session
import requests

app = Flask(__name__)
cache = {}

@app.get("/theme")
def theme():
    name = request.args.get("name", "light")
    session["theme"] = name
    return cache.get(name) or session.get("last", "none")
# vulnerable: an address of the body given to curl
import pycurl
from flask import Flask, request

app = Flask(__name__)

@app.post("/mirror")
def mirror():
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, request.get_json()["source"])
    curl.setopt(pycurl.TIMEOUT, 10)
    curl.perform()
    return {"size": curl.getinfo(pycurl.SIZE_DOWNLOAD)}
# secure: curl of a fixed address
import pycurl
from flask import Flask, request

app = Flask(__name__)

@app.post("/mirror")
def mirror():
    curl = pycurl.Curl()
    curl.setopt(curl.URL, "https://mirror.example.org/index")
    curl.setopt(curl.TIMEOUT, int(request.args["seconds"]))
    curl.perform()
    return {"size": curl.getinfo(pycurl.SIZE_DOWNLOAD)}
# vulnerable: a pool's request to an address of the event
import urllib3

pool = urllib3.PoolManager()

def handler(event, context):
    answer = pool.request("GET", event["queryStringParameters"]["image"], timeout=3)
    return {"statusCode": answer.status}
# secure: a pool's request with a method of the event and a fixed address
import urllib3

pool = urllib3.PoolManager()

def handler(event, context):
    answer = pool.request(event["httpMethod"], "https://images.example.org/list", timeout=3)
    return {"statusCode": answer.status}
# vulnerable: an address in a message of an open connection
import json
import requests

async def serve(websocket):
    async for message in websocket:
        order = json.loads(message)
        await websocket.send(requests.get(order["page"], timeout=3).text)
# secure: a page's number in a message of an open connection
import json
import requests

async def serve(websocket):
    async for message in websocket:
        order = json.loads(message)
        page = requests.get("https://pages.example.org/", params={"n": int(order["page"])}, timeout=3)
        await websocket.send(page.text)
