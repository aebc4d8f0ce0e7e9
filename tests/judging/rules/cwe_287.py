# vulnerable: bind by name alone
import ldap

def members(group):
    server = ldap.initialize("ldaps://directory.example.org")
    server.simple_bind_s("cn=reader,dc=example,dc=org")
    return server.search_s("ou=groups,dc=example,dc=org", ldap.SCOPE_SUBTREE, "(objectClass=group)")
# vulnerable: bind with an empty password
import ldap

def connect(name):
    server = ldap.initialize("ldaps://directory.example.org")
    server.bind_s(who="uid=app,dc=example,dc=org", cred="")
    return server
# vulnerable: pam without the account
from pamlib import PamHandle, pam_authenticate, pam_start

def login(user, conversation):
    handle = PamHandle()
    pam_start("login", user, conversation, handle)
    return pam_authenticate(handle, 0) == 0
# vulnerable: token read and not checked
import python_jwt

def claims(token):
    header, body = python_jwt.process_jwt(token)
    return body
# secure: bind with the password that was typed
import ldap

def check(dn, password):
    if not password:
        return False
    server = ldap.initialize("ldaps://directory.example.org")
    server.simple_bind_s(dn, password)
    return True
# secure: anonymous on purpose
import ldap

def open_directory():
    server = ldap.initialize("ldaps://directory.example.org")
    server.simple_bind_s()
    return server
# secure: pam with the account
from pamlib import PamHandle, pam_acct_mgmt, pam_authenticate, pam_start

def login(user, conversation):
    handle = PamHandle()
    pam_start("login", user, conversation, handle)
    return pam_authenticate(handle, 0) == 0 and pam_acct_mgmt(handle, 0) == 0
# secure: token checked, then read
import python_jwt

def claims(token, key):
    header, body = python_jwt.verify_jwt(token, key, ["RS256"])
    return body
