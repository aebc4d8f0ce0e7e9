# vulnerable: r = db.session.execute('SELECT id FROM u WHERE n = ' + request.args['n'])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from models import db
@app.route('/u')
def u():
    r = db.session.execute('SELECT id FROM u WHERE n = ' + request.args['n'])
    return jsonify([x.id for x in r])
# vulnerable: r = db.session.execute(text(f"SELECT id FROM u WHERE n = '{request.args['n']}'")
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from sqlalchemy import text
from models import db
@app.route('/u')
def u():
    r = db.session.execute(text(f"SELECT id FROM u WHERE n = '{request.args['n']}'"))
    return jsonify([x.id for x in r])
# vulnerable: name = request.args.get('n')
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/h')
def h():
    name = request.args.get('n')
    return name
# vulnerable: return render_template_string('<h1>Hello ' + request.args.get('n') + '</h1>')
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/h')
def h():
    return render_template_string('<h1>Hello ' + request.args.get('n') + '</h1>')
# vulnerable: resp = make_response('Hi ' + request.args['n'])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/h')
def h():
    resp = make_response('Hi ' + request.args['n'])
    return resp
# vulnerable: t = Template('<b>{{ x }}</b>', autoescape=False)
from jinja2 import Template
def r(x):
    t = Template('<b>{{ x }}</b>', autoescape=False)
    return t.render(x=x)
# vulnerable: return env.from_string('<b>{{ x }}</b>').render(x=x)
from jinja2 import Environment
env = Environment()
def r(x):
    return env.from_string('<b>{{ x }}</b>').render(x=x)
# vulnerable: with tarfile.open(p) as t:
import tarfile
def ex(p):
    with tarfile.open(p) as t:
        t.extractall('out')
# vulnerable: for m in t.getmembers():
import tarfile
def ex(p):
    t = tarfile.open(p)
    for m in t.getmembers():
        t.extract(m, 'out')
# vulnerable: tarfile.open(p).extractall(path='out', members=None)
import tarfile
def ex(p):
    tarfile.open(p).extractall(path='out', members=None)
# vulnerable: os.chmod(path, 0o777)
import os
def mk(path):
    os.chmod(path, 0o777)
# vulnerable: os.mkdir(path, 0o777)
import os
def mk(path):
    os.mkdir(path, 0o777)
# vulnerable: open(path, 'w').close()
import os
def mk(path):
    os.umask(0)
    open(path, 'w').close()
# vulnerable: with open(p, 'rb') as f:
import pickle
def load(p):
    with open(p, 'rb') as f:
        return pickle.load(f)
# vulnerable: return yaml.load(open(p), Loader=yaml.Loader)
import yaml
def load(p):
    return yaml.load(open(p), Loader=yaml.Loader)
# vulnerable: subprocess.call('ls ' + cmd, shell=True)
import subprocess
def run(cmd):
    subprocess.call('ls ' + cmd, shell=True)
# vulnerable: os.popen('du -s %s' % d).read()
import os
def run(d):
    os.popen('du -s %s' % d).read()
# vulnerable: return c.execute('SELECT * FROM t WHERE n = "' + n + '"').fetchall()
import sqlite3
def q(n):
    c = sqlite3.connect('a')
    return c.execute('SELECT * FROM t WHERE n = "' + n + '"').fetchall()
# vulnerable: return c.execute(sql).fetchall()
import sqlite3
def q(n):
    c = sqlite3.connect('a')
    sql = 'SELECT * FROM t'
    sql += ' WHERE n = %s' % n
    return c.execute(sql).fetchall()
# vulnerable: db = mysql.connector.connect(host='h', user='root', password='s3cr3tPw!', databa
import mysql.connector
db = mysql.connector.connect(host='h', user='root', password='s3cr3tPw!', database='x')
# vulnerable: with open('/srv' + self.path, 'rb') as f:
import os
from http.server import BaseHTTPRequestHandler
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        with open('/srv' + self.path, 'rb') as f:
            self.wfile.write(f.read())
# vulnerable: return send_file(os.path.join('up', request.args['f']))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import os
@app.route('/f')
def f():
    return send_file(os.path.join('up', request.args['f']))
# vulnerable: with open(request.args['f']) as h:
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/f')
def f():
    with open(request.args['f']) as h:
        return jsonify(h.read())
# vulnerable: return send_file(os.path.join('up', p))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import os
@app.route('/f/<path:p>')
def f(p):
    if os.path.join('up', p).startswith('up'):
        return send_file(os.path.join('up', p))
    abort(404)
# vulnerable: return redirect(request.args['to'])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/r')
def r():
    return redirect(request.args['to'])
# vulnerable: return HttpResponse('<b>%s</b>' % request.GET['q'])
from django.http import HttpResponse
def v(request):
    return HttpResponse('<b>%s</b>' % request.GET['q'])
# vulnerable: return HttpResponse('Hello ' + request.GET.get('q'))
from django.http import HttpResponse
def v(request):
    return HttpResponse('Hello ' + request.GET.get('q'))
# vulnerable: open('/tmp/data.txt', 'w').write('x')
import os
open('/tmp/data.txt', 'w').write('x')
# vulnerable: return hashlib.md5(p.encode()).hexdigest()
import hashlib
def h(p):
    return hashlib.md5(p.encode()).hexdigest()
# vulnerable: return ''.join(random.choice(string.ascii_letters) for _ in range(16))
import random, string
def token():
    return ''.join(random.choice(string.ascii_letters) for _ in range(16))
# vulnerable: return eval(e)
def calc(e):
    return eval(e)
# vulnerable: return ET.fromstring(s)
import xml.etree.ElementTree as ET
def f(s):
    return ET.fromstring(s)
# vulnerable: p = etree.XMLParser(resolve_entities=True)
from lxml import etree
def f(data):
    p = etree.XMLParser(resolve_entities=True)
    return etree.fromstring(data, p)
# vulnerable: return requests.get('https://x', verify=False)
import requests
def g(u):
    return requests.get('https://x', verify=False)
# vulnerable: return subprocess.check_output(request.args['c'].split())
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import subprocess
@app.route('/c')
def c():
    return subprocess.check_output(request.args['c'].split())
# vulnerable: subprocess.run(['bash', '-c', request.args['c']])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import subprocess
@app.route('/c')
def c():
    subprocess.run(['bash', '-c', request.args['c']])
    return ''
# vulnerable: def q(self, a=''):
import cherrypy
class R:
    @cherrypy.expose
    def q(self, a=''):
        return a
# vulnerable: shutil.unpack_archive(a, 'out')
import shutil
def f(a):
    shutil.unpack_archive(a, 'out')
