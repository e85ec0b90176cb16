"""Studies: computed once, kept as a record, rendered from it alone; what only tables have is refused."""

import json

import numpy as np
import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.tables import reproducing
from lrnn_jax.tables.studies import Study


def compute(*, count):
    return [{"n": n, "half": np.float64(n / 2), "inverse": np.inf if n == 0 else 1 / n} for n in range(count)]


def draw(figure, rows):
    figure.subplots().plot([row["half"] for row in rows])


STUDY = Study("Halves", "ours", "Half is less.", f"{__name__}:compute", {"smoke": {"count": 2}, "cpu": {"count": 4}}, draw)


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproducing, "load_experiment", lambda name, **_: STUDY)

    def run(*flags):
        status = main(["reproduce", "halves", f"--results={tmp_path}", *flags])
        return status, "".join(capsys.readouterr())

    return run


def test_a_study_is_computed_kept_and_rendered(reproduce, tmp_path):
    status, text = reproduce("--setting=cpu")
    folder = tmp_path / "halves" / "cpu"
    assert status == 0 and "| 3 | 1.5 | 0.333 |" in text and "| 0 | 0 |  |" in text and "Setting cpu: count 4." in text
    assert sorted(file.name for file in folder.iterdir()) == ["plot.png", "record.json", "table.csv", "table.md"]
    assert (folder / "table.csv").read_text().splitlines() == [
        "n,half,inverse",
        "0,0.0,",
        "1,0.5,1.0",
        "2,1.0,0.5",
        "3,1.5,0.33333",
    ]
    files = {name: (folder / name).read_bytes() for name in ("table.md", "table.csv", "plot.png")}
    record = json.loads((folder / "record.json").read_text())
    assert record["arguments"] == {"count": 4} and len(record["rows"]) == 4
    for name in files:
        (folder / name).unlink()
    assert reproduce("--setting=cpu", "--render")[0] == 0
    assert {name: (folder / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--layer=lru"], "is a study"),
        (["--cells=x"], "is a study"),
        (["--plan"], "is a study"),
        (["--setting=cppu"], "did you mean 'cpu'"),
        (["--render"], "record.json is not the record of a study"),
    ],
)
def test_what_a_study_has_not_is_refused(reproduce, flags, said):
    status, text = reproduce(*flags)
    assert status != 0 and said in text


def test_a_damaged_record_is_refused(reproduce, tmp_path):
    assert reproduce("--setting=smoke")[0] == 0
    file = tmp_path / "halves" / "smoke" / "record.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in record.items() if name != "device"}))
    status, text = reproduce("--setting=smoke", "--render")
    assert status != 0 and "it lacks device" in text
