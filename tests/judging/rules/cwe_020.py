# vulnerable: module chosen by the request
import importlib
from flask import Flask, request

app = Flask(__name__)

@app.post("/plugins/run")
def run_plugin():
    plugin = importlib.import_module(request.json["plugin"])
    return {"result": plugin.main()}
# vulnerable: django ordering as it comes
from django.shortcuts import render
from .models import Article

def articles(request):
    order = request.GET.get("o", "title")
    return render(request, "articles.html", {"rows": Article.objects.order_by(order)})
# vulnerable: attribute in a fastapi path
from fastapi import FastAPI
from .state import machine

app = FastAPI()

@app.get("/state/{part}")
async def state(part: str):
    return {"value": getattr(machine, part, None)}
# vulnerable: every posted field is set
from django.http import JsonResponse
from .models import Account

def update(request, pk):
    account = Account.objects.get(pk=pk)
    for name, value in request.POST.items():
        setattr(account, name, value)
    account.save()
    return JsonResponse({"ok": True})
# vulnerable: function name on the command line
import sys
import tasks

job = getattr(tasks, sys.argv[1])
job(*sys.argv[2:])
# vulnerable: check of the length alone
from flask import Flask, abort, request
from .drive import motor

app = Flask(__name__)

@app.post("/motor")
def control():
    verb = request.form["verb"]
    if len(verb) > 20:
        abort(400)
    getattr(motor, verb)()
    return "", 204
# vulnerable: quantity may be negative (known miss)
from flask import Flask, request
from .cart import prices

app = Flask(__name__)

@app.post("/total")
def total():
    quantity = int(request.form["quantity"])
    return {"total": prices["tea"] * quantity}
# secure: table of functions
from flask import Flask, abort, request

app = Flask(__name__)
UNITS = {"cm": lambda v: v * 100, "mm": lambda v: v * 1000}

@app.get("/convert")
def convert():
    function = UNITS.get(request.args["unit"])
    if function is None:
        abort(400)
    return {"value": function(float(request.args["value"]))}
# secure: django ordering from a tuple
from django.shortcuts import render
from .models import Article

COLUMNS = ("title", "date", "-date")

def articles(request):
    order = request.GET.get("o")
    if order not in COLUMNS:
        order = "title"
    return render(request, "articles.html", {"rows": Article.objects.order_by(order)})
# secure: fixed attribute names
from fastapi import FastAPI
from .state import machine

app = FastAPI()

@app.get("/state")
def state(brief: bool = False):
    names = ["mode"] if brief else ["mode", "speed", "load"]
    return {name: getattr(machine, name) for name in names}
# secure: fields of a form that are allowed
from django.http import JsonResponse
from .models import Account

EDITABLE = {"nickname", "language"}

def update(request, pk):
    account = Account.objects.get(pk=pk)
    for name, value in request.POST.items():
        if name in EDITABLE:
            setattr(account, name, value)
    account.save()
    return JsonResponse({"ok": True})
# secure: subcommand among the choices
import argparse
import tasks

parser = argparse.ArgumentParser()
parser.add_argument("job", choices=["sync", "clean"])
args = parser.parse_args()
getattr(tasks, args.job)()
# secure: literal text of an enum
import enum
from fastapi import FastAPI
from .models import rows

app = FastAPI()

class Column(str, enum.Enum):
    name = "name"
    age = "age"

@app.get("/rows")
def listing(sort: Column = Column.name):
    return sorted(rows(), key=lambda row: getattr(row, sort.value))
# secure: checked with a helper of the name (known miss)
from flask import Flask, request
from .drive import motor, require_verb

app = Flask(__name__)

@app.post("/motor")
def control():
    verb = require_verb(request.form["verb"])
    getattr(motor, verb)()
    return "", 204
