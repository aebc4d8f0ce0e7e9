# vulnerable: aiohttp file by match info
import pathlib
from aiohttp import web

HOME = pathlib.Path("/srv/pictures")

async def picture(request):
    target = HOME / request.match_info["name"]
    return web.Response(body=target.read_bytes())
# vulnerable: f-string path from a flask query
from flask import Flask, request

app = Flask(__name__)

@app.get("/lyrics")
def lyrics():
    with open(f"lyrics/{request.args['song']}") as text:
        return text.read()
# vulnerable: django view joins and opens at once
import os
from django.http import HttpResponse

def statement(request):
    with open(os.path.join("statements", request.GET["month"]), "rb") as pdf:
        return HttpResponse(pdf.read(), content_type="application/pdf")
# vulnerable: fastapi file response
from pathlib import Path
from fastapi import FastAPI
from fastapi.responses import FileResponse

api = FastAPI()
MEDIA = Path("media")

@api.get("/clips/{clip:path}")
def clip(clip: str):
    target = MEDIA / clip
    return FileResponse(target)
# vulnerable: tar extracted whole
import tarfile

def restore(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
# vulnerable: zip members written by hand
import os
import zipfile

def unpack(archive, folder):
    with zipfile.ZipFile(archive) as bundle:
        for member in bundle.namelist():
            target = os.path.join(folder, member)
            with open(target, "wb") as out:
                out.write(bundle.read(member))
# vulnerable: check of the raw name only for dots at its start
import os
from flask import Flask, abort, request

app = Flask(__name__)

@app.delete("/drafts")
def drop():
    name = request.args["name"]
    if name == "..":
        abort(400)
    os.remove(os.path.join("drafts", name))
    return {"gone": True}
# secure: resolve and is_relative_to
from pathlib import Path
from flask import Flask, abort, request

app = Flask(__name__)
SHELF = Path("/srv/shelf").resolve()

@app.get("/book")
def book():
    target = (SHELF / request.args["title"]).resolve()
    if not target.is_relative_to(SHELF):
        abort(404)
    return target.read_text()
# secure: send_from_directory
from flask import Flask, request, send_from_directory

app = Flask(__name__)

@app.get("/brochure")
def brochure():
    return send_from_directory("brochures", request.args["name"])
# secure: base name of the query
import os
from django.http import FileResponse

def poster(request):
    name = os.path.basename(request.GET.get("poster", ""))
    return FileResponse(open(os.path.join("posters", name), "rb"))
# secure: whole number in the file name
from pathlib import Path
from flask import Flask

app = Flask(__name__)

@app.get("/pages/<int:number>")
def page(number: int):
    return Path("pages", f"{number:04d}.md").read_text()
# secure: name checked by a full match
import os
import re
from flask import Flask, abort, request

app = Flask(__name__)

@app.get("/dataset")
def dataset():
    name = request.args["name"]
    if not re.fullmatch(r"[a-z0-9_]+\.csv", name):
        abort(400)
    with open(os.path.join("datasets", name)) as table:
        return table.read()
# secure: tar extracted with the data filter
import tarfile

def restore(archive, folder):
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
# secure: library function that opens the path of its caller
import json

def load_settings(path):
    with open(path, encoding="utf-8") as text:
        return json.load(text)
# vulnerable: object of a bucket stored under its name
import os
import boto3

def fetch(bucket, folder, name):
    store = boto3.client("s3")
    store.download_file(bucket, name, os.path.join(folder, name))
# secure: object of a bucket stored under a name of our own
import os
import uuid
import boto3

def fetch(bucket, folder, key):
    store = boto3.client("s3")
    target = os.path.join(folder, str(uuid.uuid4()))
    store.download_file(bucket, key, target)
    return target
# vulnerable: a file named by a message of aiohttp's open connection
from aiohttp import WSMsgType, web

async def tail(request):
    line = web.WebSocketResponse()
    await line.prepare(request)
    async for message in line:
        if message.type == WSMsgType.TEXT:
            with open("/var/lib/app/" + message.data) as source:
                await line.send_str(source.read())
    return line
# secure: the same from a table of files
from aiohttp import WSMsgType, web

FILES = {"news": "/var/lib/app/news.txt"}

async def tail(request):
    line = web.WebSocketResponse()
    await line.prepare(request)
    async for message in line:
        if message.type == WSMsgType.TEXT and message.data in FILES:
            with open(FILES[message.data]) as source:
                await line.send_str(source.read())
    return line