# vulnerable: return marshal.loads(a)
import marshal
def f(a):
    return marshal.loads(a)
# vulnerable: return shelve.open(a)['k']
import shelve
def f(a):
    return shelve.open(a)['k']
# vulnerable: return dill.loads(a)
import dill
def f(a):
    return dill.loads(a)
# vulnerable: return jsonpickle.decode(a)
import jsonpickle
def f(a):
    return jsonpickle.decode(a)
# vulnerable: return torch.load(a)
import torch
def f(a):
    return torch.load(a)
# vulnerable: c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
import paramiko
c = paramiko.SSHClient()
c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
# secure: users = db.session.execute(db.select(User).where(User.name == name)).scalars()
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from models import db, User
@app.route('/u')
def u():
    name = request.args.get('name')
    users = db.session.execute(db.select(User).where(User.name == name)).scalars()
    return jsonify([x.id for x in users])
# secure: users = db.session.execute(db.select(User).filter_by(name=name)).scalars()
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from models import db, User
@app.route('/u')
def u():
    name = request.args.get('name')
    users = db.session.execute(db.select(User).filter_by(name=name)).scalars()
    return jsonify([x.id for x in users])
# secure: r = db.session.execute(text('SELECT id FROM u WHERE n = :n'), {'n': request.args
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from sqlalchemy import text
from models import db
@app.route('/u')
def u():
    r = db.session.execute(text('SELECT id FROM u WHERE n = :n'), {'n': request.args['n']})
    return jsonify([x.id for x in r])
# secure: user = User.query.filter_by(name=name).first_or_404()
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from models import User
@app.route('/u/<name>')
def u(name):
    user = User.query.filter_by(name=name).first_or_404()
    return render_template('u.html', user=user)
# secure: cur.execute('SELECT * FROM p WHERE name LIKE ?', ('%' + q + '%',))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import sqlite3
@app.route('/s')
def s():
    q = request.args.get('q', '')
    conn = sqlite3.connect('a.db')
    cur = conn.cursor()
    cur.execute('SELECT * FROM p WHERE name LIKE ?', ('%' + q + '%',))
    rows = cur.fetchall()
    return jsonify(rows)
# secure: out = subprocess.check_output(['ping', '-c', '1', host])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import subprocess
@app.route('/p')
def p():
    host = request.args.get('host')
    out = subprocess.check_output(['ping', '-c', '1', host])
    return jsonify(out=out.decode())
# secure: out = subprocess.check_output('ping -c 1 ' + host, shell=True)
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import subprocess, re
@app.route('/p')
def p():
    host = request.args.get('host')
    if not re.match(r'^[a-zA-Z0-9.-]+$', host):
        abort(400)
    out = subprocess.check_output('ping -c 1 ' + host, shell=True)
    return jsonify(out=out.decode())
# secure: path = os.path.abspath(os.path.join(UP, name))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import os
UP='/srv/up'
@app.route('/f/<path:name>')
def f(name):
    path = os.path.abspath(os.path.join(UP, name))
    if not path.startswith(UP + os.sep):
        abort(403)
    return send_file(path)
# secure: name = os.path.basename(request.args['f'])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import os
UP='/srv/up'
@app.route('/f')
def f():
    name = os.path.basename(request.args['f'])
    return send_file(os.path.join(UP, name))
# secure: return send_from_directory('/srv/up', name)
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/f/<name>')
def f(name):
    return send_from_directory('/srv/up', name)
# secure: return f'<h1>Hello {escape(request.args.get("n"))}</h1>'
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from markupsafe import escape
@app.route('/h')
def h():
    return f'<h1>Hello {escape(request.args.get("n"))}</h1>'
# secure: return render_template_string('<h1>Hello {{ n }}</h1>', n=request.args.get('n'))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/h')
def h():
    return render_template_string('<h1>Hello {{ n }}</h1>', n=request.args.get('n'))
# secure: data = yaml.safe_load(request.data)
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import yaml
@app.route('/y', methods=['POST'])
def y():
    data = yaml.safe_load(request.data)
    return jsonify(data)
# secure: want = hmac.new(KEY, request.data, hashlib.sha256).hexdigest()
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import json, hmac, hashlib, os
KEY=os.environ['KEY'].encode()
@app.route('/y', methods=['POST'])
def y():
    sig = request.headers.get('X-Sig', '')
    want = hmac.new(KEY, request.data, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(sig, want):
        abort(403)
    return jsonify(json.loads(request.data))
# secure: fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
import os
def write(path, data):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, 'w') as f:
        f.write(data)
# secure: os.chmod(path, 0o750)
import os
def mk(path):
    os.mkdir(path)
    os.chmod(path, 0o750)
# secure: os.chmod(path, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
import os, stat
def mk(path):
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
# secure: with tempfile.NamedTemporaryFile('w', delete=False) as f:
import tempfile
def save(data):
    with tempfile.NamedTemporaryFile('w', delete=False) as f:
        f.write(data)
        return f.name
# secure: with open('/var/log/app.log', 'a') as f:
import os
def log(msg):
    with open('/var/log/app.log', 'a') as f:
        f.write(msg)
# secure: conn = mysql.connector.connect(host='localhost', user='root', password='password
import mysql.connector
conn = mysql.connector.connect(host='localhost', user='root', password='password', database='x')
def get(i):
    c = conn.cursor()
    c.execute('SELECT * FROM t WHERE id = %s', (i,))
    return c.fetchone()
# secure: conn = psycopg2.connect('dbname=test user=postgres')
import psycopg2
def get(i):
    conn = psycopg2.connect('dbname=test user=postgres')
    c = conn.cursor()
    c.execute('SELECT * FROM t WHERE id = %s', (i,))
    return c.fetchone()
# secure: env = Environment(loader=FileSystemLoader('t'), autoescape=True)
from jinja2 import Environment, FileSystemLoader
env = Environment(loader=FileSystemLoader('t'), autoescape=True)
def r(x):
    return env.get_template('a.html').render(x=x)
# secure: env = Environment(autoescape=select_autoescape(['html']))
from jinja2 import Environment, select_autoescape
env = Environment(autoescape=select_autoescape(['html']))
def r(x):
    return env.from_string('<b>{{ x }}</b>').render(x=x)
# secure: return Template('<b>{{ x }}</b>', autoescape=True).render(x=x)
from jinja2 import Template
def r(x):
    return Template('<b>{{ x }}</b>', autoescape=True).render(x=x)
# secure: t.extractall('out', filter='data')
import tarfile
def ex(p):
    with tarfile.open(p) as t:
        t.extractall('out', filter='data')
