"""The comparison with released code says in one line what is missing, and leaves no layer out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_it_is_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "scripts.compare_with_released"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "skipped: package torch is not installed\n"), result.stderr


def test_every_released_layer_is_compared():
    """A layer is named in a list of cases, or here as one without released code."""
    from lrnn_jax.registry import LAYERS

    folder = ROOT / "scripts" / "compare_with_released"
    cases = "".join(file.read_text() for file in folder.glob("from_*.py"))
    without = {"bd_lru", "diagonal", "full_matrix", "h_lru"}
    assert {name for name in LAYERS if f'("{name}", {{' not in cases} == without
