"""CONTRIBUTING.md: its layer and its task are short and do what it says, its commands run, the tests that it names exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers import succeed
from lrnn_jax import load_run
from lrnn_jax.parts.contract import missing_parts
from lrnn_jax.registry import load_layer, load_task

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = {code.partition("\n")[0].removeprefix("# "): code for language, code in BLOCKS if language == "python"}
TRAININGS = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines() if "lrnn train" in line]
# What makes a command of the page a short one.
SHORT = {
    "train.duration": "4 steps",
    "train.length": [3, 8],
    "train.steps_per_dispatch": 4,
    "eval.lengths": [[40, 41]],
    "eval.examples": 8,
    "model.width": 8,
    "model.depth": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the page's files, whose commands have been given there."""
    folder = tmp_path_factory.mktemp("contributing")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name, code in FILES.items():
            Path(name).write_text(code)
        for line in TRAININGS:
            verb, *words = shlex.split(line)[1:]
            succeed(verb, *words, *(f"--config.{path}={value}" for path, value in SHORT.items()))
        yield folder
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_there_are_a_layer_and_a_task_of_40_lines_each():
    assert list(FILES) == ["my_layer.py", "my_task.py"] and len(TRAININGS) == 2
    for name, code in FILES.items():
        assert len(code.splitlines()) - 1 <= 40, name  # without the line that names the file


def test_the_layer_trains_and_decodes_token_by_token(folder):
    cls = load_layer("my_layer:Leaky")
    assert missing_parts(cls) == []
    run = load_run(folder / "runs/leaky")
    assert run.model.layer_class is cls and dict(run.model.layer_fields) == {"start": 1.0}
    params = run.params["block_0"]["layer"]
    assert {name: jax.tree.map(np.shape, part) for name, part in params.items()} == {"input": {"kernel": (8, 8)}, "decay": (8,)}
    assert cls(width=8).parameter_count() == 72
    tokens, states = np.array([[1, 2, 2, 1, 2]]), None
    for t in range(5):
        output, states = run.apply(tokens[:, t : t + 1], states=states)
    np.testing.assert_allclose(output, run.apply(tokens)[0], rtol=1e-5, atol=1e-6)


def test_the_task_trains_and_its_labels_are_the_oracles(folder):
    task = load_run(folder / "runs/ends").task
    assert type(task) is load_task("my_task:SameEnds")
    batch = jax.tree.map(np.asarray, jax.jit(lambda key: task.batch(key, 64, (2, 9)))(jax.random.key(0)))
    for row, target, length in zip(batch.inputs, batch.targets, batch.lengths, strict=True):
        assert target == task.oracle(row[:length].tolist()) and not row[length:].any()
    assert set(batch.lengths) == set(range(2, 10)) and 16 < batch.targets.sum() < 48


@pytest.mark.parametrize(("groups", "ends"), [("", "3 passed"), (r', r"gate$": NO_DECAY', "1 failed, 2 passed")])
def test_the_generic_tests_take_the_layer_from_where_it_lies(tmp_path, groups, ends):
    """Those that compile nothing, and again where the layer has a group that no parameter is in."""
    (line,) = (line for _, code in BLOCKS for line in code.splitlines() if "--layer=" in line)
    (tmp_path / "my_layer.py").write_text(FILES["my_layer.py"].replace("NO_DECAY}", f"NO_DECAY{groups}}}"))
    arguments = shlex.split(line.replace("CHECKOUT/tests/layers", str(ROOT / "tests/layers/test_declarations.py")))[1:]
    command = [sys.executable, "-m", "pytest", *arguments, "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ends in done.stdout, done.stdout + done.stderr


def test_every_file_that_it_names_exists():
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT)) | set(re.findall(r"\]\(([\w/.]+)\)", TEXT))
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_file_of_generic_tests_is_named():
    for pattern in ("*/test_contract.py", "*/test_declar*.py"):
        for file in (ROOT / "tests").glob(pattern):
            assert str(file.relative_to(ROOT)) in TEXT, file
