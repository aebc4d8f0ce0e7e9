# vulnerable: django upload kept under its own name
import os

def store(request):
    upload = request.FILES["attachment"]
    with open(os.path.join("media", upload.name), "wb") as out:
        for chunk in upload.chunks():
            out.write(chunk)
# vulnerable: django default storage
from django.core.files.storage import default_storage
from django.http import JsonResponse

def receive(request):
    incoming = request.FILES["file"]
    return JsonResponse({"stored": default_storage.save(incoming.name, incoming)})
# vulnerable: secure_filename alone keeps the type
import os
from flask import Flask, request
from werkzeug.utils import secure_filename

app = Flask(__name__)

@app.post("/share")
def share():
    blob = request.files["blob"]
    blob.save(os.path.join(app.static_folder, secure_filename(blob.filename)))
    return {"shared": True}
# vulnerable: starlette form upload
from pathlib import Path
from starlette.responses import JSONResponse

async def submit(request):
    form = await request.form()
    part = form["document"]
    Path("public", part.filename).write_bytes(await part.read())
    return JSONResponse({"done": True})
# vulnerable: content type of the client is believed
import os
from flask import Flask, abort, request

app = Flask(__name__)

@app.post("/picture")
def picture():
    sent = request.files["picture"]
    if not sent.content_type.startswith("image/"):
        abort(415)
    sent.save(os.path.join("static/pictures", sent.filename))
    return "", 204
# vulnerable: own ending on a random name
import os
import uuid
from flask import Flask, request

app = Flask(__name__)

@app.post("/drop")
def drop():
    item = request.files["item"]
    suffix = os.path.splitext(item.filename)[1]
    item.save("static/drop/" + uuid.uuid4().hex + suffix)
    return "ok"
# secure: suffix looked up in a set
import uuid
from pathlib import Path
from flask import Flask, abort, request

app = Flask(__name__)
KINDS = {".png", ".jpeg"}

@app.post("/portrait")
def portrait():
    image = request.files["portrait"]
    kind = Path(image.filename).suffix.lower()
    if kind not in KINDS:
        abort(415)
    image.save(Path("portraits") / (uuid.uuid4().hex + kind))
    return "", 201
# secure: endswith with a tuple
import os
from flask import Flask, abort, request
from werkzeug.utils import secure_filename

app = Flask(__name__)

@app.post("/sheet")
def sheet():
    table = request.files["sheet"]
    if not table.filename.lower().endswith((".csv", ".tsv")):
        abort(400)
    table.save(os.path.join("sheets", secure_filename(table.filename)))
    return "thanks"
# secure: fixed ending and generated name
import uuid
from flask import Flask, request

app = Flask(__name__)

@app.post("/scan")
def scan():
    page = request.files["page"]
    name = f"{uuid.uuid4().hex}.pdf"
    page.save("scans/" + name)
    return {"scan": name}
# secure: type table gives the ending
import secrets
from fastapi import FastAPI, HTTPException, UploadFile

api = FastAPI()
ENDINGS = {"image/png": ".png", "image/webp": ".webp"}

@api.post("/sticker")
async def sticker(upload: UploadFile):
    ending = ENDINGS.get(upload.content_type)
    if ending is None:
        raise HTTPException(415)
    with open(f"stickers/{secrets.token_hex(8)}{ending}", "wb") as out:
        out.write(await upload.read())
    return {"ok": True}
# secure: helper function that knows the endings
import os
from flask import Flask, abort, request
from werkzeug.utils import secure_filename

app = Flask(__name__)

def allowed(name):
    return "." in name and name.rsplit(".", 1)[1].lower() in {"txt", "md"}

@app.post("/essay")
def essay():
    text = request.files["essay"]
    if not allowed(text.filename):
        abort(400)
    text.save(os.path.join("essays", secure_filename(text.filename)))
    return "stored"
# secure: model that saves itself
from shop.models import Product

def rename(product_id, filename):
    product = Product.objects.get(pk=int(product_id))
    product.filename = filename.strip()
    product.save()
# secure: upload is parsed and never stored
import csv
import io
from flask import Flask, request

app = Flask(__name__)

@app.post("/count")
def count():
    rows = csv.reader(io.TextIOWrapper(request.files["table"], "utf-8"))
    return {"rows": sum(1 for _ in rows)}
