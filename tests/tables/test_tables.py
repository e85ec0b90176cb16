"""Tables render from their records alone, and the committed ones are what their records render to."""

import json
import math

import pytest

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import SCALES
from lrnn_jax.config.files import data_folder
from lrnn_jax.errors import UserError
from lrnn_jax.tables.declaring import Row, Selection, Table, list_runs, load_table, record_name
from lrnn_jax.tables.rendering import _by_length, _draw_lengths, render
from lrnn_jax.tables.reproducing import _thin_curves

TABLE = Table(
    title="A table",
    source="Table 9.",
    claim="A claim.",
    metric="scaled_accuracy",
    rows=(Row("easy", "configs/parity.py:lstm", 1.0), Row("hard", "configs/parity.py:diagonal/positive", None)),
    seeds=2,
)
ORIGIN = {"versions": {"jax": "0.0", "python": "3.0"}, "git_commit": "abc", "device": "cpu", "config_hash": "h"}


def finished(value, seconds):
    metrics = {"scaled_accuracy": value, "scaled_accuracy/40-64": value, "scaled_accuracy/65-128": value}
    return {
        "status": "finished",
        "row": "easy",
        "point": {},
        "seed": 0,
        "metrics": metrics,
        "best": None,
        "curve": [[1, 0.0], [2, value]],
        "wall_time_s": seconds,
        **ORIGIN,
    }


def test_missing_failed_and_finished_cells_look_different(tmp_path):
    failed = {"status": "failed", "reason": "step 3: not finite", "curve": [], "row": "hard", "point": {}, "seed": 0, **ORIGIN}
    runs = list_runs(TABLE, "cpu")
    for run, record in zip(runs, [finished(1.0, 2.0), finished(0.5, 4.0), failed], strict=False):
        (tmp_path / record_name(run)).write_text(json.dumps(record))
    markdown = render(TABLE, "cpu", tmp_path)
    assert "| easy | 1.000 | 0.750 ± 0.354 | 1.000 | 0.500 | -0.250 | 6 s |" in markdown
    assert "| hard |  | missing | failed | missing |  | 0 s |" in markdown
    assert "Failed: hard seed 0: step 3: not finite" in markdown
    assert "tested on lengths 40-64 + 65-128 + 129-192 + 193-256, examples of each 512." in markdown
    csv = (tmp_path / "table.csv").read_text().splitlines()
    assert csv[1].startswith(",easy,1.0,,0,finished,1.0,2.0")
    assert csv[3].startswith(",hard,,,0,failed,,") and csv[4].startswith(",hard,,,1,missing,,")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_setting_is_that_of_the_rows_that_have_been_run(tmp_path):
    (tmp_path / record_name(list_runs(TABLE, "cpu")[0])).write_text(json.dumps(finished(1.0, 2.0)))
    markdown = render(TABLE, "cpu", tmp_path)
    assert "optim.lr 0.01, model.width 32," in markdown  # the other row's are 0.003 and 10


@pytest.mark.parametrize("name", sorted(file.stem for file in data_folder("experiments").glob("*.py")))
def test_every_table_names_configs_that_validate_at_each_of_its_scales(name):
    table = load_table(name)
    assert set(table.scales) <= {*SCALES, "released"} and table.seeds >= 3
    for scale in table.scales:
        for run in list_runs(table, scale):
            validate_config(run.config)


