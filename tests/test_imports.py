"""The house rules that a program can check: imports run one way, files stay small, help answers at once."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("lrnn_jax", "configs", "experiments", "scripts", "tests")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
HEAVY = ("jax", "flax", "optax")

# The rooms from the bottom up: the files of a room import from rooms below and from beside them, never from above.
BELOW = {
    "scans": [],
    "parts": ["scans"],
    "layers": ["parts", "scans"],
    "models": ["layers", "parts", "scans"],
    "data": [],
    "tasks": ["data"],
    "config": [],
    "runs": ["config"],
    "training": ["runs", "config", "models", "parts", "tasks"],
    "sweeps": ["training", "runs", "config"],
    "tables": ["sweeps", "training", "runs", "config"],
    "analysis": ["training", "runs", "config", "models", "parts", "tasks", "data"],
    "bench": ["training", "runs", "config", "parts", "scans", "tasks"],
    "theory": ["scans", "tasks"],
    "cli": ["tables", "bench", "analysis", "sweeps", "training", "runs", "config", "models", "tasks", "data"],
}
# Files beside the rooms, which everything above the scans may use.
BESIDE = ("errors", "shapes", "registry")


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(file, *, top_level=False):
    """Names of the modules that a file imports, wherever in the file or when it is imported itself."""
    tree = ast.parse(file.read_text())
    nodes = list(at_import(tree.body)) if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if is_module(name)}
            found |= modules
            if modules != inner or not inner:
                found.add(node.module)
    return found


def at_import(body):
    """Statements that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers"):
            yield from at_import(getattr(node, field, []) or [])


def within(module, name):
    return module == name or module.startswith(f"{name}.")


def ours(file, **how):
    return {module for module in imports(file, **how) if within(module, "lrnn_jax")}


def files_of(folder):
    return [file for file in FILES if within(".".join(file.relative_to(ROOT).parts), folder)]


def test_the_parser_of_imports_sees_what_it_should(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport jax.numpy as jnp\nfrom lrnn_jax.parts import norm\n"
        "from lrnn_jax.errors import UserError\nif TYPE_CHECKING:\n    import flax\n"
        "try:\n    import optax\nexcept ImportError:\n    import numpy\n"
        "class C:\n    import json\n    def f(self):\n        from lrnn_jax.training.loop import train\n"
    )
    assert ours(file) == {"lrnn_jax.parts.norm", "lrnn_jax.errors", "lrnn_jax.training.loop"}
    assert imports(file, top_level=True) == {
        "typing", "jax.numpy", "lrnn_jax.parts.norm", "lrnn_jax.errors", "optax", "numpy", "json",
    }  # fmt: skip
    assert len(files_of("lrnn_jax.scans")) >= 5
    assert any(ours(file) for file in files_of("lrnn_jax.layers"))


def test_every_room_has_its_place():
    rooms = {path.parent.name for path in (ROOT / "lrnn_jax").glob("*/__init__.py")}
    assert rooms == BELOW.keys()


@pytest.mark.parametrize("room", sorted(BELOW))
def test_imports_only_what_is_below(room):
    beside = ("shapes", "errors") if room in ("scans", "parts", "layers", "models", "data", "tasks") else BESIDE
    allowed = [f"lrnn_jax.{name}" for name in (*BELOW[room], room, *beside)]
    wrong = {
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files_of(f"lrnn_jax.{room}")
        for module in ours(file)
        if module != "lrnn_jax" and not any(within(module, name) for name in allowed)
    }
    assert not wrong


def test_training_knows_tasks_by_their_contract_only():
    modules = {module for file in files_of("lrnn_jax.training") for module in ours(file) if within(module, "lrnn_jax.tasks")}
    assert modules <= {"lrnn_jax.tasks.base"}


def test_no_cycle_when_imported():
    edges = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ours(file, top_level=True)
        for file in files_of("lrnn_jax")
    }
    assert len(edges) > 20
    while free := [module for module, needs in edges.items() if not needs & edges.keys()]:
        for module in free:
            del edges[module]
    assert not edges


@pytest.mark.parametrize("folder", ["configs", "experiments"])
def test_configs_and_experiments_import_no_jax(folder):
    wrong = {
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files_of(folder)
        for module in imports(file)
        if module.split(".")[0] in HEAVY or within(module, "lrnn_jax.layers") or within(module, "lrnn_jax.training")
    }
    assert not wrong


def test_importing_every_config_and_experiment_loads_no_jax():
    program = (
        "import runpy, sys\nfor file in sys.argv[1:]: runpy.run_path(file)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    files = [str(file) for folder in ("configs", "experiments") for file in files_of(folder)]
    assert run("-c", program, *files).strip() == "[]"


def test_files_stay_small():
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert len(lines) > 40
    assert {name: count for name, count in lines.items() if count > 410} == {}


def test_no_module_is_called_utils():
    assert not [file for file in FILES if "util" in file.stem]


def run(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain_environment():
    """The environment of a user's shell: without what conftest sets for jax."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "COV_"))}


def test_the_command_line_imports_nothing_heavy():
    loaded = set(run("-c", "import lrnn_jax.cli.main, sys; print(*sys.modules)").split())
    assert "lrnn_jax.cli.main" in loaded
    heavy = {"jax", "flax", "orbax", "optax", "wandb", "matplotlib", "pandas", "tensorflow", "torch"}
    assert not heavy & loaded


def test_help_answers_within_a_second():
    times = []
    for _ in range(3):
        began = time.perf_counter()
        assert "usage: lrnn COMMAND" in run("-m", "lrnn_jax", "--help")
        times.append(time.perf_counter() - began)
    assert min(times) < 1.0, times
