# vulnerable: flask headers dict
from flask import Flask, Response, request

app = Flask(__name__)

@app.get("/x")
def x():
    return Response("x", headers={"X-Source": request.args["source"]})
# vulnerable: header line written to a socket
import socketserver

class Reply(socketserver.StreamRequestHandler):
    def handle(self):
        theme = self.rfile.readline().decode()
        self.wfile.write(f"HTTP/1.1 200 OK\r\nSet-Cookie: theme={theme}\r\n\r\n".encode())
# vulnerable: wsgi start_response
from urllib.parse import parse_qs

def app(environ, start_response):
    lang = parse_qs(environ["QUERY_STRING"])["lang"][0]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Language", lang)])
    return [b"ok"]
# vulnerable: headers.add with a format string
from flask import Flask, make_response, request

app = Flask(__name__)

@app.route("/csv")
def csv():
    answer = make_response("a,b")
    answer.headers.add("Content-Disposition", "attachment; filename=%s" % request.args["f"])
    return answer
# vulnerable: spaces stripped and nothing else
from django.http import HttpResponse

def mark(request):
    resp = HttpResponse("ok")
    resp["X-Mark"] = request.GET["mark"].strip(" ")
    return resp
# vulnerable: fastapi response header from a query value
from fastapi import FastAPI, Response

app = FastAPI()

@app.get("/v")
def v(tag: str, out: Response):
    out.headers["X-Tag"] = "v-" + tag
    return {}
# secure: number
from flask import Flask, Response, request

app = Flask(__name__)

@app.get("/x")
def x():
    return Response("x", headers={"X-Page": str(int(request.args["page"]))})
# secure: refused when a line break is inside
from flask import Flask, abort, make_response, request

app = Flask(__name__)

@app.get("/y")
def y():
    kind = request.args.get("kind", "")
    if "\r" in kind or "\n" in kind:
        abort(400)
    answer = make_response("y")
    answer.headers["X-Kind"] = kind
    return answer
# secure: join of split lines
from django.http import HttpResponse

def mark(request):
    resp = HttpResponse("ok")
    resp["X-Mark"] = " ".join(request.GET["mark"].splitlines())
    return resp
# secure: allowed values
from fastapi import FastAPI, HTTPException, Response

app = FastAPI()
TAGS = {"a", "b"}

@app.get("/v")
def v(tag: str, out: Response):
    if tag not in TAGS:
        raise HTTPException(404)
    out.headers["X-Tag"] = tag
    return {}
# secure: constant header and the value in the body
from flask import Flask, jsonify, request

app = Flask(__name__)

@app.get("/z")
def z():
    answer = jsonify(name=request.args["name"])
    answer.headers["Cache-Control"] = "no-store"
    return answer
# secure: regular expression removes control characters
import re
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = re.sub(r"[^\w.-]", "_", self.path)
        self.send_response(200)
        self.send_header("X-Name", name)
        self.end_headers()
# secure: file name made safe
from flask import Flask, Response, request
from werkzeug.utils import secure_filename

app = Flask(__name__)

@app.get("/d")
def d():
    answer = Response("d")
    answer.headers["Content-Disposition"] = "attachment; filename=" + secure_filename(request.args["n"])
    return answer
# vulnerable: a header's name in the dictionary of make_response
from flask import Flask, make_response, request

app = Flask(__name__)

@app.get("/flag")
def flag():
    return make_response("on", {request.args["flag"]: "1"})
# secure: a dictionary of constants for make_response
from flask import Flask, make_response

app = Flask(__name__)

@app.get("/flag")
def flag():
    return make_response("on", {"X-Flag": "1"})
# vulnerable: headers extended by a name from the request
from flask import Flask, Response, request

app = Flask(__name__)

@app.get("/tag")
def tag():
    answer = Response("done")
    answer.headers.extend([(request.args["tag"], "yes")])
    return answer
# secure: headers extended by constants
from flask import Flask, Response

app = Flask(__name__)

@app.get("/tag")
def tag():
    answer = Response("done")
    answer.headers.extend({"X-Tag": "yes"})
    return answer
