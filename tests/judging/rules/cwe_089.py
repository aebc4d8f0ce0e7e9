# vulnerable: f-string inside the call
import sqlite3

def by_city(city):
    with sqlite3.connect("hotels.db") as base:
        return base.execute(f"SELECT name FROM hotels WHERE city = '{city}'").fetchall()
# vulnerable: query grown with += before it runs
from flask import Flask, request
from .store import cursor

app = Flask(__name__)

@app.get("/cars")
def cars():
    statement = "SELECT plate FROM cars"
    if "brand" in request.args:
        statement += " WHERE brand = '" + request.args["brand"] + "'"
    cursor.execute(statement)
    return {"rows": cursor.fetchall()}
# vulnerable: sqlalchemy text with format
from sqlalchemy import create_engine, text

engine = create_engine("sqlite://")

def orders_of(customer):
    query = text("SELECT * FROM orders WHERE customer = '{}'".format(customer))
    with engine.connect() as link:
        return link.execute(query).all()
# vulnerable: percent with a tuple and a long name for the cursor
import psycopg2

def rename(dsn, old, new):
    pg_cursor = psycopg2.connect(dsn).cursor()
    pg_cursor.execute("UPDATE tags SET label = '%s' WHERE label = '%s'" % (new, old))
# vulnerable: django raw with joined text
from .models import Photo

def tagged(request):
    tag = request.GET["tag"]
    return Photo.objects.raw("SELECT * FROM photos WHERE tag = '" + tag + "'")
# vulnerable: asyncpg and an order clause that starts lower case
async def sorted_by(pool, column):
    async with pool.acquire() as link:
        return await link.fetch("select id from trips order by " + column)
# vulnerable: where part comes in from a form
from aiohttp import web

async def report(request):
    form = await request.post()
    parts = ["SELECT total FROM sales", "WHERE", form["condition"]]
    return web.json_response(await request.app["db"].fetch(" ".join(parts)))
# secure: question mark and a tuple
import sqlite3

def by_city(city):
    with sqlite3.connect("hotels.db") as base:
        return base.execute("SELECT name FROM hotels WHERE city = ?", (city,)).fetchall()
# secure: statement grown from constants only
from flask import Flask, request
from .store import cursor

app = Flask(__name__)

@app.get("/cars")
def cars():
    statement, values = "SELECT plate FROM cars", []
    if "brand" in request.args:
        statement += " WHERE brand = %s"
        values.append(request.args["brand"])
    cursor.execute(statement, values)
    return {"rows": cursor.fetchall()}
# secure: sqlalchemy text with a named parameter
from sqlalchemy import create_engine, text

engine = create_engine("sqlite://")

def orders_of(customer):
    with engine.connect() as link:
        return link.execute(text("SELECT * FROM orders WHERE customer = :who"), {"who": customer}).all()
# secure: the value is formatted, the statement is not
import psycopg2

def search(dsn, word):
    pg_cursor = psycopg2.connect(dsn).cursor()
    pg_cursor.execute("SELECT id FROM words WHERE word LIKE %s", ("%" + word + "%",))
    return pg_cursor.fetchall()
# secure: identifier composed by the driver
from psycopg2 import sql

def dump(cursor, table):
    cursor.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
    return cursor.fetchall()
# secure: a sentence that only reads like a statement
import logging

def choose(colour):
    logging.getLogger(__name__).debug("colour %r", colour)
    return "Please select " + colour + " from the menu"
# secure: orm query with a request value
from .models import Photo

def tagged(request):
    return Photo.objects.filter(tag=request.GET["tag"]).order_by("id")
