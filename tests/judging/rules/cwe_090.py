# vulnerable: f-string filter in the call
import ldap

def person(server, uid):
    return server.search_s("dc=example", ldap.SCOPE_SUBTREE, f"(uid={uid})")
# vulnerable: two parts joined
from flask import request
from .directory import connection

def phones():
    wanted = "(&(objectClass=person)(sn=" + request.args["sn"] + "))"
    connection.search("dc=example", wanted)
    return {"n": len(connection.entries)}
# vulnerable: percent format
def members(connection, group):
    connection.search("dc=example", "(memberOf=%s)" % group)
    return connection.entries
# vulnerable: format with a named field
def by_mail(connection, mail):
    return connection.search(search_base="dc=a", search_filter="(mail={m})".format(m=mail))
# vulnerable: escape called and its result dropped
from ldap3.utils.conv import escape_filter_chars

def by_badge(connection, badge):
    escape_filter_chars(badge)
    return connection.search("dc=a", f"(badge={badge})")
# vulnerable: or filter with a wildcard
def like(connection, term):
    return connection.search("dc=a", f"(|(cn=*{term}*)(sn=*{term}*))")
# vulnerable: name inside a dn (known miss)
def user_dn(connection, name, secret):
    return connection.rebind(user="cn=" + name + ",dc=example", password=secret)
# secure: escaped in place
import ldap
from ldap.filter import escape_filter_chars

def person(server, uid):
    return server.search_s("dc=example", ldap.SCOPE_SUBTREE, f"(uid={escape_filter_chars(uid)})")
# secure: escaped first, joined later
from flask import request
from ldap3.utils.conv import escape_filter_chars
from .directory import connection

def phones():
    surname = escape_filter_chars(request.args["sn"])
    connection.search("dc=example", "(&(objectClass=person)(sn=" + surname + "))")
    return {"n": len(connection.entries)}
# secure: filter_format does the escaping
from ldap.filter import filter_format

def members(server, group):
    return server.search_s("dc=example", 2, filter_format("(memberOf=%s)", [group]))
# secure: number
def by_number(connection, text):
    number = int(text)
    return connection.search("dc=a", f"(employeeNumber={number})")
# secure: constant filter
def everyone(connection):
    return connection.search("dc=a", "(&(objectClass=person)(!(disabled=TRUE)))")
# secure: brackets in a message
def describe(name, colour):
    return f"{name} (colour={colour})"
# secure: module called under its own name
import ldap.filter

def by_mail(server, mail):
    return server.search_s("dc=a", 2, "(mail=%s)" % ldap.filter.escape_filter_chars(mail))
