"""The library steering-vectors with transformers' generate."""

from importlib.metadata import version

import torch
from common import load, main, padded
from steering_vectors import SteeringVector


def write(built, ids, layer, delta, new_tokens):
    """Return the texts of some prompts under one addition."""
    model, tokenizer = built
    rows, mask = padded(tokenizer, ids)
    vector = SteeringVector({layer: delta.to(model.dtype)}, "decoder_block")
    with torch.inference_mode(), vector.apply(model, multiplier=1.0, min_token_index=0):
        out = model.generate(
            input_ids=rows,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    return tokenizer.batch_decode(out[:, rows.shape[1] :], skip_special_tokens=True)


main("steering-vectors", version("steering-vectors"), load, write)