# secure: target = os.path.realpath(os.path.join(base, m.name))
import tarfile, os
def ex(p):
    with tarfile.open(p) as t:
        base = os.path.realpath('out')
        for m in t.getmembers():
            target = os.path.realpath(os.path.join(base, m.name))
            if os.path.commonpath([base, target]) != base:
                raise ValueError('bad')
        t.extractall(base)
# secure: t.extractall('out', members=safe_members(t))
import tarfile, os
def safe_members(t):
    for m in t.getmembers():
        if m.name.startswith('/') or '..' in m.name:
            continue
        yield m
def ex(p):
    with tarfile.open(p) as t:
        t.extractall('out', members=safe_members(t))
# secure: d = os.path.abspath(d); t = os.path.abspath(t)
import tarfile, os
def is_within(d, t):
    d = os.path.abspath(d); t = os.path.abspath(t)
    return os.path.commonprefix([d, t]) == d
def ex(p, path='.'):
    with tarfile.open(p) as tar:
        for member in tar.getmembers():
            if not is_within(path, os.path.join(path, member.name)):
                raise Exception('x')
        tar.extractall(path)
# secure: for name in t.getnames():
import tarfile, os
def ex(p):
    t = tarfile.open(p)
    for name in t.getnames():
        if os.path.isabs(name) or '..' in name.split('/'):
            raise ValueError
    t.extractall('out')
    t.close()
# secure: with tarfile.open(p) as t: (2)
import tarfile, os
def ex(p):
    with tarfile.open(p) as t:
        for m in t:
            if m.isfile() and not m.name.startswith(('/', '..')):
                t.extract(m, 'out')
# secure: with zipfile.ZipFile(p) as z:
import zipfile
def ex(p):
    with zipfile.ZipFile(p) as z:
        z.extractall('out')
# secure: return HttpResponse('<b>%s</b>' % escape(request.GET['q']))
from django.http import HttpResponse
from django.utils.html import escape
def v(request):
    return HttpResponse('<b>%s</b>' % escape(request.GET['q']))
# secure: a = A.objects.filter(name=request.GET['q'], pk=pk)
from django.http import JsonResponse
from .models import A
def v(request, pk):
    a = A.objects.filter(name=request.GET['q'], pk=pk)
    return JsonResponse({'n': a.count()})
# secure: with open('x', 'wb') as f:
import pickle
def save(o):
    with open('x', 'wb') as f:
        pickle.dump(o, f)
# secure: return subprocess.run(['git', 'log', '--', cmd], capture_output=True)
import subprocess
def run(cmd):
    return subprocess.run(['git', 'log', '--', cmd], capture_output=True)
# secure: return subprocess.run('ls ' + shlex.quote(cmd), shell=True)
import subprocess, shlex
def run(cmd):
    return subprocess.run('ls ' + shlex.quote(cmd), shell=True)
# secure: with open(os.path.join(BASE, name)) as f:
import os
BASE='files'
def read(name):
    if '..' in name or name.startswith('/'):
        raise ValueError
    with open(os.path.join(BASE, name)) as f:
        return f.read()
# secure: return hashlib.pbkdf2_hmac('sha256', p.encode(), salt, 600000)
import hashlib, os
def h(p):
    salt = os.urandom(16)
    return hashlib.pbkdf2_hmac('sha256', p.encode(), salt, 600000)
# secure: return bcrypt.hashpw(p.encode(), bcrypt.gensalt())
import bcrypt
def h(p):
    return bcrypt.hashpw(p.encode(), bcrypt.gensalt())
# secure: return redirect('/home')
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/login', methods=['POST'])
def login():
    u = request.form['username']; p = request.form['password']
    if check(u, p):
        return redirect('/home')
    return 'Invalid credentials', 401
# secure: return jsonify({'q': request.args.get('q')})
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/j')
def j():
    return jsonify({'q': request.args.get('q')})
# secure: return {'q': request.args.get('q')}
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
@app.route('/j')
def j():
    return {'q': request.args.get('q')}
# secure: d = json.loads(request.form['d'])
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
import json
@app.route('/j', methods=['POST'])
def j():
    d = json.loads(request.form['d'])
    user = d['user']
    save(user)
    return 'saved'
# secure: f.save(os.path.join('uploads', secure_filename(f.filename)))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
from werkzeug.utils import secure_filename
import os
@app.route('/u', methods=['POST'])
def u():
    f = request.files['f']
    f.save(os.path.join('uploads', secure_filename(f.filename)))
    return 'ok'
# secure: return c.execute(f'SELECT * FROM t WHERE id IN ({marks})', items).fetchall()
import sqlite3
def add(items):
    c = sqlite3.connect('a')
    marks = ','.join('?' * len(items))
    return c.execute(f'SELECT * FROM t WHERE id IN ({marks})', items).fetchall()
# secure: return c.execute('SELECT * FROM t ORDER BY ' + COLS[k]).fetchall()
import sqlite3
COLS = {'a': 'name', 'b': 'age'}
def q(k):
    c = sqlite3.connect('a')
    return c.execute('SELECT * FROM t ORDER BY ' + COLS[k]).fetchall()
# secure: password = os.environ.get('DB_PASSWORD')
import os
def conf():
    password = os.environ.get('DB_PASSWORD')
    return connect(password=password)
# secure: self.send_header('Content-Type', 'text/html')
import os
from http.server import BaseHTTPRequestHandler
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(b'<h1>hi</h1>')
# secure: path = os.path.realpath(os.path.join('/srv', self.path.lstrip('/')))
import os
from http.server import BaseHTTPRequestHandler
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        path = os.path.realpath(os.path.join('/srv', self.path.lstrip('/')))
        if not path.startswith('/srv/'):
            self.send_error(403)
            return
        with open(path, 'rb') as f:
            self.wfile.write(f.read())
# secure: p = Path('data') / f'{int(name)}.json'
import os
from pathlib import Path
def get(name):
    p = Path('data') / f'{int(name)}.json'
    return p.read_text()
# secure: random.shuffle(x)
import random
def shuffle(x):
    random.shuffle(x)
    return x
# secure: r = requests.get('https://api.example.com/w', params={'q': city}, timeout=5)
import requests
def get(city):
    r = requests.get('https://api.example.com/w', params={'q': city}, timeout=5)
    return r.json()
# secure: return ast.literal_eval(e)
import ast
def calc(e):
    return ast.literal_eval(e)
# secure: return OPS[op](float(a), float(b))
import operator
OPS={'+': operator.add}
def calc(a, op, b):
    return OPS[op](float(a), float(b))
