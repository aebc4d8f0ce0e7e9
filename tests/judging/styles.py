"""Small handlers in the styles of many frameworks: how each gives a program one text from outside.

`STYLES[name]` is a program with `BODY` where the text is in `word`; a body uses `answer(...)` for what the style sends
back.
"""

STYLES = {
    "flask": '''
from flask import Flask, request
app = Flask(__name__)
@app.get("/x")
def x():
    word = request.args["w"]
BODY
''',
    "flask route parameter": '''
from flask import Flask
app = Flask(__name__)
@app.route("/x/<word>")
def x(word):
BODY
''',
    "django": '''
from django.http import JsonResponse
def x(request):
    word = request.GET.get("w", "")
BODY
''',
    "django class": '''
from django.views import View
class X(View):
    def post(self, request, *args, **kwargs):
        word = request.POST["w"]
BODY
''',
    "fastapi": '''
from fastapi import FastAPI
app = FastAPI()
@app.get("/x")
async def x(word: str):
BODY
''',
    "fastapi body": '''
from fastapi import APIRouter
from pydantic import BaseModel
router = APIRouter()
class Form(BaseModel):
    word: str
@router.post("/x")
def x(form: Form):
    word = form.word
BODY
''',
    "starlette": '''
from starlette.routing import Route
async def x(request):
    word = request.path_params["w"]
BODY
''',
    "aiohttp": '''
from aiohttp import web
async def x(request):
    word = request.query["w"]
BODY
''',
    "aiohttp match": '''
from aiohttp import web
routes = web.RouteTableDef()
@routes.get("/x/{w}")
async def x(request: web.Request):
    word = request.match_info["w"]
BODY
''',
    "sanic": '''
from sanic import Sanic, response
app = Sanic("x")
@app.route("/x")
async def x(request):
    word = request.args.get("w")
BODY
''',
    "sanic path": '''
from sanic import Sanic, response
app = Sanic("x")
@app.get("/x/<word:path>")
async def x(request, word):
BODY
''',
    "tornado": '''
import tornado.web
class X(tornado.web.RequestHandler):
    def get(self):
        word = self.get_argument("w")
BODY
''',
    "bottle": '''
from bottle import route, request
@route("/x")
def x():
    word = request.query.w
BODY
''',
    "cherrypy": '''
import cherrypy
class X:
    @cherrypy.expose
    def index(self, word=""):
BODY
''',
    "cherrypy flag": '''
import cherrypy
class X:
    def index(self, word):
BODY
    index.exposed = True
''',
    "falcon": '''
import falcon
class X:
    def on_get(self, req, resp):
        word = req.get_param("w")
BODY
''',
    "pyramid": '''
from pyramid.view import view_config
@view_config(route_name="x")
def x(request):
    word = request.params["w"]
BODY
''',
    "quart": '''
from quart import Quart, request
app = Quart(__name__)
@app.post("/x")
async def x():
    word = (await request.get_json())["w"]
BODY
''',
    "http.server": '''
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlparse
class X(BaseHTTPRequestHandler):
    def do_GET(self):
        word = parse_qs(urlparse(self.path).query)["w"][0]
BODY
''',
    "wsgi": '''
from urllib.parse import parse_qs
def application(environ, start_response):
    word = parse_qs(environ["QUERY_STRING"])["w"][0]
BODY
''',
    "lambda": '''
def handler(event, context):
    word = event["queryStringParameters"]["w"]
BODY
''',
    "click": '''
import click
@click.command()
@click.argument("word")
def x(word):
BODY
''',
    "argparse": '''
import argparse
def x():
    parser = argparse.ArgumentParser()
    parser.add_argument("word")
    args = parser.parse_args()
    word = args.word
BODY
''',
    "websocket": '''
from fastapi import FastAPI, WebSocket
app = FastAPI()
@app.websocket("/x")
async def x(socket: WebSocket):
    word = await socket.receive_text()
BODY
''',
}  # fmt: skip
COMMAND_LINE = {"click", "argparse"}


def program(style: str, imports: str, body: str) -> str:
    """Return a program of a style with a body, which is indented as the style needs it."""
    text = STYLES[style]
    margin = "        " if "class X" in text else "    "
    return imports + text.replace("BODY", "\n".join(margin + line for line in body.strip("\n").splitlines()))
