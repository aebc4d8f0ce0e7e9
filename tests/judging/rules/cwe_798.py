# vulnerable: default beside the environment
import os

SECRET_KEY = os.environ.get("SECRET_KEY", "dev-9f2b7c41")
# vulnerable: bearer in a header
import requests


def tasks():
    headers = {"Accept": "application/json", "Authorization": "Bearer 7f3k20dkw81mxn5"}
    return requests.get("https://tasks.example/api", headers=headers, timeout=5).json()
# vulnerable: odbc connection string
import pyodbc

connection = pyodbc.connect("DRIVER={ODBC Driver 18 for SQL Server};Server=db1;Database=hr;Uid=hr;Pwd=Sn0wfall;")
# vulnerable: redis url
import redis


class Cache:
    def __init__(self):
        self.client = redis.from_url("redis://:h0rseshoe@cache.internal:6379/0")
# vulnerable: basic auth as a tuple
import requests

session = requests.Session()
session.auth = ("robot", "c3realBox")
print(session.get("https://builds.example/queue", timeout=5).text)
# vulnerable: boto client with keys
import boto3


def bucket():
    return boto3.resource("s3", aws_access_key_id="AKIAQWERTYUIOPASDF12", aws_secret_access_key="k3jh4kj5h6k7jh8kj9h0").Bucket("x")
# vulnerable: password compared in the source
def login(name, password):
    return name == "admin" and password == "Letm3in-now"
# vulnerable: hmac with a literal key
import hashlib
import hmac


def sign(body):
    return hmac.new(b"orange-marmalade", body, hashlib.sha256).hexdigest()
# vulnerable: dataclass default
from dataclasses import dataclass


@dataclass
class Settings:
    host: str = "localhost"
    api_key: str = "a81f0c22d9e74b35"
# secure: key from the environment
import os

API_KEY = os.environ["PAYMENTS_API_KEY"]
STRIPE_SECRET = os.getenv("STRIPE_SECRET")
# secure: names of headers and variables
API_KEY_HEADER = "X-Api-Key"
KEY_FILE = "/run/secrets/app_key"
ENV_API_KEY = "PAYMENTS_API_KEY"


def headers(key):
    return {API_KEY_HEADER: key, "Authorization": f"Bearer {key}"}
# secure: password asked at run time
import getpass

import pymysql


def connect(host, user):
    return pymysql.connect(host=host, user=user, password=getpass.getpass(), database="crm")
# secure: connection string put together
import os
from urllib.parse import quote


def dsn():
    return f"postgresql://app:{quote(os.environ['DB_PASSWORD'])}@db.internal/app"
# secure: url with a port and a mail address
HOME = "https://shop.example:8443/contact"
CONTACT = "mailto:sales@shop.example"
REDIS = "redis://localhost:6379/0"
# secure: sort key and cache key
def ranking(rows, cache):
    sort_key = "created_at"
    primary_key = "customer_id"
    cache.set(key="ranking:latest", value=rows)
    return sorted(rows, key=lambda row: (row[sort_key], row[primary_key]))
# secure: settings by pydantic
from pydantic import SecretStr
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    database_url: str
    api_key: SecretStr
    region: str = "eu-west-1"


settings = Settings()
# secure: keyring
import keyring
import requests


def fetch(user):
    secret = keyring.get_password("tasks", user)
    return requests.get("https://tasks.example/api", auth=(user, secret), timeout=5).json()
# secure: secret manager path
import boto3


def load(client=None):
    client = client or boto3.client("secretsmanager")
    return client.get_secret_value(SecretId="prod/app/database")["SecretString"]
# secure: path of a mounted secret
from pathlib import Path

SECRET_KEY_FILE = "/run/secrets/app_key"


def key():
    return Path(SECRET_KEY_FILE).read_text().strip()
# vulnerable: a common word lets anybody in
def enter(user, password):
    if password == "password":
        return session_of(user)
    return None
# secure: a common word is refused
def choose(user, password):
    if password == "password":
        raise ValueError("choose another one")
    store(user, scrypt(password))