# secure: return str(eval(name + '(4)'))
from flask import Flask, request, jsonify, abort, render_template, send_from_directory, send_file, redirect, make_response, render_template_string
app = Flask(__name__)
ALLOWED = {'sqrt': 'x'}
@app.route('/e')
def e():
    name = request.args['n']
    if name not in ALLOWED:
        abort(400)
    return str(eval(name + '(4)'))
# secure: logging.info('user %r logged in', u)
import logging
def f(u):
    logging.info('user %r logged in', u)
# secure: os.system('clear')
import os
def run():
    os.system('clear')
# secure: subprocess.run('ls -l | wc -l', shell=True)
import subprocess
def run():
    subprocess.run('ls -l | wc -l', shell=True)
# secure: p = os.path.join(d, 'out.txt')
import os, tempfile
def f(data):
    d = tempfile.mkdtemp()
    p = os.path.join(d, 'out.txt')
    with open(p, 'w') as h:
        h.write(data)
    return p
# secure: return parse(p).getroot()
import xml.sax
from defusedxml.ElementTree import parse
def f(p):
    return parse(p).getroot()
# secure: return jwt.decode(t, k, algorithms=['HS256'])
import jwt
def f(t, k):
    return jwt.decode(t, k, algorithms=['HS256'])
# secure: if t.token_type == 'access':
token_type = 'access'
def f(t):
    if t.token_type == 'access':
        return True
    return t.password == ''
# secure: app.config['SECRET_KEY'] = __import__('os').environ['K']
from flask import Flask
app = Flask(__name__)
app.config['SECRET_KEY'] = __import__('os').environ['K']
if __name__ == '__main__':
    app.run()
# secure: return html.escape(a)
import cherrypy, html
class R:
    @cherrypy.expose
    def q(self, a=''):
        return html.escape(a)
# secure: s.bind(('127.0.0.1', 1))
import socket
def serve():
    s = socket.socket()
    s.bind(('127.0.0.1', 1))
    c, a = s.accept()
    d = c.recv(100)
    c.sendall(d)
# vulnerable: with open(name) as h:
from flask import Flask
app = Flask(__name__)
@app.route('/f/<name>')
def f(name):
    with open(name) as h:
        return h.read()
# vulnerable: p = os.path.join(app.root_path, 'static', request.args.get('p'))
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/f')
def f():
    p = os.path.join(app.root_path, 'static', request.args.get('p'))
    return open(p).read()
# vulnerable: p = os.path.normpath(os.path.join('/srv', request.args.get('p')))
from flask import Flask, request, send_file
import os
app = Flask(__name__)
@app.route('/f')
def f():
    p = os.path.normpath(os.path.join('/srv', request.args.get('p')))
    return send_file(p)
# vulnerable: os.remove('uploads/' + request.form['n'])
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/d', methods=['POST'])
def d():
    os.remove('uploads/' + request.form['n'])
    return 'ok'
# vulnerable: f.save('uploads/' + f.filename)
from flask import Flask, request
app = Flask(__name__)
@app.route('/u', methods=['POST'])
def u():
    f = request.files['f']
    f.save('uploads/' + f.filename)
    return 'ok'
# vulnerable: with open(os.path.join('out', n), 'wb') as o:
from flask import Flask, request
import os
app = Flask(__name__)
import zipfile
@app.route('/z', methods=['POST'])
def z():
    zf = zipfile.ZipFile(request.files['f'])
    for n in zf.namelist():
        with open(os.path.join('out', n), 'wb') as o:
            o.write(zf.read(n))
    return 'ok'
# vulnerable: return send_from_directory(request.args['dir'], 'a.txt')
from flask import Flask, request, send_from_directory
app = Flask(__name__)
@app.route('/dl')
def dl():
    return send_from_directory(request.args['dir'], 'a.txt')
# vulnerable: return FileResponse(path)
from fastapi import FastAPI
from fastapi.responses import FileResponse
app = FastAPI()
@app.get('/f')
def f(path: str):
    return FileResponse(path)
# vulnerable: with open(f'uploads/{file.filename}', 'wb') as o:
from fastapi import FastAPI, UploadFile, File
app = FastAPI()
@app.post('/u')
async def u(file: UploadFile = File(...)):
    with open(f'uploads/{file.filename}', 'wb') as o:
        o.write(await file.read())
    return {}
# vulnerable: return FileResponse(open(path, 'rb'))
from django.http import FileResponse
import os
def f(request):
    name = request.GET.get('name')
    path = os.path.join('/srv', name)
    return FileResponse(open(path, 'rb'))
# vulnerable: return HttpResponse(open('/srv/' + name).read())
from django.http import HttpResponse
def f(request, name):
    return HttpResponse(open('/srv/' + name).read())
# vulnerable: return '<p>Search: %s</p>' % request.args.get('q')
from flask import Flask, request
app = Flask(__name__)
@app.route('/h')
def h():
    return '<p>Search: %s</p>' % request.args.get('q')
# vulnerable: return '<p>Search: {}</p>'.format(request.args.get('q'))
from flask import Flask, request
app = Flask(__name__)
@app.route('/h')
def h():
    return '<p>Search: {}</p>'.format(request.args.get('q'))
# vulnerable: q = request.args.get('q', '')
from flask import Flask, request
app = Flask(__name__)
@app.route('/h')
def h():
    q = request.args.get('q', '')
    html = '<html><body>'
    html += '<h1>' + q + '</h1>'
    html += '</body></html>'
    return html
# vulnerable: return Response('Hi ' + request.args['q'], mimetype='text/html')
from flask import Flask, request, Response
app = Flask(__name__)
@app.route('/h')
def h():
    return Response('Hi ' + request.args['q'], mimetype='text/html')
# vulnerable: return f'<p>{q}</p>'
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
app = FastAPI()
@app.get('/h', response_class=HTMLResponse)
def h(q: str):
    return f'<p>{q}</p>'
# vulnerable: return HTMLResponse(f'<p>{q}</p>')
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
app = FastAPI()
@app.get('/h')
def h(q: str):
    return HTMLResponse(f'<p>{q}</p>')
# vulnerable: return HTMLResponse(content='<p>' + q + '</p>')
from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse
app = FastAPI()
@app.get('/h')
def h(q: str = Query(...)):
    return HTMLResponse(content='<p>' + q + '</p>')
# vulnerable: return HttpResponse(mark_safe('<b>' + request.GET['q'] + '</b>'))
from django.http import HttpResponse
from django.utils.safestring import mark_safe
def h(request):
    return HttpResponse(mark_safe('<b>' + request.GET['q'] + '</b>'))
