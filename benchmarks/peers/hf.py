"""transformers' generate with a forward hook on one block."""

import torch
import transformers
from common import load, main, padded


def write(built, ids, layer, delta, new_tokens):
    """Return the texts of some prompts under one addition."""
    model, tokenizer = built
    rows, mask = padded(tokenizer, ids)
    add = delta.to(model.dtype)
    handle = model.model.layers[layer].register_forward_hook(
        lambda _m, _i, output: (output[0] + add, *output[1:]) if isinstance(output, tuple) else output + add
    )
    try:
        with torch.inference_mode():
            out = model.generate(
                input_ids=rows,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
    finally:
        handle.remove()
    return tokenizer.batch_decode(out[:, rows.shape[1] :], skip_special_tokens=True)


main("transformers", transformers.__version__, load, write)
