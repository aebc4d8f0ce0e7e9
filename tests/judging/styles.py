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
    "drf": '''
from rest_framework.views import APIView
from rest_framework.response import Response
class X(APIView):
    def post(self, request):
        word = request.data["w"]
BODY
''',
    "drf function": '''
from rest_framework.decorators import api_view
@api_view(["GET"])
def x(request):
    word = request.query_params.get("w")
BODY
''',
    "flask method view": '''
from flask import Flask, request
from flask.views import MethodView
class X(MethodView):
    def get(self):
        word = request.args.get("w")
BODY
''',
    "flask restful": '''
from flask_restful import Resource, reqparse
parser = reqparse.RequestParser()
parser.add_argument("w")
class X(Resource):
    def get(self):
        word = parser.parse_args()["w"]
BODY
''',
    "flask json": '''
from flask import Blueprint, request
bp = Blueprint("b", __name__)
@bp.route("/x", methods=["POST"])
def x():
    data = request.get_json()
    word = data.get("w")
BODY
''',
    "flask form get": '''
import flask
app = flask.Flask(__name__)
@app.post("/x")
def x():
    word = flask.request.form.get("w", "")
BODY
''',
    "flask header": '''
from flask import Flask, request
app = Flask(__name__)
@app.get("/x")
def x():
    word = request.headers.get("X-W", "")
BODY
''',
    "flask cookie": '''
from flask import Flask, request
app = Flask(__name__)
@app.get("/x")
def x():
    word = request.cookies.get("w")
BODY
''',
    "fastapi query": '''
from fastapi import FastAPI, Query
app = FastAPI()
@app.get("/x")
async def x(word: str = Query(...)):
BODY
''',
    "fastapi form": '''
from typing import Annotated
from fastapi import FastAPI, Form
app = FastAPI()
@app.post("/x")
async def x(word: Annotated[str, Form()]):
BODY
''',
    "fastapi request": '''
from fastapi import FastAPI, Request
app = FastAPI()
@app.post("/x")
async def x(request: Request):
    word = (await request.json())["w"]
BODY
''',
    "fastapi dict": '''
from fastapi import FastAPI, Body
app = FastAPI()
@app.post("/x")
async def x(payload: dict = Body(...)):
    word = payload["w"]
BODY
''',
    "starlette endpoint": '''
from starlette.endpoints import HTTPEndpoint
class X(HTTPEndpoint):
    async def get(self, request):
        word = request.query_params["w"]
BODY
''',
    "starlette form": '''
async def x(request):
    form = await request.form()
    word = form["w"]
BODY
''',
    "aiohttp post": '''
from aiohttp import web
async def x(request):
    data = await request.post()
    word = data["w"]
BODY
''',
    "aiohttp view": '''
from aiohttp import web
class X(web.View):
    async def get(self):
        word = self.request.query.get("w", "")
BODY
''',
    "aiohttp rel": '''
from aiohttp import web
async def x(request: web.Request) -> web.Response:
    word = request.rel_url.query["w"]
BODY
''',
    "sanic json": '''
from sanic import Sanic
app = Sanic("a")
@app.post("/x")
async def x(request):
    word = request.json["w"]
BODY
''',
    "tornado body": '''
import json
import tornado.web
class X(tornado.web.RequestHandler):
    def post(self):
        word = json.loads(self.request.body)["w"]
BODY
''',
    "tornado path": '''
import tornado.web
class X(tornado.web.RequestHandler):
    async def get(self, word):
BODY
''',
    "bottle forms": '''
from bottle import Bottle, request
app = Bottle()
@app.post("/x")
def x():
    word = request.forms.get("w")
BODY
''',
    "bottle route": '''
import bottle
@bottle.get("/x/<word>")
def x(word):
BODY
''',
    "cherrypy json": '''
import cherrypy
class X(object):
    @cherrypy.expose
    @cherrypy.tools.json_in()
    def save(self):
        word = cherrypy.request.json["w"]
BODY
''',
    "falcon media": '''
import falcon
class X:
    async def on_post(self, req, resp):
        media = await req.get_media()
        word = media["w"]
BODY
''',
    "falcon path": '''
import falcon
class X:
    def on_get(self, req, resp, word):
BODY
''',
    "pyramid match": '''
from pyramid.view import view_config
@view_config(route_name="x", renderer="json")
def x(request):
    word = request.matchdict["w"]
BODY
''',
    "pyramid json": '''
from pyramid.view import view_config
class X:
    def __init__(self, request):
        self.request = request
    @view_config(route_name="x")
    def view(self):
        word = self.request.json_body["w"]
BODY
''',
    "http.server post": '''
from http.server import BaseHTTPRequestHandler
import json
class X(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        word = json.loads(body)["w"]
BODY
''',
    "http.server path": '''
import http.server
import urllib.parse
class X(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        word = urllib.parse.unquote(self.path[1:])
BODY
''',
    "wsgi post": '''
from urllib.parse import parse_qs
def app(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    word = parse_qs(environ["wsgi.input"].read(size).decode())["w"][0]
BODY
''',
    "wsgi path": '''
def app(environ, start_response):
    word = environ.get("PATH_INFO", "").lstrip("/")
BODY
''',
    "webob": '''
from webob import Request, Response
def app(environ, start_response):
    req = Request(environ)
    word = req.params["w"]
BODY
''',
    "werkzeug": '''
from werkzeug.wrappers import Request, Response
@Request.application
def x(request):
    word = request.args["w"]
BODY
''',
    "lambda body": '''
import json
def lambda_handler(event, context):
    word = json.loads(event["body"])["w"]
BODY
''',
    "azure": '''
import azure.functions as func
def main(req: func.HttpRequest) -> func.HttpResponse:
    word = req.params.get("w")
BODY
''',
    "gcf": '''
import functions_framework
@functions_framework.http
def x(request):
    word = request.args.get("w")
BODY
''',
    "django path": '''
from django.http import HttpResponse
def x(request, word):
BODY
''',
    "django form": '''
from django import forms
from django.views.generic import FormView
class Form(forms.Form):
    w = forms.CharField()
class X(FormView):
    form_class = Form
    def form_valid(self, form):
        word = form.cleaned_data["w"]
BODY
''',
    "django body": '''
import json
from django.views.decorators.http import require_POST
@require_POST
def x(request):
    word = json.loads(request.body)["w"]
BODY
''',
    "quart args": '''
from quart import Quart, request
app = Quart(__name__)
@app.route("/x")
async def x():
    word = request.args.get("w")
BODY
''',
    "quart form": '''
from quart import Quart, request
app = Quart(__name__)
@app.route("/x", methods=["POST"])
async def x():
    form = await request.form
    word = form["w"]
BODY
''',
    "litestar": '''
from litestar import get
@get("/x")
async def x(word: str) -> str:
BODY
''',
    "socketserver": '''
import socketserver
class X(socketserver.BaseRequestHandler):
    def handle(self):
        word = self.request.recv(1024).decode().strip()
BODY
''',
    "grpc": '''
import service_pb2_grpc
class X(service_pb2_grpc.XServicer):
    def Get(self, request, context):
        word = request.w
BODY
''',
    "socketio": '''
from flask_socketio import SocketIO
socketio = SocketIO()
@socketio.on("x")
def x(data):
    word = data["w"]
BODY
''',
    "web.py": '''
import web
class X:
    def GET(self):
        word = web.input().w
BODY
''',
    "twisted": '''
from twisted.web import resource
class X(resource.Resource):
    def render_GET(self, request):
        word = request.args[b"w"][0].decode()
BODY
''',
    "cgi": '''
import cgi
def x():
    form = cgi.FieldStorage()
    word = form.getvalue("w")
BODY
''',
    "typer": '''
import typer
app = typer.Typer()
@app.command()
def x(word: str):
BODY
''',
    "sys.argv": '''
import sys
def x():
    word = sys.argv[1]
BODY
''',
    "fire": '''
import fire
def x(word):
BODY
if __name__ == "__main__":
    fire.Fire(x)
''',
    "optparse": '''
from optparse import OptionParser
def x():
    parser = OptionParser()
    parser.add_option("--word")
    options, args = parser.parse_args()
    word = options.word
BODY
''',
    "click option": '''
import click
@click.group()
def cli():
    pass
@cli.command("x")
@click.option("--word", required=True)
def x(word):
BODY
''',
    "argparse module": '''
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--word", required=True)
def x(args):
    word = args.word
BODY
if __name__ == "__main__":
    x(parser.parse_args())
''',
    "input": '''
def x():
    word = input("word: ")
BODY
''',
}  # fmt: skip
COMMAND_LINE = {
    "click", "argparse", "typer", "sys.argv", "fire", "optparse", "click option", "argparse module", "input",
}  # fmt: skip


def program(style: str, imports: str, body: str) -> str:
    """Return a program of a style with a body, which is indented as the style needs it."""
    text = STYLES[style]
    margin = "        " if "class X" in text else "    "
    return imports + text.replace("BODY", "\n".join(margin + line for line in body.strip("\n").splitlines()))