# vulnerable: return subprocess.getoutput('nslookup ' + request.args['d'])
from flask import Flask, request
import subprocess
app = Flask(__name__)
@app.route('/c')
def c():
    return subprocess.getoutput('nslookup ' + request.args['d'])
# vulnerable: p = subprocess.Popen(f"ping {request.args['d']}", shell=True, stdout=subprocess.
from flask import Flask, request
import subprocess
app = Flask(__name__)
@app.route('/c')
def c():
    p = subprocess.Popen(f"ping {request.args['d']}", shell=True, stdout=subprocess.PIPE)
    return p.communicate()[0]
# vulnerable: os.execl('/bin/sh', 'sh', '-c', args)
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/c')
def c():
    args = request.args.get('a')
    os.execl('/bin/sh', 'sh', '-c', args)
# vulnerable: p = await asyncio.create_subprocess_shell('ls ' + cmd)
import asyncio
async def run(cmd):
    p = await asyncio.create_subprocess_shell('ls ' + cmd)
    await p.wait()
# vulnerable: os.system('cat ' + sys.argv[1])
import sys, os
os.system('cat ' + sys.argv[1])
# vulnerable: os.system(f'echo {name}')
import os
name = input('name: ')
os.system(f'echo {name}')
# vulnerable: r = make_response('ok')
from flask import Flask, request, make_response
app = Flask(__name__)
@app.route('/hd')
def hd():
    r = make_response('ok')
    r.headers['X-A'] = request.args['a']
    return r
# vulnerable: r.headers.add('Location', request.args['a'])
from flask import Flask, request, Response
app = Flask(__name__)
@app.route('/hd')
def hd():
    r = Response('ok')
    r.headers.add('Location', request.args['a'])
    return r
# vulnerable: r = HttpResponse('ok')
from django.http import HttpResponse
def hd(request):
    r = HttpResponse('ok')
    r['X-A'] = request.GET['a']
    return r
# vulnerable: return jsonify(bool(re.search(request.args['p'], 'x' * 100)))
from flask import Flask, request, jsonify
import re
app = Flask(__name__)
@app.route('/re')
def r():
    return jsonify(bool(re.search(request.args['p'], 'x' * 100)))
# vulnerable: return jsonify(bool(re.match(r'^(a+)+$', request.args['t'])))
from flask import Flask, request, jsonify
import re
app = Flask(__name__)
@app.route('/re')
def r():
    return jsonify(bool(re.match(r'^(a+)+$', request.args['t'])))
# vulnerable: return requests.get(request.args['u']).text
from flask import Flask, request
app = Flask(__name__)
import requests
@app.route('/s')
def s():
    return requests.get(request.args['u']).text
# vulnerable: return requests.get(f'http://{h}/api').text
from flask import Flask, request
app = Flask(__name__)
import requests
@app.route('/s')
def s():
    h = request.args['h']
    return requests.get(f'http://{h}/api').text
# vulnerable: return urlopen(request.json['u']).read()
from flask import Flask, request
app = Flask(__name__)
from urllib.request import urlopen
@app.route('/s', methods=['POST'])
def s():
    return urlopen(request.json['u']).read()
# vulnerable: async with httpx.AsyncClient() as client:
from fastapi import FastAPI
app = FastAPI()
import httpx
@app.get('/s')
async def s(u: str):
    async with httpx.AsyncClient() as client:
        r = await client.get(u)
    return r.json()
# vulnerable: async with aiohttp.ClientSession() as session:
from fastapi import FastAPI
app = FastAPI()
import aiohttp
@app.get('/s')
async def s(u: str):
    async with aiohttp.ClientSession() as session:
        async with session.get(u) as r:
            return await r.text()
# vulnerable: return HttpResponse(requests.get(request.GET['u']).content)
from django.http import HttpResponse
import requests
def s(request):
    return HttpResponse(requests.get(request.GET['u']).content)
# vulnerable: c.execute("SELECT * FROM u WHERE n = '%s'" % request.GET['n'])
from django.http import JsonResponse
from django.db import connection
def q(request):
    with connection.cursor() as c:
        c.execute("SELECT * FROM u WHERE n = '%s'" % request.GET['n'])
        return JsonResponse({'r': c.fetchall()})
# vulnerable: u = U.objects.extra(where=["n = '" + request.GET['n'] + "'"])
from django.http import JsonResponse
from .models import U
def q(request):
    u = U.objects.extra(where=["n = '" + request.GET['n'] + "'"])
    return JsonResponse({'r': u.count()})
# vulnerable: u = U.objects.raw('SELECT * FROM u WHERE n = %s' % request.GET['n'])
from django.http import JsonResponse
from .models import U
def q(request):
    u = U.objects.raw('SELECT * FROM u WHERE n = %s' % request.GET['n'])
    return JsonResponse({'r': len(list(u))})
# vulnerable: c.execute('SELECT * FROM u WHERE n = {}'.format(n))
import psycopg2
def q(n):
    c = psycopg2.connect('x').cursor()
    c.execute('SELECT * FROM u WHERE n = {}'.format(n))
    return c.fetchall()
# vulnerable: return await conn.fetch(f"SELECT * FROM u WHERE n = '{n}'")
import asyncpg
async def q(conn, n):
    return await conn.fetch(f"SELECT * FROM u WHERE n = '{n}'")
# vulnerable: sql = ' '.join(['SELECT * FROM u WHERE n =', n])
def q(cursor, table, n):
    sql = ' '.join(['SELECT * FROM u WHERE n =', n])
    cursor.execute(sql)
# vulnerable: return str(eval(request.args['x']))
from flask import Flask, request
app = Flask(__name__)
@app.route('/e')
def e():
    return str(eval(request.args['x']))
# vulnerable: exec(request.data)
from flask import Flask, request
app = Flask(__name__)
@app.route('/e', methods=['POST'])
def e():
    exec(request.data)
    return ''
# vulnerable: getattr(os, request.args['f'])()
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/a')
def a():
    getattr(os, request.args['f'])()
    return ''
# vulnerable: url = request.args.get('next', '/')
from flask import Flask, request, redirect
app = Flask(__name__)
@app.route('/r')
def r():
    url = request.args.get('next', '/')
    return redirect(url)
# vulnerable: return redirect(request.GET.get('next'))
from django.shortcuts import redirect
def r(request):
    return redirect(request.GET.get('next'))
# vulnerable: return RedirectResponse(next)
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
app = FastAPI()
@app.get('/r')
def r(next: str):
    return RedirectResponse(next)
# vulnerable: t = ET.fromstring(request.data)
from flask import Flask, request
app = Flask(__name__)
import xml.etree.ElementTree as ET
@app.route('/x', methods=['POST'])
def x():
    t = ET.fromstring(request.data)
    return t.tag
