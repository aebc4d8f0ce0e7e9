"""nnsight's generate with an intervention at every step."""

from importlib.metadata import version

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
    add = delta.to(next(model.parameters()).dtype)
    with model.generate(max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id) as tracer:
        with tracer.invoke({"input_ids": rows, "attention_mask": mask}):  # noqa: SIM117 - nnsight reads the source
            with tracer.iter[:]:
                model.model.layers[layer].output = model.model.layers[layer].output + add
        # What stands after an open iteration in its own block never runs: an empty invocation reads the result.
        with tracer.invoke():
            out = tracer.result.save()
    return tokenizer.batch_decode(out[:, rows.shape[1] :], skip_special_tokens=True)


main("nnsight", version("nnsight"), build, write)
