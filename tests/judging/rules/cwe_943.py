# vulnerable: whole body is the filter
from flask import Flask, request
from .storage import db

app = Flask(__name__)

@app.post("/find")
def find():
    return {"n": len(list(db.items.find(request.get_json())))}
# vulnerable: password field as posted
from flask import Flask, request
from .storage import db

app = Flask(__name__)

@app.post("/signin")
def signin():
    body = request.get_json()
    person = db.people.find_one({"login": body["login"], "pin": body["pin"]})
    return {"ok": person is not None}
# vulnerable: where clause with joined script
from pymongo import MongoClient

coll = MongoClient().shop.goods

def cheaper(limit):
    return list(coll.find({"$where": "this.price < " + limit}))
# vulnerable: where clause as an f-string
def named(collection, name):
    return collection.count_documents({"$where": f"this.name == '{name}'"})
# vulnerable: json text of a queue becomes the filter
import json

def on_message(channel, raw):
    wanted = json.loads(raw)
    return channel.db.jobs.delete_many(wanted)
# vulnerable: aggregate stage from the request
from flask import request
from .storage import db

def totals():
    stage = request.get_json()["match"]
    return list(db.sales.aggregate([{"$match": stage}]))
# vulnerable: body of an awaited request
async def lookup(req):
    posted = await req.json()
    return await req.app.mongo.rooms.find_one({"door": posted["door"]})
# secure: value made a string
from flask import Flask, request
from .storage import db

app = Flask(__name__)

@app.post("/signin")
def signin():
    body = request.get_json()
    person = db.people.find_one({"login": str(body["login"])})
    return {"ok": person is not None}
# secure: explicit equality operator
from flask import request
from .storage import db

def by_serial():
    return db.meters.find_one({"serial": {"$eq": request.json["serial"]}})
# secure: type guard
from flask import abort, request
from .storage import db

def by_code():
    code = request.json["code"]
    if not isinstance(code, str):
        abort(400)
    return db.codes.find_one({"code": code})
# secure: object id
from bson import ObjectId
from flask import request
from .storage import db

def by_id():
    return db.notes.find_one({"_id": ObjectId(request.json["id"])})
# secure: constant script
def overdue(collection):
    return list(collection.find({"$where": "this.due < this.paid"}))
# secure: str find that is no database (known miss)
def offset(text, payload):
    return text.find(payload)
# secure: typed model of the body
from pydantic import BaseModel

class Lookup(BaseModel):
    name: str

def search(db, lookup: Lookup):
    return db.plants.find_one({"name": lookup.name})
# vulnerable: script of an expression, deep in the query
from flask import request
from pymongo import MongoClient

posts = MongoClient().blog.posts

def by_function():
    author = request.args["author"]
    script = {"body": "function(a) { return a === '" + author + "' }", "args": ["$author"], "lang": "js"}
    return posts.find_one({"$expr": {"$function": script}})
# vulnerable: script of an accumulator
from flask import request
from pymongo import MongoClient

sales = MongoClient().shop.sales

def totals():
    field = request.args["field"]
    adder = {"init": "function() { return 0 }", "accumulate": "function(s, d) { return s + d." + field + " }"}
    return list(sales.aggregate([{"$group": {"_id": None, "sum": {"$accumulator": adder}}}]))
# vulnerable: map of a map-reduce
from flask import request
from pymongo import MongoClient

visits = MongoClient().site.visits

def count():
    page = request.args["page"]
    return visits.map_reduce("function() { if (this.p == '" + page + "') emit(1, 1) }", "function(k, v) { return 1 }", "r")
# secure: pipeline with a text as value
from flask import request
from pymongo import MongoClient

posts = MongoClient().blog.posts

def by_author():
    author = str(request.args["author"])
    return list(posts.aggregate([{"$match": {"author": author}}, {"$group": {"_id": "$year", "n": {"$sum": 1}}}]))
