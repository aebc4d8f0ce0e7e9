"""nnsight's generate with an intervention at every step."""

from importlib.metadata import version

import torch
from common import load, main, padded
from nnsight import LanguageModel


def build(folder):
    """Return the wrapped model and the tokenizer."""
    model, tokenizer = load(folder)
    return LanguageModel(model, tokenizer=tokenizer), tokenizer


def write(built, ids, layer, delta, new_tokens):
    """Return the texts of some prompts under one addition."""
    model, tokenizer = built
    rows, mask = padded(tokenizer, ids)
    add = delta.to(torch.bfloat16)
    with torch.inference_mode(), model.generate(
        {"input_ids": rows, "attention_mask": mask}, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
    ) as tracer:  # fmt: skip
        with tracer.all():
            block = model.model.layers[layer]
            if isinstance(block.output, tuple):
                block.output[0][:] = block.output[0] + add
            else:
                block.output = block.output + add
        out = model.generator.output.save()
    return tokenizer.batch_decode(out[:, rows.shape[1] :], skip_special_tokens=True)


main("nnsight", version("nnsight"), build, write)
