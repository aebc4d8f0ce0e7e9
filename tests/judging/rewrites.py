"""Six rewrites of a program that change no behaviour: a judge that reads programs, not names, says the same of all.

rename     local variables get other names
alias      every import gets another name
constants  every constant argument of a call stands in a module constant
joins      f-strings and sums of text become `"".join([...])`
helper     every call of an imported or built-in function goes through a function of the program
async      plain functions become methods, handlers become `async def`
"""

import ast

_BUILTIN = {"open", "eval", "exec", "getattr", "setattr", "__import__"}


def _imported(tree):
    return {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


class _Names(ast.NodeTransformer):
    def __init__(self, names):
        self.names = names

    def visit_Name(self, node):
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)

    def visit_ExceptHandler(self, node):
        node.name = self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node


def rename(code):
    """Rename the local variables of every function that are no parameters."""
    tree = ast.parse(code)
    count = 0
    for function in [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]:
        taken = {a.arg for n in ast.walk(function) if isinstance(n, ast.arguments) for a in [*n.args, *n.kwonlyargs]}
        declared = {name for n in ast.walk(function) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
        inner = {n.name for n in ast.walk(function) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        bound = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        bound += [n.name for n in ast.walk(function) if isinstance(n, ast.ExceptHandler) and n.name]
        local = [n for n in dict.fromkeys(bound) if n not in taken | declared | inner and not n.startswith("zq")]
        names = {name: f"zq{count + i}" for i, name in enumerate(local)}
        count += len(names)
        for statement in function.body:
            _Names(names).visit(statement)
    return ast.unparse(ast.fix_missing_locations(tree))


def alias(code):
    """Give every import another name."""
    tree = ast.parse(code)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for part in node.names:
                if "." not in part.name or part.asname:
                    names[part.asname or part.name] = f"_m{len(names)}"
                    part.asname = names[part.asname or part.name]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            for part in node.names:
                if part.name != "*":
                    old = part.asname or part.name
                    names[old] = part.asname = f"_m{len(names)}"
    return ast.unparse(ast.fix_missing_locations(_Names(names).visit(tree)))


class _Constants(ast.NodeTransformer):
    def __init__(self):
        self.made = []

    def _name(self, node):
        if not isinstance(node, ast.Constant) or isinstance(node.value, type(...)):
            return node
        self.made.append(node)
        return ast.Name(f"SETTING_{len(self.made)}", ast.Load())

    def visit_Call(self, node):
        self.generic_visit(node)
        node.args = [self._name(a) for a in node.args]
        for keyword in node.keywords:
            keyword.value = self._name(keyword.value)
        return node

    def visit_JoinedStr(self, node):
        return node

    def visit_ClassDef(self, node):
        node.body = [self.visit(n) for n in node.body]
        return node

    def visit_FunctionDef(self, node):
        node.body = [self.visit(n) for n in node.body]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


def constants(code):
    """Move the constant arguments of calls into module constants."""
    tree = ast.parse(code)
    rewriter = _Constants()
    tree.body = [n if isinstance(n, (ast.Import, ast.ImportFrom)) else rewriter.visit(n) for n in tree.body]
    settings = [ast.Assign([ast.Name(f"SETTING_{i}", ast.Store())], value) for i, value in enumerate(rewriter.made, 1)]
    at = max((i + 1 for i, n in enumerate(tree.body) if isinstance(n, (ast.Import, ast.ImportFrom))), default=0)
    tree.body[at:at] = settings
    return ast.unparse(ast.fix_missing_locations(tree))


class _Joins(ast.NodeTransformer):
    def visit_JoinedStr(self, node):
        parts = []
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                value.value = self.visit(value.value)
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts.append(value)
            elif value.format_spec is not None:
                parts.append(ast.JoinedStr([value]))
            else:
                name = "repr" if value.conversion == ord("r") else "str"
                parts.append(ast.Call(ast.Name(name, ast.Load()), [value.value], []))
        return _join(parts)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Add):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    return _join([node.left, node.right])
        return node


def _join(parts):
    return ast.Call(ast.Attribute(ast.Constant(""), "join", ast.Load()), [ast.List(parts, ast.Load())], [])


def joins(code):
    """Turn f-strings and sums of text into joins."""
    return ast.unparse(ast.fix_missing_locations(_Joins().visit(ast.parse(code))))


class _Helper(ast.NodeTransformer):
    def __init__(self, imported):
        self.imported, self.made = imported, []

    def visit_Call(self, node):
        self.generic_visit(node)
        root = node.func
        while isinstance(root, ast.Attribute):
            root = root.value
        known = isinstance(root, ast.Name) and (root.id in self.imported or root.id in _BUILTIN)
        plain = not any(isinstance(a, ast.Starred) for a in node.args) and all(k.arg for k in node.keywords)
        if not known or not plain:
            return node
        name = f"_step{len(self.made)}"
        names = [f"a{i}" for i in range(len(node.args))] + [k.arg for k in node.keywords]
        keywords = [ast.keyword(k.arg, ast.Name(k.arg, ast.Load())) for k in node.keywords]
        inner = ast.Call(node.func, [ast.Name(n, ast.Load()) for n in names[: len(node.args)]], keywords)
        arguments = ast.arguments([], [ast.arg(n) for n in names], None, [], [], None, [])
        self.made.append(ast.FunctionDef(name, arguments, [ast.Return(inner)], [], lineno=1, col_offset=0))
        return ast.Call(ast.Name(name, ast.Load()), [*node.args, *[k.value for k in node.keywords]], [])

    def visit_FunctionDef(self, node):
        node.body = [self.visit(n) for n in node.body]
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815


def helper(code):
    """Put calls of imported and built-in functions inside functions through helpers."""
    tree = ast.parse(code)
    rewriter = _Helper(_imported(tree))
    body = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body.append(rewriter.visit(node))
            continue
        if isinstance(node, ast.ClassDef):
            node.body = [
                rewriter.visit(n) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) else n for n in node.body
            ]
        body.append(node)
    at = max((i + 1 for i, n in enumerate(body) if isinstance(n, (ast.Import, ast.ImportFrom))), default=0)
    tree.body = body[:at] + rewriter.made + body[at:]
    return ast.unparse(ast.fix_missing_locations(tree))


def asynchronous(code):
    """Make plain functions methods of a class, and decorated ones `async`."""
    tree = ast.parse(code)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    body, methods = [], []
    for node in tree.body:
        yields = any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(node))
        if isinstance(node, ast.FunctionDef) and not yields and node.name not in used:
            if node.decorator_list or (
                node.args.args and node.args.args[0].arg in ("request", "req", "event", "environ")
            ):
                fields = {f: getattr(node, f) for f in node._fields if hasattr(node, f)}
                body.append(ast.copy_location(ast.AsyncFunctionDef(**fields), node))
                continue
            node.args.args.insert(0, ast.arg("self"))
            methods.append(node)
            continue
        body.append(node)
    if methods:
        body.append(ast.ClassDef("Service", [], [], methods, []))
    tree.body = body
    return ast.unparse(ast.fix_missing_locations(tree))


REWRITES = {
    "rename": rename,
    "alias": alias,
    "constants": constants,
    "joins": joins,
    "helper": helper,
    "async": asynchronous,
}