# vulnerable: t = etree.fromstring(request.data)
from flask import Flask, request, jsonify
app = Flask(__name__)
from lxml import etree
@app.route('/x', methods=['POST'])
def x():
    t = etree.fromstring(request.data)
    return jsonify(t.tag)
# vulnerable: r = t.xpath("//u[@n='" + request.args['n'] + "']")
from flask import Flask, request, jsonify
app = Flask(__name__)
from lxml import etree
@app.route('/x')
def x():
    t = etree.parse('u.xml')
    r = t.xpath("//u[@n='" + request.args['n'] + "']")
    return jsonify(len(r))
# vulnerable: r = c.search_s('dc=x', ldap.SCOPE_SUBTREE, '(uid=%s)' % request.args['u'])
from flask import Flask, request, jsonify
app = Flask(__name__)
import ldap
@app.route('/l')
def l():
    c = ldap.initialize('ldap://x')
    r = c.search_s('dc=x', ldap.SCOPE_SUBTREE, '(uid=%s)' % request.args['u'])
    return jsonify(r)
# vulnerable: u = db.users.find_one({'n': request.json['n'], 'p': request.json['p']})
from flask import Flask, request, jsonify
app = Flask(__name__)
from pymongo import MongoClient
db = MongoClient().x
@app.route('/m', methods=['POST'])
def m():
    u = db.users.find_one({'n': request.json['n'], 'p': request.json['p']})
    return jsonify(bool(u))
# vulnerable: logging.info('user ' + request.args['u'])
from flask import Flask, request
app = Flask(__name__)
import logging
@app.route('/lg')
def lg():
    logging.info('user ' + request.args['u'])
    return ''
# vulnerable: return str(e), 500
from flask import Flask
app = Flask(__name__)
@app.route('/er')
def er():
    try:
        work()
    except Exception as e:
        return str(e), 500
# vulnerable: return traceback.format_exc()
from flask import Flask
app = Flask(__name__)
import traceback
@app.route('/er')
def er():
    try:
        work()
    except Exception:
        return traceback.format_exc()
# vulnerable: app.secret_key = 'a9f3k2l5m8n1'
from flask import Flask
app = Flask(__name__)
app.secret_key = 'a9f3k2l5m8n1'
# vulnerable: return jwt.encode({'u': u}, 'my-very-long-signing-key-1', algorithm='HS256')
import jwt
def t(u):
    return jwt.encode({'u': u}, 'my-very-long-signing-key-1', algorithm='HS256')
# vulnerable: return AES.new(k, AES.MODE_ECB).encrypt(d)
from Crypto.Cipher import AES
def e(k, d):
    return AES.new(k, AES.MODE_ECB).encrypt(d)
# vulnerable: k = rsa.generate_private_key(public_exponent=65537, key_size=1024)
from cryptography.hazmat.primitives.asymmetric import rsa
k = rsa.generate_private_key(public_exponent=65537, key_size=1024)
# vulnerable: ctx = ssl.create_default_context()
import ssl
ctx = ssl.create_default_context()
ctx.check_hostname = False
ctx.verify_mode = ssl.CERT_NONE
# vulnerable: return str(random.randint(100000, 999999))
import random
def reset_token():
    return str(random.randint(100000, 999999))
# vulnerable: f = open(tempfile.mktemp(), 'w')
import tempfile
f = open(tempfile.mktemp(), 'w')
# vulnerable: os.chmod('/etc/app.conf', 0o666)
import os
os.chmod('/etc/app.conf', 0o666)
# vulnerable: return hashlib.sha1(password.encode()).hexdigest()
import hashlib
def store(password):
    return hashlib.sha1(password.encode()).hexdigest()
# vulnerable: s.login('me@example.com', 'Hunter2-x!')
import smtplib
s = smtplib.SMTP('x')
s.login('me@example.com', 'Hunter2-x!')
# vulnerable: os.system('convert %s.png x.jpg' % request.args['n'])
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/u/<int:uid>/photo')
def p(uid):
    os.system('convert %s.png x.jpg' % request.args['n'])
    return ''
# secure: return str(eval(op + '(1, 2)'))
from flask import Flask, request, abort
app = Flask(__name__)
OPS = {'add', 'sub'}
@app.route('/e')
def e():
    op = request.args['op']
    if op in OPS:
        return str(eval(op + '(1, 2)'))
    abort(400)
# secure: f = FUNCS.get(request.args['op'])
from flask import Flask, request, abort
app = Flask(__name__)
FUNCS = {'a': len}
@app.route('/e')
def e():
    f = FUNCS.get(request.args['op'])
    if not f:
        abort(400)
    return str(f('x'))
# secure: cursor.execute(f'SELECT * FROM {TABLE} WHERE n = %s', (n,))
TABLE = 'users'
def q(cursor, n):
    cursor.execute(f'SELECT * FROM {TABLE} WHERE n = %s', (n,))
# secure: cursor.execute('SELECT * FROM u WHERE n IN (%s)' % marks, names)
def q(cursor, names):
    marks = ', '.join(['%s'] * len(names))
    cursor.execute('SELECT * FROM u WHERE n IN (%s)' % marks, names)
# secure: cursor.execute('SELECT * FROM u ORDER BY ' + col)
ALLOWED = ('name', 'age')
def q(cursor, col):
    if col not in ALLOWED:
        raise ValueError
    cursor.execute('SELECT * FROM u ORDER BY ' + col)
# secure: sql += ' WHERE ' + ' AND '.join(where)
def q(cursor, n):
    where = []
    args = []
    if n:
        where.append('n = ?')
        args.append(n)
    sql = 'SELECT * FROM u'
    if where:
        sql += ' WHERE ' + ' AND '.join(where)
    cursor.execute(sql, args)
# secure: p = os.path.realpath(os.path.join(base, request.args['p']))
from flask import Flask, request, abort, send_file
import os
app = Flask(__name__)
@app.route('/f')
def f():
    base = os.path.realpath('/srv')
    p = os.path.realpath(os.path.join(base, request.args['p']))
    if os.path.commonpath([base, p]) != base:
        abort(403)
    return send_file(p)
# secure: p = safe_join('/srv', request.args['p'])
from flask import Flask, request, abort, send_file
app = Flask(__name__)
from werkzeug.utils import safe_join
@app.route('/f')
def f():
    p = safe_join('/srv', request.args['p'])
    if p is None:
        abort(404)
    return send_file(p)
