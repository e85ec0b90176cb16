"""The tour: its cells run one after the other, and what they print is what they promise."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "scripts" / "tour.ipynb"


def outputs(file):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    return cells, ["".join(part for output in cell["outputs"] for part in output["text"]) for cell in cells]


def test_the_tour_has_been_run_in_order():
    cells, texts = outputs(TOUR)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert len(cells) >= 6 and all(texts[1:])


@pytest.mark.slow
def test_the_tour_runs_and_shows_what_it_says(tmp_path):
    copy = tmp_path / "tour.ipynb"
    shutil.copy(TOUR, copy)
    command = [sys.executable, str(ROOT / "scripts" / "run_notebook.py"), str(copy)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells, (_, layer, scan, run, spectra, answer, table) = outputs(copy)
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in outputs(TOUR)[0]]
    assert layer.count("True") == 1 and scan.count("True") == 2 and "False" not in layer + scan
    assert run.count(": 1.00") == 2
    # after the training some channel has 1 at a zero and -1 at a one
    zero, one = (re.findall(r"-?\d\.\d\d", line) for line in spectra.splitlines()[2:])
    assert ("1.00", "-1.00") in zip(zero, one, strict=True)
    assert answer == "ones: 4  odd, says the model: False\n"
    assert table == outputs(TOUR)[1][-1]
