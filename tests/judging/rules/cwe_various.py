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
