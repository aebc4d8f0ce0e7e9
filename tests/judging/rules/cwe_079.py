# vulnerable: percent formatting into a flask page
from flask import Flask, request

app = Flask(__name__)

@app.get("/find")
def find():
    return "<p>No result for <em>%s</em></p>" % request.args["q"]
# vulnerable: format in a django view
from django.http import HttpResponse

def hello(request):
    who = request.GET.get("who", "you")
    return HttpResponse("<h2>Hi {}</h2>".format(who))
# vulnerable: mark_safe of a stored bio
from django.utils.safestring import mark_safe

def bio_html(profile):
    return mark_safe(profile.bio)
# vulnerable: safe filter in an inline template
from flask import Flask, render_template_string, request

app = Flask(__name__)

@app.route("/note")
def note():
    return render_template_string("<p>{{ note|safe }}</p>", note=request.args.get("note"))
# vulnerable: environment left at its default
import jinja2

def build(folder):
    return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), trim_blocks=True)
# vulnerable: template text made from the request
from flask import Flask, render_template_string, request

app = Flask(__name__)

@app.route("/card")
def card():
    page = "<div>" + request.form["text"] + "</div>"
    return render_template_string(page)
# vulnerable: plain name returned as HTML
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

app = FastAPI()

@app.get("/echo")
def echo(msg: str):
    return HTMLResponse(content=msg)
# secure: percent formatting with escape
import html
from flask import Flask, request

app = Flask(__name__)

@app.get("/find")
def find():
    return "<p>No result for <em>%s</em></p>" % html.escape(request.args["q"])
# secure: format_html in a django view
from django.http import HttpResponse
from django.utils.html import format_html

def hello(request):
    who = request.GET.get("who", "you")
    return HttpResponse(format_html("<h2>Hi {}</h2>", who))
# secure: inline template with a context value
from flask import Flask, render_template_string, request

app = Flask(__name__)

@app.route("/note")
def note():
    return render_template_string("<p>{{ note }}</p>", note=request.args.get("note"))
# secure: select_autoescape
from jinja2 import Environment, FileSystemLoader, select_autoescape

def build(folder):
    return Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape())
# secure: number in a page
from flask import Flask, request

app = Flask(__name__)

@app.get("/page")
def page():
    number = int(request.args.get("n", 1))
    return f"<p>Page {number}</p>"
# secure: template file
from flask import Flask, render_template, request

app = Flask(__name__)

@app.get("/search")
def search():
    return render_template("search.html", q=request.args.get("q", ""))
# secure: comparison signs in plain text
def describe(name, low, high):
    return f"{low} < {name} and {name} > {high}"
# vulnerable: what another machine says in an error page of django
import requests
from django.http import HttpResponseBadRequest, JsonResponse

def rates(request):
    answer = requests.get("https://rates.example.org/v1/today", timeout=5).json()
    if "error" in answer:
        return HttpResponseBadRequest("Upstream said: {}".format(answer["error"]))
    return JsonResponse(answer)
# secure: what another machine says, as data
import requests
from django.http import HttpResponseBadRequest, JsonResponse

def rates(request):
    answer = requests.get("https://rates.example.org/v1/today", timeout=5).json()
    if "error" in answer:
        return HttpResponseBadRequest("no rates today")
    return JsonResponse(answer)
# vulnerable: a page in pieces behind a web server
from urllib.parse import parse_qs

def application(environ, start_response):
    word = parse_qs(environ["QUERY_STRING"]).get("word", [""])[0]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<h1>", word.encode(), b"</h1>"]
# secure: a page in pieces with the text escaped
import html
from urllib.parse import parse_qs

def application(environ, start_response):
    word = parse_qs(environ["QUERY_STRING"]).get("word", [""])[0]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<h1>", html.escape(word).encode(), b"</h1>"]
# secure: plain text in pieces behind a web server
from urllib.parse import parse_qs

def application(environ, start_response):
    word = parse_qs(environ["QUERY_STRING"]).get("word", [""])[0]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"word: ", word.encode()]