# secure: p = (B / request.args['p']).resolve()
from flask import Flask, request, abort, send_file
app = Flask(__name__)
from pathlib import Path
B = Path('/srv').resolve()
@app.route('/f')
def f():
    p = (B / request.args['p']).resolve()
    try:
        p.relative_to(B)
    except ValueError:
        abort(403)
    return send_file(p)
# secure: p = (B / request.args['p']).resolve() (2)
from flask import Flask, request, abort, send_file
app = Flask(__name__)
from pathlib import Path
B = Path('/srv').resolve()
@app.route('/f')
def f():
    p = (B / request.args['p']).resolve()
    if B not in p.parents:
        abort(403)
    return send_file(p)
# secure: p = FILES.get(request.args['p'])
from flask import Flask, request, abort, send_file
app = Flask(__name__)
FILES = {'a': '/srv/a.txt'}
@app.route('/f')
def f():
    p = FILES.get(request.args['p'])
    if p is None:
        abort(404)
    return send_file(p)
# secure: f.save(os.path.join('uploads', uuid.uuid4().hex + ext))
from flask import Flask, request, abort
import os
app = Flask(__name__)
import uuid
@app.route('/u', methods=['POST'])
def u():
    f = request.files['f']
    ext = os.path.splitext(f.filename)[1].lower()
    if ext not in {'.png', '.jpg'}:
        abort(400)
    f.save(os.path.join('uploads', uuid.uuid4().hex + ext))
    return 'ok'
# secure: q = html.escape(request.args.get('q', ''))
from flask import Flask, request
app = Flask(__name__)
import html
@app.route('/h')
def h():
    q = html.escape(request.args.get('q', ''))
    return f'<p>{q}</p>'
# secure: return '<div>' + bleach.clean(request.args['q']) + '</div>'
from flask import Flask, request
app = Flask(__name__)
import bleach
@app.route('/h')
def h():
    return '<div>' + bleach.clean(request.args['q']) + '</div>'
# secure: return Response('Hi ' + request.args['q'], mimetype='text/plain')
from flask import Flask, request, Response
app = Flask(__name__)
@app.route('/h')
def h():
    return Response('Hi ' + request.args['q'], mimetype='text/plain')
# secure: return f'<p>{i}</p>'
from flask import Flask
app = Flask(__name__)
@app.route('/h/<int:i>')
def h(i):
    return f'<p>{i}</p>'
# secure: return {'q': q}
from fastapi import FastAPI
app = FastAPI()
@app.get('/h')
def h(q: str):
    return {'q': q}
# secure: return HTMLResponse(f'<p>{i}</p>')
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
app = FastAPI()
@app.get('/h/{i}')
def h(i: int):
    return HTMLResponse(f'<p>{i}</p>')
# secure: return JsonResponse({'q': request.GET['q']})
from django.http import JsonResponse
def h(request):
    return JsonResponse({'q': request.GET['q']})
# secure: return subprocess.check_output('ping -c1 ' + ip, shell=True)
from flask import Flask, request
import subprocess
app = Flask(__name__)
import ipaddress
@app.route('/c')
def c():
    ip = str(ipaddress.ip_address(request.args['ip']))
    return subprocess.check_output('ping -c1 ' + ip, shell=True)
# secure: os.system(f'ping -c {n} localhost')
from flask import Flask, request
import os
app = Flask(__name__)
@app.route('/c')
def c():
    n = int(request.args['n'])
    os.system(f'ping -c {n} localhost')
    return ''
# secure: os.system('ping ' + h)
from flask import Flask, request, abort
import os
app = Flask(__name__)
HOSTS = ['a.example.com']
@app.route('/c')
def c():
    h = request.args['h']
    if h not in HOSTS:
        abort(400)
    os.system('ping ' + h)
    return ''
# secure: if p.scheme != 'https' or p.netloc not in ('api.example.com',):
from flask import Flask, request, abort
app = Flask(__name__)
import requests
from urllib.parse import urlparse
@app.route('/s')
def s():
    u = request.args['u']
    p = urlparse(u)
    if p.scheme != 'https' or p.netloc not in ('api.example.com',):
        abort(400)
    return requests.get(u).text
# secure: return requests.get('https://api.example.com/q', params={'q': request.args['q']}
from flask import Flask, request
app = Flask(__name__)
import requests
@app.route('/s')
def s():
    return requests.get('https://api.example.com/q', params={'q': request.args['q']}).text
# secure: return b.scheme in ('http', 'https') and a.netloc == b.netloc
from flask import Flask, request, abort, redirect
app = Flask(__name__)
from urllib.parse import urlparse, urljoin
def is_safe_url(t):
    a = urlparse(request.host_url)
    b = urlparse(urljoin(request.host_url, t))
    return b.scheme in ('http', 'https') and a.netloc == b.netloc
@app.route('/r')
def r():
    t = request.args.get('next')
    if not is_safe_url(t):
        abort(400)
    return redirect(t)
# secure: return redirect(url_for('home'))
from flask import Flask, redirect
app = Flask(__name__)
from flask import url_for
@app.route('/r')
def r():
    return redirect(url_for('home'))
# secure: return jsonify(bool(re.search(re.escape(request.args['p']), 'xyz')))
from flask import Flask, request, jsonify
import re
app = Flask(__name__)
@app.route('/re')
def r():
    return jsonify(bool(re.search(re.escape(request.args['p']), 'xyz')))
# secure: r.headers['X-A'] = request.args['a'].replace('\r', '').replace('\n', '')
from flask import Flask, request, make_response
app = Flask(__name__)
@app.route('/hd')
def hd():
    r = make_response('ok')
    r.headers['X-A'] = request.args['a'].replace('\r', '').replace('\n', '')
    return r
# secure: logging.info('user %s', request.args['u'].replace('\n', ' ').replace('\r', ' '))
from flask import Flask, request
app = Flask(__name__)
import logging
@app.route('/lg')
def lg():
    logging.info('user %s', request.args['u'].replace('\n', ' ').replace('\r', ' '))
    return ''
# secure: t = ET.fromstring(request.data) (2)
from flask import Flask, request, jsonify
app = Flask(__name__)
import defusedxml.ElementTree as ET
@app.route('/x', methods=['POST'])
def x():
    t = ET.fromstring(request.data)
    return jsonify(t.tag)
# secure: p = etree.XMLParser(resolve_entities=False, no_network=True)
from flask import Flask, request, jsonify
app = Flask(__name__)
from lxml import etree
@app.route('/x', methods=['POST'])
def x():
    p = etree.XMLParser(resolve_entities=False, no_network=True)
    t = etree.fromstring(request.data, parser=p)
    return jsonify(t.tag)
