# vulnerable: flask next from the query
from flask import Flask, redirect, request, url_for

app = Flask(__name__)

@app.post("/login")
def login():
    return redirect(request.args.get("next") or url_for("login"))
# vulnerable: django permanent redirect
from django.http import HttpResponsePermanentRedirect

def leave(request):
    where = request.GET["u"]
    return HttpResponsePermanentRedirect(where)
# vulnerable: location header set by hand
from flask import Flask, Response, request

app = Flask(__name__)

@app.route("/out")
def out():
    return Response(status=302, headers={"Location": request.args["to"]})
# vulnerable: fastapi keyword url
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

app = FastAPI()

@app.get("/r")
async def r(dest: str, code: int = 302):
    return RedirectResponse(status_code=code, url=dest)
# vulnerable: prefix check that lets a double slash through
from flask import Flask, redirect, request

app = Flask(__name__)

@app.route("/go")
def go():
    path = request.args.get("p", "/")
    if not path.startswith("/"):
        path = "/"
    return redirect(path)
# vulnerable: lambda answers with a foreign place
def handler(event, context):
    place = event["queryStringParameters"]["back"]
    return {"statusCode": 302, "headers": {"Location": place}}
# vulnerable: referrer kept in a variable
from flask import Blueprint, redirect, request

bp = Blueprint("cart", __name__)

@bp.post("/cart")
def add():
    came_from = request.form["came_from"]
    url = "https://" + came_from
    return redirect(url, code=303)
# secure: url_for with an argument from the request
from flask import Flask, redirect, request, url_for

app = Flask(__name__)

@app.post("/find")
def find():
    return redirect(url_for("show", q=request.form["q"]))
# secure: django helper
from django.http import HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme

def done(request):
    target = request.GET.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()}):
        target = "/"
    return HttpResponseRedirect(target)
# secure: table of destinations
from fastapi import FastAPI
from fastapi.responses import RedirectResponse

app = FastAPI()
DESTINATIONS = {"docs": "https://docs.example.com", "blog": "https://blog.example.com"}

@app.get("/to/{name}")
def to(name: str):
    return RedirectResponse(DESTINATIONS.get(name, "/"))
# secure: host compared after parsing
from urllib.parse import urlsplit
from flask import Flask, abort, redirect, request

app = Flask(__name__)

@app.route("/out")
def out():
    url = request.args["url"]
    if urlsplit(url).hostname not in {"example.com", "www.example.com"}:
        abort(400)
    return redirect(url)
# secure: constant place
from flask import Flask, redirect, request, session

app = Flask(__name__)

@app.post("/logout")
def logout():
    session.pop(request.form["sid"], None)
    return redirect("/bye")
# secure: allow-list with abort
from aiohttp import web

PLACES = ("/a", "/b")

async def jump(request):
    place = request.query["place"]
    if place not in PLACES:
        raise web.HTTPBadRequest()
    raise web.HTTPSeeOther(location=place)
# secure: number below a fixed path
from django.shortcuts import redirect

def item(request):
    return redirect(f"/items/{int(request.POST['id'])}/")
