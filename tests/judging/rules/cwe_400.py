# vulnerable: flask body of any length repeated
from flask import Flask, request

app = Flask(__name__)

@app.get("/zeros")
def zeros():
    return bytes(int(request.args.get("n", 16)))
# vulnerable: loop as long as the client likes
from flask import Flask, jsonify, request

app = Flask(__name__)

@app.post("/dice")
def dice():
    rolls = int(request.form["rolls"])
    return jsonify([roll() for _ in range(rolls)])
# vulnerable: typed argument of the query
from flask import Flask, request
from .repo import fetch_rows

app = Flask(__name__)

@app.get("/rows")
def rows():
    per_page = request.args.get("per_page", 20, type=int)
    return {"rows": fetch_rows(limit=per_page)}
# vulnerable: django view allocates a buffer
from django.http import HttpResponse

def blob(request):
    size = int(request.GET.get("size"))
    return HttpResponse(bytearray(size), content_type="application/octet-stream")
# vulnerable: command line number of random bytes
import os
import sys

amount = int(sys.argv[1])
sys.stdout.buffer.write(os.urandom(amount))
# vulnerable: fastapi query parameter without a bound (known miss)
from fastapi import FastAPI
from .store import fetch

app = FastAPI()

@app.get("/items")
def items(limit: int = 10):
    return fetch("items", limit)
# vulnerable: whole upload read into memory (known miss)
from fastapi import FastAPI, UploadFile

app = FastAPI()

@app.post("/digest")
async def digest(upload: UploadFile):
    data = await upload.read()
    return {"length": len(data)}
# vulnerable: gzip body unpacked without a limit (known miss)
import gzip
from flask import Flask, request

app = Flask(__name__)

@app.post("/logs")
def logs():
    text = gzip.decompress(request.get_data())
    return {"lines": text.count(b"\n")}
# secure: the smaller of the two
from flask import Flask, jsonify, request

app = Flask(__name__)

@app.post("/dice")
def dice():
    rolls = min(int(request.form["rolls"]), 50)
    return jsonify([roll() for _ in range(rolls)])
# secure: refused above the limit
from flask import Flask, abort, request

app = Flask(__name__)
TOP = 4096

@app.get("/zeros")
def zeros():
    size = int(request.args["n"])
    if size > TOP:
        abort(413)
    return bytes(size)
# secure: chained comparison in a django view
from django.http import HttpResponse, HttpResponseBadRequest

def blob(request):
    size = int(request.GET["size"])
    if not 0 < size <= 65536:
        return HttpResponseBadRequest()
    return HttpResponse(bytearray(size))
# secure: choice from a list of sizes
from flask import Flask, abort, request
from .images import resize

app = Flask(__name__)
WIDTHS = (160, 320, 640)

@app.get("/thumb")
def thumb():
    width = int(request.args["w"])
    if width not in WIDTHS:
        abort(404)
    return resize("cover.jpg", width)
# secure: number used as an id and not as a size
from flask import Flask, jsonify, request
from .repo import Order

app = Flask(__name__)

@app.get("/order")
def order():
    number = int(request.args["number"])
    return jsonify(Order.get(number).as_dict())
# secure: clamped from both sides
import sys

steps = max(1, min(int(sys.argv[1]), 1000))
for step in range(steps):
    print(step)
# secure: loop over the server's own list
from flask import Flask, request

app = Flask(__name__)
NAMES = ["a", "b", "c"]

@app.get("/names")
def names():
    first = request.args.get("first", "")
    return {"names": [NAMES[i] for i in range(len(NAMES)) if NAMES[i] >= first]}
# secure: id that is loaded by a function (known miss)
from flask import Flask, request
from .repo import load_invoice

app = Flask(__name__)

@app.get("/invoice")
def invoice():
    return load_invoice(int(request.args["number"])).as_dict()
