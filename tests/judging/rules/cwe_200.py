# vulnerable: traceback as plain text
import traceback
from flask import Flask, Response, request

app = Flask(__name__)

@app.route("/convert", methods=["POST"])
def convert():
    try:
        return Response(do_convert(request.data), mimetype="image/png")
    except Exception:
        detail = traceback.format_exc()
        return Response(detail, status=500, mimetype="text/plain")
# vulnerable: exception inside a formatted detail
from fastapi import FastAPI, HTTPException
from .queue import enqueue

app = FastAPI()

@app.post("/jobs")
async def create(job: dict):
    try:
        return await enqueue(job)
    except Exception as exc:
        raise HTTPException(status_code=500, detail=f"queue said: {exc!r}")
# vulnerable: whole environment on a status page
import os
from flask import Flask, jsonify

app = Flask(__name__)

@app.get("/status")
def status():
    return jsonify(up=True, env=dict(os.environ))
# vulnerable: user record with everything in it
from flask import Flask, jsonify
from .models import User

app = Flask(__name__)

@app.get("/users/<int:uid>")
def user(uid):
    found = User.query.get_or_404(uid)
    return jsonify(vars(found))
# vulnerable: password hash among the fields
from django.http import JsonResponse
from .models import Member

def member(request, pk):
    m = Member.objects.get(pk=pk)
    return JsonResponse({"name": m.name, "mail": m.email, "hash": m.password_hash})
# vulnerable: plain http server writes the traceback
import traceback
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            self.answer()
        except Exception:
            self.send_response(500)
            self.end_headers()
            self.wfile.write(traceback.format_exc().encode())
# vulnerable: aiohttp with the arguments of the exception
from aiohttp import web

async def book(request):
    try:
        seat = await request.app["seats"].take(request.match_info["seat"])
    except Exception as err:
        return web.json_response({"ok": False, "reason": err.args}, status=500)
    return web.json_response({"ok": True, "seat": seat})
# vulnerable: settings of the app as an answer (known miss)
from flask import Flask, current_app, jsonify

app = Flask(__name__)

@app.get("/debug/config")
def config():
    return jsonify({key: str(value) for key, value in current_app.config.items()})
# vulnerable: password written to the log
import logging

log = logging.getLogger(__name__)

def login(name, password, users):
    log.info("login of %s with %s", name, password)
    return users.verify(name, password)
# secure: traceback goes to the log alone
import logging
import traceback
from flask import Flask, jsonify, request

app = Flask(__name__)

@app.post("/scale")
def scale():
    try:
        return jsonify(size=work(request.json))
    except Exception:
        logging.error("scale failed\n%s", traceback.format_exc())
        return jsonify(error="could not scale"), 500
# secure: public fields of a user
from flask import Flask, jsonify
from .models import User

app = Flask(__name__)

@app.get("/users/<int:uid>")
def user(uid):
    u = User.query.get_or_404(uid)
    return jsonify(id=u.id, name=u.name, joined=u.joined.isoformat())
# secure: number of the incident instead of the error
import logging
import uuid
from django.http import JsonResponse

def pay(request):
    try:
        charge(request.user)
    except Exception as error:
        incident = uuid.uuid4().hex
        logging.exception("incident %s: %s", incident, error)
        return JsonResponse({"incident": incident}, status=500)
    return JsonResponse({"paid": True})
# secure: one public variable of the environment
import os
from fastapi import FastAPI

app = FastAPI()

@app.get("/version")
def version():
    return {"version": os.environ.get("APP_VERSION", "dev")}
# secure: status of a known exception
import requests
from flask import Flask, jsonify

app = Flask(__name__)

@app.get("/rates")
def rates():
    try:
        answer = requests.get("https://rates.example.com", timeout=4)
        answer.raise_for_status()
    except requests.HTTPError:
        return jsonify(error="the rates are not available"), 502
    return jsonify(answer.json())
# secure: command line tool prints the error to its own user
import sys

def main(path):
    try:
        with open(path) as handle:
            print(sum(1 for _ in handle))
    except OSError as error:
        print(f"cannot read {path}: {error}", file=sys.stderr)
        return 1
    return 0
# secure: password compared and not shown
from django.contrib.auth.hashers import check_password
from django.http import JsonResponse
from .models import Member

def sign_in(request):
    m = Member.objects.get(name=request.POST["name"])
    fits = check_password(request.POST["word"], m.password)
    return JsonResponse({"ok": bool(fits)})
