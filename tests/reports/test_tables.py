"""Tables render from their records alone, and the committed ones are what their records render to."""

import json

import pytest

from lrnn_jax.config import SCALES, data_folder, load_config, validate_config
from lrnn_jax.reports.tables import Row, Table, load_table, record_name, render

TABLE = Table(
    title="A table",
    source="Table 9.",
    claim="A claim.",
    metric="scaled_accuracy",
    rows=(Row("easy", "configs/x.py", 1.0), Row("hard", "configs/x.py", None)),
    seeds=2,
)
ORIGIN = {"versions": {"jax": "0.0"}, "git_commit": "abc", "device": "cpu", "config_hash": "h"}


def finished(value, seconds):
    metrics = {"scaled_accuracy": value, "scaled_accuracy/40-64": value, "scaled_accuracy/65-128": value}
    return {"status": "finished", "metrics": metrics, "curve": [[1, 0.0], [2, value]], "wall_time_s": seconds, **ORIGIN}


def test_missing_failed_and_finished_cells_look_different(tmp_path):
    failed = {"status": "failed", "reason": "step 3: not finite", "step": 2, "curve": [], **ORIGIN}
    for row, seed, record in [(0, 0, finished(1.0, 2.0)), (0, 1, finished(0.5, 4.0)), (1, 0, failed)]:
        (tmp_path / record_name(TABLE, TABLE.rows[row], seed)).write_text(json.dumps(record))
    markdown = render(TABLE, tmp_path)
    assert "| easy | 1.000 | 0.750 ± 0.354 | 1.000 | 0.500 | -0.250 | 6 s |" in markdown
    assert "| hard |  | missing | failed | missing |  | 0 s |" in markdown
    assert "Failed: hard seed 0: step 3: not finite" in markdown
    csv = (tmp_path / "table.csv").read_text().splitlines()
    assert csv[1].startswith("easy,1.0,0,finished,1.0,2.0")
    assert csv[3].startswith("hard,,0,failed,,") and csv[4].startswith("hard,,1,missing,,")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(file.stem for file in data_folder("experiments").glob("*.py")))
def test_every_table_names_configs_that_validate_at_each_of_its_scales(name):
    table = load_table(name)
    assert set(table.scales) <= set(SCALES) and table.seeds >= 3
    for row in table.rows:
        for scale in table.scales:
            validate_config(load_config(f"{row.config},scale={scale}"))


@pytest.mark.parametrize("folder", sorted(data_folder("experiments").glob("results/*/*"), key=str), ids=str)
def test_the_committed_table_is_what_its_records_render_to(folder, tmp_path):
    table = load_table(folder.parent.name)
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    assert render(table, tmp_path) == (folder / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text() == (folder / "table.csv").read_text()
