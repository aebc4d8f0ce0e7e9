# vulnerable: flag in a variable
import httpx

def latest(url):
    check = False
    with httpx.Client(verify=check, timeout=5) as client:
        return client.get(url).json()
# vulnerable: options spread into the call
import requests

OPTIONS = {"timeout": 10, "verify": False}

def stock(sku):
    return requests.get(f"https://depot.example.com/{sku}", **OPTIONS).json()["left"]
# vulnerable: off unless asked for
import requests

def pull(url, verify=False):
    return requests.get(url, timeout=10, verify=verify).content
# vulnerable: context without host name check
import ssl
import urllib.request

def read(url):
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    return urllib.request.urlopen(url, context=tls).read()
# vulnerable: names imported from ssl
from ssl import CERT_NONE
import urllib3

pool = urllib3.PoolManager(cert_reqs=CERT_NONE)

def ping(host):
    return pool.request("GET", f"https://{host}/ping").status
# vulnerable: default context replaced for the whole process
import ssl
import urllib.request

ssl._create_default_https_context = ssl._create_unverified_context

def page(url):
    return urllib.request.urlopen(url).read()
# vulnerable: paramiko policy as a class
from paramiko import AutoAddPolicy, SSHClient

def uptime(host, user):
    client = SSHClient()
    client.set_missing_host_key_policy(AutoAddPolicy)
    client.connect(host, username=user)
    return client.exec_command("uptime")[1].read()
# vulnerable: aiohttp without ssl
import aiohttp

async def rates(url):
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=False) as answer:
            return await answer.json()
# vulnerable: curl told to be insecure
import subprocess

def fetch(url, target):
    subprocess.run(["curl", "-s", "-k", "-o", target, url], check=True)
# vulnerable: mongo takes any certificate
from pymongo import MongoClient

def database(uri):
    return MongoClient(uri, tls=True, tlsAllowInvalidCertificates=True).get_default_database()
# vulnerable: check follows a debug switch (known miss)
import os
import requests

session = requests.Session()
session.verify = os.environ.get("CHECK_TLS", "no") == "yes"
# secure: own bundle of roots
import requests

def health(host):
    return requests.get(f"https://{host}/health", timeout=5, verify="/etc/ssl/own-root.pem").ok
# secure: server context asks for no client certificate
import ssl

def server_context(cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_NONE
    return context
# secure: another kind of verify
def restore(archive, target, verify=False):
    if verify:
        archive.test()
    archive.copy(target, overwrite=False)

def nightly(archive, target):
    restore(archive, target, verify=False)
# secure: known hosts and a strict policy
import paramiko

def run(host, command):
    with paramiko.SSHClient() as client:
        client.load_system_host_keys()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(host)
        return client.exec_command(command)[1].read()
# secure: context of the defaults with a pinned minimum
import http.client
import ssl

def connection(host):
    context = ssl.create_default_context(cafile="roots.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    return http.client.HTTPSConnection(host, context=context, timeout=5)
# secure: ssl flag of a local database
import asyncpg

async def pool():
    return await asyncpg.create_pool(host="/run/postgresql", database="app", ssl=False)
# secure: caller may name a bundle
import requests

def call(url, *, verify=True, timeout=10):
    return requests.post(url, json={}, verify=verify, timeout=timeout)
# secure: setting is looked at, not made
import ssl

def describe(context):
    if context.verify_mode == ssl.CERT_NONE:
        raise ValueError("the context must check certificates")
    return context.get_ca_certs()