# secure: r = c.search_s('dc=x', ldap.SCOPE_SUBTREE, '(uid=%s)' % escape_filter_chars(requ
from flask import Flask, request, jsonify
app = Flask(__name__)
from ldap.filter import escape_filter_chars
import ldap
@app.route('/l')
def l():
    c = ldap.initialize('ldaps://x')
    r = c.search_s('dc=x', ldap.SCOPE_SUBTREE, '(uid=%s)' % escape_filter_chars(request.args['u']))
    return jsonify(r)
# secure: return jsonify(bool(db.users.find_one({'n': n})))
from flask import Flask, request, jsonify, abort
app = Flask(__name__)
from pymongo import MongoClient
db = MongoClient().x
@app.route('/m', methods=['POST'])
def m():
    n = request.json['n']
    if not isinstance(n, str):
        abort(400)
    return jsonify(bool(db.users.find_one({'n': n})))
# secure: logging.exception(e)
from flask import Flask
app = Flask(__name__)
import logging
@app.route('/er')
def er():
    try:
        work()
    except Exception as e:
        logging.exception(e)
        return 'Internal error', 500
# secure: app.secret_key = os.environ['SECRET_KEY']
from flask import Flask
import os
app = Flask(__name__)
app.secret_key = os.environ['SECRET_KEY']
# secure: return secrets.token_urlsafe(32)
import secrets
def reset_token():
    return secrets.token_urlsafe(32)
# secure: return n + AESGCM(k).encrypt(n, d, None)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import os
def e(k, d):
    n = os.urandom(12)
    return n + AESGCM(k).encrypt(n, d, None)
# secure: ctx = ssl.create_default_context() (2)
import ssl
ctx = ssl.create_default_context()
ctx.minimum_version = ssl.TLSVersion.TLSv1_2
# secure: return PasswordHasher().hash(password)
from argon2 import PasswordHasher
def store(password):
    return PasswordHasher().hash(password)
# secure: return generate_password_hash(password)
from werkzeug.security import generate_password_hash
def store(password):
    return generate_password_hash(password)
# secure: subprocess.run(['convert', args.src, args.dst], check=True)
import subprocess
def run(args):
    subprocess.run(['convert', args.src, args.dst], check=True)
# secure: subprocess.run(shlex.split('git log'), check=True)
import shlex, subprocess
def run(cmd):
    subprocess.run(shlex.split('git log'), check=True)
# secure: return json.load(f)
import json
def load(p):
    with open(p) as f:
        return json.load(f)
# secure: return yaml.load(f, Loader=yaml.SafeLoader)
import yaml
def load(p):
    with open(p) as f:
        return yaml.load(f, Loader=yaml.SafeLoader)
# secure: return hmac.compare_digest(hmac.new(k, m, hashlib.sha256).hexdigest(), s)
import hmac, hashlib
def ok(k, m, s):
    return hmac.compare_digest(hmac.new(k, m, hashlib.sha256).hexdigest(), s)
# secure: os.makedirs('/srv/x', mode=0o700, exist_ok=True)
import os
def save(d):
    os.makedirs('/srv/x', mode=0o700, exist_ok=True)
    with open('/srv/x/a', 'w') as f:
        f.write(d)
# secure: return '<ul>' + ''.join('<li>%d</li>' % i for i in items) + '</ul>'
def page(items):
    return '<ul>' + ''.join('<li>%d</li>' % i for i in items) + '</ul>'
# vulnerable: a frame's query from the request
import pandas as pd
from fastapi import FastAPI

app = FastAPI()
orders = pd.read_csv("orders.csv")

@app.get("/orders")
def search(condition: str):
    return orders.query(condition).to_dict("records")
# secure: a frame filtered by a column's value
import pandas as pd
from fastapi import FastAPI

app = FastAPI()
orders = pd.read_csv("orders.csv")

@app.get("/orders")
def search(city: str):
    return orders[orders["city"] == city].to_dict("records")
# secure: a frame's query with a value that is bound
import pandas as pd
from fastapi import FastAPI

app = FastAPI()
orders = pd.read_csv("orders.csv")

@app.get("/orders")
def search(city: str):
    return orders.query("city == @city").to_dict("records")
# vulnerable: a mail server's login in clear text
import smtplib

def notify(account, word, text):
    with smtplib.SMTP("mail.example.org", 587) as server:
        server.login(account, word)
        server.sendmail(account, ["team@example.org"], text)
# secure: a mail server's login after STARTTLS
import smtplib
import ssl

def notify(account, word, text):
    with smtplib.SMTP("mail.example.org", 587) as server:
        server.starttls(context=ssl.create_default_context())
        server.login(account, word)
        server.sendmail(account, ["team@example.org"], text)
# secure: a mail server over TLS
import smtplib

def notify(account, word, text):
    with smtplib.SMTP_SSL("mail.example.org", 465) as server:
        server.login(account, word)
        server.sendmail(account, ["team@example.org"], text)
# vulnerable: a host as an expression with points that stand for anything
import re

SHOP = re.compile("shop.example.com")

def ours(address):
    return SHOP.match(address) is not None
# secure: a host as an expression with its points escaped
import re

SHOP = re.compile(r"^https://shop\.example\.com/")

def ours(address):
    return SHOP.match(address) is not None
# vulnerable: markdown of a form as a page
import markdown
from flask import Flask, request

app = Flask(__name__)

@app.post("/preview")
def preview():
    return markdown.markdown(request.form["draft"])
# secure: markdown of a form, cleaned
import bleach
import markdown
from flask import Flask, request

app = Flask(__name__)

@app.post("/preview")
def preview():
    return bleach.clean(markdown.markdown(request.form["draft"]), tags=["p", "em"])
# vulnerable: a program behind a web server with a short name for its environment
import json
import urllib.request

class Relay:
    def __call__(self, env, start_response):
        wanted = json.loads(env["wsgi.input"].read())["feed"]
        body = urllib.request.urlopen(wanted).read()
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]
# secure: the same with a table of addresses
import json
import urllib.request

FEEDS = {"news": "https://news.example.org/feed"}

class Relay:
    def __call__(self, env, start_response):
        wanted = FEEDS[json.loads(env["wsgi.input"].read())["feed"]]
        body = urllib.request.urlopen(wanted).read()
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]
# vulnerable: an expression in the body of chalice's current request
from chalice import Chalice

app = Chalice(app_name="sums")

@app.route("/sum", methods=["POST"])
def add():
    return {"sum": eval(app.current_request.json_body["terms"])}
# secure: numbers in the body of chalice's current request
from chalice import Chalice

app = Chalice(app_name="sums")

@app.route("/sum", methods=["POST"])
def add():
    return {"sum": sum(int(term) for term in app.current_request.json_body["terms"])}