# model | parity | without brackets | with brackets | without brackets, with products, as the paper prints them
PUBLISHED = {
    "grazzi2025_table3": """
        Transformer      0.022  0.031  0.067
        mLSTM            0.087  0.040  0.114
        sLSTM            1.000  0.787  0.178
        Mamba [0, 1]     0.000  0.095  0.123
        Mamba [-1, 1]    1.000  0.241  0.116
        DeltaNet [0, 1]  0.017  0.314  0.194
        DeltaNet [-1, 1] 1.000  0.971  0.260""",
    "grazzi2025_table5": """
        Transformer      0.003  0.018  0.064  0.025
        mLSTM            0.018  0.027  0.114  0.034
        sLSTM            1.000  0.124  0.163  0.153
        Mamba [0, 1]     0.000  0.066  0.116  0.072
        Mamba [-1, 1]    1.000  0.214  0.098  0.126
        DeltaNet [0, 1]  0.010  0.214  0.162  0.113
        DeltaNet [-1, 1] 0.999  0.826  0.227  0.129""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_the_papers(name):
    rows, expected = load_table(name).rows, []
    for line in PUBLISHED[name].strip().splitlines():
        model = line.strip().rpartition("]")[0] + "]" if "]" in line else line.split()[0]
        expected += [(column, model, float(number)) for column, number in enumerate(line.replace(model, "").split())]
    columns = list(dict.fromkeys(row.column for row in rows))
    published = [(columns.index(row.column), row.name, row.published) for row in rows if row.published is not None]
    assert sorted(published) == sorted(expected)


@pytest.mark.parametrize("folder", sorted(data_folder("experiments").glob("results/*/*"), key=str), ids=str)
def test_the_committed_table_is_what_its_records_render_to(folder, tmp_path):
    table = load_table(folder.parent.name)
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    assert render(table, folder.name, tmp_path) == (folder / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text() == (folder / "table.csv").read_text()


def test_a_record_of_another_config_is_stale_and_never_a_number(tmp_path):
    runs = list_runs(TABLE, "cpu")
    (tmp_path / "0123456789ab.json").write_text(json.dumps(finished(1.0, 2.0)))
    (tmp_path / record_name(runs[1])).write_text(json.dumps({**finished(0.5, 4.0), "seed": 1}))
    markdown = render(TABLE, "cpu", tmp_path)
    assert "| easy | 1.000 | 0.500 (1 of 2) | stale | 0.500 | -0.500 | 4 s |" in markdown


def test_the_grid_point_is_chosen_by_validation_and_never_by_the_reported_split(tmp_path):
    grid = ({"optim.lr": 1e-2}, {"optim.lr": 1e-3})
    selection = Selection(grids={"cpu": grid})
    table = Table("t", "s", "c", "scaled_accuracy", (Row("easy", "configs/parity.py:lstm", 1.0),), seeds=2, selection=selection)
    # the second point is better in validation, the first on the test
    for run in list_runs(table, "cpu"):
        first = run.point == grid[0]
        record = {**finished(0.9 if first else 0.4, 2.0), "curve": [[1, 0.0], [2, 0.3 if first else 0.6]], "point": run.point}
        (tmp_path / record_name(run)).write_text(json.dumps(record))
    markdown = render(table, "cpu", tmp_path)
    assert "| easy | 1.000 | 0.400 ± 0.000 |" in markdown
    said = "Chosen from optim.lr=0.01 | optim.lr=0.001 by the mean validation `scaled_accuracy`: easy: optim.lr=0.001."
    assert said in markdown


def column_table(statistic, **fields):
    rows = [
        Row(name, f"configs/{task}.py:lstm", published, column=task, fields={"model.depth": depth})
        for task in ("parity", "modular_counting")
        for name, depth, published in (("one", 1, 0.5), ("two", 2, None))
    ]
    return Table("t", "s", "c", "scaled_accuracy", tuple(rows), seeds=3, statistic=statistic, **fields)


@pytest.mark.parametrize(
    ("statistic", "text", "gap"),
    [("mean", "0.500 ± 0.361", "+0.000"), ("best", "0.800 ± 0.361", "+0.300"), ("median", "0.600 ± 0.200", "+0.100")],
)
def test_columns_and_statistics(tmp_path, statistic, text, gap):
    table = column_table(statistic)
    values = {("parity", "one"): [0.6, 0.1, 0.8], ("modular_counting", "two"): [0.25, None, None]}
    for run in list_runs(table, "cpu"):
        value = values.get((run.row.column, run.row.name), [None] * 3)[run.seed]
        if value is not None:
            (tmp_path / record_name(run)).write_text(json.dumps(finished(value, 60.0)))
    lines = render(table, "cpu", tmp_path).splitlines()
    assert f"| one | 0.500 | {text} | 0.600 | 0.100 | 0.800 | {gap} | 180 s |" in lines
    assert "| two |  | 0.250 (1 of 3) | 0.250 | missing | missing |  | 60 s |" in lines
    assert "| ours (published) | parity | modular_counting |" in lines
    assert f"| one | {text.partition(' ')[0]} (0.500) | missing (0.500) |" in lines
    assert "| two | missing | 0.250 (1 of 3) |" in lines
    assert "Wall time of all runs: 4.0 min." in lines
    assert {run.config.model.depth for run in list_runs(table, "cpu") if run.row.name == "two"} == {2}


def test_curves_by_position_are_plotted_from_thin_records(tmp_path):
    table = column_table("mean", positions="sequence_accuracy_by_length")
    result = {
        **finished(0.5, 1.0),
        "curves": {
            "sequence_accuracy_by_length/32-32": [0.5],
            "sequence_accuracy_by_length/500-500": [t / 500 for t in range(500)],
            "other/600-600": [1.0],
        },
    }
    result["best"] = {"step": 1, "metrics": result["metrics"], "curves": result["curves"]}
    for part in (thin := _thin_curves(table, result), _thin_curves(table, thin["best"])):
        assert "curves" not in part and 50 <= len(part["positions"]) <= 60
        assert part["positions"][0] == [1, 0.0] and part["positions"][-1] == [500, 0.998]
    for run in list_runs(table, "cpu"):
        (tmp_path / record_name(run)).write_text(json.dumps(thin))
    render(table, "cpu", tmp_path)
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_dashed_line_stands_where_training_ended():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    _draw_lengths(TABLE, axes, list_runs(TABLE, "cpu"), [], title="test")
    (line,) = axes.get_lines()
    assert (line.get_linestyle(), list(line.get_xdata()), line.get_label()) == ("--", [40, 40], "longest in training")


def test_curves_by_context_stand_at_powers_of_two_and_leave_out_what_nothing_was_measured_at():
    table = column_table("mean", positions="perplexity_by_context")
    thin = _thin_curves(table, {**finished(0.5, 1.0), "curves": {"perplexity_by_context/16-16": [3.0, None, 2.0, 1.5, None]}})
    assert _by_length(table, thin) == [(1, 3.0), (4, 2.0), (8, 1.5)]


def test_best_parameters_are_reported_where_the_table_says_so(tmp_path):
    row = Row("easy", "configs/parity.py:lstm", None)
    table = Table("t", "s", "c", "scaled_accuracy", (row,), seeds=1, selection=Selection(checkpoint="best"))
    best = {"step": 1, "metrics": finished(0.75, 0.0)["metrics"]}
    (tmp_path / record_name(list_runs(table, "cpu")[0])).write_text(json.dumps({**finished(0.5, 2.0), "best": best}))
    assert "| easy |  | 0.750 | 0.750 |" in render(table, "cpu", tmp_path)


def put_grid(folder, validated, **fields):
    """A table of loss over two points with two seeds, of which some failed; validated maps (lr, seed) to a validation loss."""
    grid = ({"optim.lr": 1e-2}, {"optim.lr": 1e-3})
    row = Row("easy", "configs/parity.py:lstm", None)
    table = Table("t", "s", "c", "loss", (row,), seeds=2, selection=Selection(grids={"cpu": grid}))
    for run in list_runs(table, "cpu"):
        value = validated.get((run.config.optim.lr, run.seed))
        if value is None:
            record = {"status": "failed", "reason": "step 3", "curve": [], "row": "easy", "point": run.point, **ORIGIN}
        else:
            record = {**finished(0.5, 1.0), "metrics": {"loss": value}, "curve": [[2, value]], "point": run.point, **fields}
        (folder / record_name(run)).write_text(json.dumps(record))
    return render(table, "cpu", folder)


@pytest.mark.parametrize("better", [1e-2, 1e-3])
def test_points_with_as_many_failed_seeds_are_compared_by_validation(tmp_path, better):
    worse = 1e-2 + 1e-3 - better
    markdown = put_grid(tmp_path, {(better, 0): 0.2, (round(worse, 6), 1): 0.9})
    assert f"easy: optim.lr={better}." in markdown and "| easy |  | 0.200 (1 of 2) | 0.200 | failed |" in markdown


def test_a_point_with_fewer_failed_seeds_is_chosen_first(tmp_path):
    assert "easy: optim.lr=0.001." in put_grid(tmp_path, {(1e-2, 0): 0.1, (1e-3, 0): 0.8, (1e-3, 1): 0.9})


@pytest.mark.parametrize(("by", "chosen"), [("mean", 1e-3), ("median", 1e-2)])
def test_the_mean_or_the_median_of_the_seeds_chooses(tmp_path, by, chosen):
    # one bad seed of three moves the mean of the first point beyond the second's, and not its median
    grid = ({"optim.lr": 1e-2}, {"optim.lr": 1e-3})
    row = Row("easy", "configs/parity.py:lstm", None)
    table = Table("t", "s", "c", "loss", (row,), seeds=3, selection=Selection(by=by, grids={"cpu": grid}))
    losses = {1e-2: (0.1, 0.1, 2.0), 1e-3: (0.5, 0.5, 0.5)}
    for run in list_runs(table, "cpu"):
        loss = losses[run.config.optim.lr][run.seed]
        record = {**finished(0.5, 1.0), "metrics": {"loss": loss}, "curve": [[2, loss]], "point": run.point, "seed": run.seed}
        (tmp_path / record_name(run)).write_text(json.dumps(record))
    assert f"by the {by} validation `loss`: easy: optim.lr={chosen}." in render(table, "cpu", tmp_path)


def test_a_choice_among_missing_runs_says_so(tmp_path):
    put_grid(tmp_path, {(1e-2, 0): 0.1, (1e-2, 1): 0.1, (1e-3, 0): 0.8, (1e-3, 1): 0.9})
    row = Row("easy", "configs/parity.py:lstm", None)
    table = Table(
        "t", "s", "c", "loss", (row,), 2, selection=Selection(grids={"cpu": ({"optim.lr": 1e-2}, {"optim.lr": 1e-3})})
    )
    (tmp_path / record_name(list_runs(table, "cpu")[3])).unlink()
    assert "easy: optim.lr=0.01 (of 3 of 4 runs)." in render(table, "cpu", tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_shown_as_such(tmp_path, value):
    table = Table("t", "s", "c", "scaled_accuracy", (Row("easy", "configs/parity.py:lstm", 1.0),), seeds=2)
    for run, score in zip(list_runs(table, "cpu"), [value, 0.25], strict=True):
        (tmp_path / record_name(run)).write_text(json.dumps(finished(score, 2.0)))
    assert "| easy | 1.000 | 0.250 (1 of 2) | not finite | 0.250 | -0.750 | 4 s |" in render(table, "cpu", tmp_path)


def test_a_row_of_failed_seeds_has_failed(tmp_path):
    assert "| easy |  | failed | failed | failed |" in put_grid(tmp_path, {})


@pytest.mark.parametrize("text", [b"[]", b"{}", b"null", b'"x"', b"\xff\xfe", b'{"status": "finished"}', b'{"status": "fin'])
def test_a_garbled_record_is_named_in_one_line(tmp_path, text):
    file = tmp_path / record_name(list_runs(TABLE, "cpu")[0])
    file.write_bytes(text)
    with pytest.raises(UserError, match=f"{file.name} is not a record") as caught:
        render(TABLE, "cpu", tmp_path)
    assert "\n" not in str(caught.value)
