# vulnerable: sax parser with external general entities
import xml.sax
from xml.sax.handler import feature_external_ges

def index(stream, handler):
    reader = xml.sax.make_parser()
    reader.setFeature(feature_external_ges, True)
    reader.setContentHandler(handler)
    reader.parse(stream)
# vulnerable: elementtree on a request body
from xml.etree import ElementTree as ET
from aiohttp import web

async def orders(request):
    body = await request.text()
    tree = ET.fromstring(body)
    return web.json_response({"n": len(tree)})
# vulnerable: lxml parser with dtd loading
from lxml import etree

def parse_manifest(path):
    strict = etree.XMLParser(load_dtd=True, remove_blank_text=True)
    return etree.parse(path, parser=strict).getroot()
# vulnerable: lxml import under a short name
import lxml.etree as le

def titles(blob):
    doc = le.fromstring(blob, le.XMLParser(no_network=False, recover=True))
    return [node.text for node in doc.iter("title")]
# vulnerable: minidom from a file name on the command line
import sys
import xml.dom.minidom

document = xml.dom.minidom.parse(sys.argv[1])
for node in document.getElementsByTagName("entry"):
    print(node.getAttribute("id"))
# vulnerable: pulldom over a socket
from xml.dom import pulldom

def events(connection):
    with connection.makefile("rb") as stream:
        for event, node in pulldom.parse(stream):
            yield event, node.nodeName
# vulnerable: options of the parser in a dictionary
from lxml import etree

OPTIONS = {"resolve_entities": True, "no_network": False}

def load(data):
    return etree.fromstring(data, etree.XMLParser(**OPTIONS))
# vulnerable: iterparse of an upload
from xml.etree.ElementTree import iterparse
from django.http import JsonResponse

def count(request):
    total = sum(1 for _, node in iterparse(request.FILES["feed"]) if node.tag == "item")
    return JsonResponse({"items": total})
# secure: sax features switched off
from defusedxml import sax
from xml.sax.handler import ContentHandler

class Names(ContentHandler):
    def startElement(self, name, attrs):
        print(name)

def show(path):
    sax.parse(path, Names(), forbid_dtd=True)
# secure: external entities switched off by hand
from xml.sax.handler import feature_external_ges

def harden(reader):
    reader.setFeature(feature_external_ges, False)
    return reader
# secure: lxml parser that refuses entities
from lxml import etree

SAFE = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)

def price(text):
    return float(etree.fromstring(text, SAFE).findtext("price"))
# secure: defused elementtree under the usual name
import defusedxml.ElementTree as ET
from flask import Flask, request

app = Flask(__name__)

@app.put("/stock")
def stock():
    root = ET.fromstring(request.data)
    return {"items": [node.get("sku") for node in root]}
# secure: building a document
import xml.etree.ElementTree as ET

def sitemap(addresses):
    root = ET.Element("urlset")
    for address in addresses:
        ET.SubElement(ET.SubElement(root, "url"), "loc").text = address
    return ET.tostring(root, encoding="unicode")
# secure: json instead of xml
import json
from urllib.request import Request

def envelope(url, data):
    return Request(url, data=json.dumps(data).encode(), headers={"Content-Type": "application/json"})
# secure: html parser of the standard library
from html.parser import HTMLParser

class Links(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.links = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs).get("href"))
