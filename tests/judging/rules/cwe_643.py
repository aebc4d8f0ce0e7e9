# vulnerable: f-string xpath
from lxml import etree

def price(name):
    doc = etree.parse("stock.xml")
    return doc.xpath(f"//item[@name='{name}']/price/text()")
# vulnerable: expression in a variable
from flask import request
from .data import doc

def find():
    expression = "//member[login='" + request.form["login"] + "']"
    return {"n": len(doc.xpath(expression))}
# vulnerable: compiled from a percent format
from lxml import etree

def finder(label):
    return etree.XPath("//node[@label='%s']" % label)
# vulnerable: format with two values
def check(tree, user, code):
    return bool(tree.xpath("//user[name='{}' and code='{}']".format(user, code)))
# vulnerable: elementtree find with a predicate
def first(tree, city):
    return tree.find(f"./branch[@city='{city}']")
# vulnerable: whole expression from the command line
import sys
from lxml import etree

for hit in etree.parse("feed.xml").xpath(sys.argv[1]):
    print(hit.tag)
# secure: variable beside the expression
from lxml import etree

def price(name):
    doc = etree.parse("stock.xml")
    return doc.xpath("//item[@name=$wanted]/price/text()", wanted=name)
# secure: compiled once and called with a variable
from lxml import etree

FIND = etree.XPath("//node[@label=$label]")

def find(doc, label):
    return FIND(doc, label=label)
# secure: number only
def nth(tree, text):
    position = int(text)
    return tree.xpath(f"//row[{position}]")
# secure: compared in python
def first(tree, city):
    return next((b for b in tree.iter("branch") if b.get("city") == city), None)
# secure: checked against a pattern
import re

def find(tree, code):
    if not re.fullmatch(r"[A-Z0-9]+", code):
        raise ValueError(code)
    return tree.xpath(f"//part[@code='{code}']")
# secure: name from an allow list
KINDS = {"book", "film"}

def every(tree, kind):
    if kind not in KINDS:
        raise KeyError(kind)
    return tree.xpath(f"//{kind}")
