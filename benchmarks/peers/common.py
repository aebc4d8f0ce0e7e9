"""What every peer's script shares: reading the work, timing it, writing the texts. Runs in the peer's environment."""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file


def main(name, version, build, write):
    """Time a peer over some conditions, without loading, and write seconds and texts.

    Args:
        name: of the peer.
        version: of its library.
        build: folder of the checkpoint -> what `write` needs.
        write: (built, token ids of some prompts, layer, delta, new_tokens) -> texts.
    """
    folder, out, conditions, prompts, mode = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        sys.argv[5],
    )
    work = read_work(folder)
    vectors = load_file(folder / "vector.safetensors")["vectors"]
    built = build(folder / "model")
    ids = work["prompts"][:prompts]
    chunks = [ids] if mode == "batched" else [[one] for one in ids]
    chosen = [(layer, coeff * vectors[layer]) for layer, coeff in work["conditions"][:conditions]]
    write(built, chunks[0][:1], *chosen[0], 3)  # warm up
    start = time.perf_counter()
    texts = [
        [text for chunk in chunks for text in write(built, chunk, layer, delta, work["new_tokens"])]
        for layer, delta in chosen
    ]
    seconds = time.perf_counter() - start
    out.write_text(json.dumps({"contender": name, "version": version, "seconds": seconds, "texts": texts}))


def read_work(folder):
    """Return what `run.py` wrote down for every contender."""
    return json.loads((folder / "work.json").read_text())


def load(folder):
    """Return the checkpoint and its tokenizer through plain transformers, in the dtype of the work."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, read_work(folder.parent)["dtype"]))
    return model.eval(), tokenizer


def padded(tokenizer, ids):
    """Return token ids padded on the left, and their mask."""
    width = max(len(row) for row in ids)
    rows = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    return rows, mask
