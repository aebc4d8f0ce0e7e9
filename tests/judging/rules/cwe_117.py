# vulnerable: f-string in flask
from flask import Flask, request

app = Flask(__name__)

@app.post("/pay")
def pay():
    app.logger.info(f"payment by {request.form['payer']}")
    return "ok"
# vulnerable: lazy argument
import logging
from django.http import HttpResponse

LOG = logging.getLogger(__name__)

def view(request):
    agent = request.META.get("HTTP_USER_AGENT", "")
    LOG.debug("agent is %s", agent)
    return HttpResponse("ok")
# vulnerable: getLogger in place
import logging
from fastapi import FastAPI

app = FastAPI()

@app.get("/q")
async def q(words: str):
    logging.getLogger("q").warning("words: {}".format(words))
    return []
# vulnerable: written to a log file
from flask import Flask, request

app = Flask(__name__)

@app.post("/visit")
def visit():
    with open("visits.log", "a") as log:
        log.write("visit " + request.form["who"] + "\n")
    return "ok"
# vulnerable: only blanks are stripped
import logging

def ask():
    city = input("city: ").strip()
    logging.error("unknown city %s", city)
# vulnerable: logger of an object
import logging
from aiohttp import web

class Service:
    def __init__(self):
        self.logger = logging.getLogger("service")

    async def handle(self, request):
        body = await request.text()
        self.logger.info("got " + body)
        return web.Response()
# secure: f-string with repr
from flask import Flask, request

app = Flask(__name__)

@app.post("/pay")
def pay():
    app.logger.info(f"payment by {request.form['payer']!r}")
    return "ok"
# secure: repr call
import logging
from django.http import HttpResponse

LOG = logging.getLogger(__name__)

def view(request):
    LOG.debug("agent is %s", repr(request.META.get("HTTP_USER_AGENT", "")))
    return HttpResponse("ok")
# secure: json in the log
import json
import logging
from fastapi import FastAPI

app = FastAPI()
log = logging.getLogger("q")

@app.get("/q")
async def q(words: str):
    log.info("words: %s", json.dumps(words))
    return []
# secure: number
import logging
from flask import Flask, request

app = Flask(__name__)

@app.post("/n")
def n():
    amount = int(request.form["amount"])
    logging.info("amount %d", amount)
    return "ok"
# secure: line breaks removed on an own line
import logging
from flask import Flask, request

app = Flask(__name__)

@app.get("/c")
def c():
    city = request.args["city"]
    city = city.replace("\n", " ").replace("\r", " ")
    logging.warning("city %s", city)
    return "ok"
# secure: constant text
import logging
from flask import Flask, request

app = Flask(__name__)

@app.post("/s")
def s():
    value = request.form["value"]
    logging.info("value stored")
    return {"value": value}
# secure: worker logs its own counter
import logging

log = logging.getLogger(__name__)

def work(jobs):
    for number, job in enumerate(jobs):
        log.info("job %d of %d", number, len(jobs))
        job.run()
# secure: logarithm of an input
import math

def main():
    x = float(input("x: "))
    print(math.log(x))
