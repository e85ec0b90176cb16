"""Tables are filled and rendered from the records of their runs alone: what is missing, failed or stale never is a number."""

import json
import math

import pytest
from made_tables import EASY, FAILED, column_table, finished, make_table

from lrnn_jax.errors import UserError
from lrnn_jax.tables import records as records_file
from lrnn_jax.tables.cells import fill_table, mean_cells
from lrnn_jax.tables.declaring import Column, Published, Row, Selection, list_runs
from lrnn_jax.tables.records import load_record, read_records, record_file, save_record
from lrnn_jax.tables.rendering import render, render_markdown


def rendered(table, folder):
    return render_markdown(fill_table(table, "cpu", folder))


# --- cells that are there, and that are not ------------------------------------------------------------------------


def test_missing_failed_and_finished_cells_look_different(tmp_path):
    table = make_table((EASY, Row("hard", "diagonal/positive")))
    for run, record in zip(list_runs(table, "cpu"), [finished(1.0, 2.0), finished(0.5, 4.0), FAILED], strict=False):
        save_record(run, record, tmp_path)
    markdown = render(table, "cpu", tmp_path, tmp_path / "table")
    assert "| easy | 1.000 | 0.750 ± 0.354 | 1.000 | 0.500 | -0.250 | 6 s |" in markdown
    assert "| hard |  | missing | failed | missing |  | 0 s |" in markdown
    assert "Failed: hard seed 0: step 3: not finite" in markdown
    assert "tested on lengths 40 to 256, examples of each 512." in markdown
    csv = (tmp_path / "table" / "table.csv").read_text().splitlines()
    assert csv[1].startswith(",easy,1.0,,,Table 9,read,,0,finished,1.0,2.0")
    assert csv[3].startswith(",hard,,,,,,,0,failed,,") and csv[4].startswith(",hard,,,,,,,1,missing,,")
    assert (tmp_path / "table" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_setting_is_that_of_the_rows_that_have_been_run(tmp_path):
    table = make_table((EASY, Row("hard", "diagonal/positive")))
    save_record(list_runs(table, "cpu")[0], finished(1.0), tmp_path)
    assert "optim.lr 0.01, model.width 32," in rendered(table, tmp_path)  # the other row's are 0.003 and 10


def test_a_row_of_failed_seeds_has_failed(tmp_path):
    for run in list_runs(make_table(), "cpu"):
        save_record(run, FAILED, tmp_path)
    assert "| easy | 1.000 | failed | failed | failed |" in rendered(make_table(), tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_shown_as_such(tmp_path, value):
    for run, score in zip(list_runs(make_table(), "cpu"), [value, 0.25], strict=True):
        save_record(run, finished(score), tmp_path)
    assert "| easy | 1.000 | 0.250 (1 of 2) | not finite | 0.250 | -0.750 | 4 s |" in rendered(make_table(), tmp_path)


def test_a_record_of_another_config_by_the_same_recipe_is_stale_and_never_a_number(tmp_path):
    old, other = list_runs(make_table(), "cpu")
    save_record(other, finished(0.5, 4.0), tmp_path)
    # as if the config file had said something else when seed 0 was trained
    was = old._replace(config=type(old.config)(old.config.to_dict()))
    was.config.train.batch_size = 17
    save_record(was, finished(1.0, 2.0), tmp_path)
    assert "| easy | 1.000 | 0.500 (1 of 2) | stale | 0.500 | -0.500 | 6 s |" in rendered(make_table(), tmp_path)
    save_record(old, finished(0.75, 2.0), tmp_path)
    assert "| easy | 1.000 | 0.625 ± 0.177 | 0.750 | 0.500 |" in rendered(make_table(), tmp_path)


def test_two_tables_share_the_record_of_a_run(tmp_path):
    for run, value in zip(list_runs(make_table(seeds=3), "cpu"), (0.1, 0.2, 0.6), strict=True):
        save_record(run, finished(value), tmp_path)
    best, median = make_table(seeds=3, statistic="best"), make_table(columns=(Column("x", "configs/parity.py"),), seeds=3)
    assert "| easy | 1.000 | 0.600 ± 0.265 | 0.100 |" in rendered(best, tmp_path)
    assert "| easy |  | 0.300 ± 0.265 | 0.100 |" in rendered(median, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"[]", b"{}", b"null", b'"x"', b"\xff\xfe", b'{"status": "finished"}', b'{"status": "fin'])
def test_a_garbled_record_is_named_in_one_line(tmp_path, text):
    file = record_file(list_runs(make_table(), "cpu")[0], tmp_path)
    file.write_bytes(text)
    with pytest.raises(UserError, match=f"{file.name} is not a record: .*; remove it, and the same command makes it") as caught:
        rendered(make_table(), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "started"}, "its status is 'started'"),
        ({"config": {"seed": 9}}, "its config is that of"),
        ({"metrics": {"scaled_accuracy": "high"}}, "could not convert"),
        ({"validation": {"scaled_accuracy": [[1]]}}, "out of range"),
        ({"versions": {"jax": "0.0"}}, "it has no 'python'"),
        ({"best": {"metrics": {}}}, "it has no 'step'"),
    ],
    ids=str,
)
def test_a_record_whose_fields_do_not_fit_is_refused(tmp_path, change, said):
    run = list_runs(make_table(), "cpu")[0]
    save_record(run, finished(1.0), tmp_path)
    file = record_file(run, tmp_path)
    assert load_record(file).last.metrics["scaled_accuracy"] == 1.0
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        load_record(file)


def test_a_damaged_record_of_another_run_disturbs_nothing(tmp_path):
    (tmp_path / "0123456789ab.json").write_text("{")
    assert read_records(list_runs(make_table(), "cpu"), tmp_path) == [None, None]


# --- published numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "shown", "gap"),
    [
        (Published(0.25, "p", spread=0.125), "0.250 ± 0.125", "+0.250"),
        (Published(0.25, "p", "second-hand"), "0.250 (second-hand)", "+0.250"),
        (Published(0.25, "p", "unknown"), "0.250 (origin unknown)", "+0.250"),
        (Published(0.25, "p", unit="nats"), "0.250 nats", ""),
        (None, "", ""),
    ],
    ids=str,
)
def test_a_published_number_says_its_spread_unit_and_standing(tmp_path, number, shown, gap):
    table = make_table((Row("easy", "lstm", {} if number is None else {"": number}),), seeds=1)
    save_record(list_runs(table, "cpu")[0], finished(0.5), tmp_path)
    assert f"| easy | {shown} | 0.500 | 0.500 | {gap} | 2 s |" in rendered(table, tmp_path)


def test_a_standing_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"'hearsay' .* is not one of read, second-hand, unknown"):
        Published(1.0, "p", "hearsay")


def test_a_columns_head_says_in_what_it_differs_from_the_papers_setting(tmp_path):
    columns = (Column("sums", "configs/modular_arithmetic.py", "plain,nomult", note="Read with care."),)
    table = make_table(columns=(Column("bits", "configs/parity.py"), *columns), paper="grazzi2025", seeds=1)
    lines = rendered(table, tmp_path).splitlines()
    head = "sums: trained on lengths 3 to 20 (grazzi2025: 3 to 40), tested on lengths 20 to 128 (grazzi2025: 40 to 256)"
    assert f"| ours (published) | bits | {head} |" in lines
    assert f"| {head} | published | ours | seed 0 | gap | wall time |" in lines
    assert "| bits | published | ours | seed 0 | gap | wall time |" in lines
    assert "Read with care." in lines
    assert any("train.duration 4000 steps or 5000 steps (grazzi2025: 100000 steps)" in line for line in lines)


# --- choosing and summarising --------------------------------------------------------------------------------------

GRID = ({"optim.lr": 1e-2}, {"optim.lr": 1e-3})


def test_the_grid_point_is_chosen_by_validation_and_never_by_the_reported_split(tmp_path):
    table = make_table(selection=Selection(grids={"cpu": GRID}))
    # the second point is better in validation, the first on the test
    for run in list_runs(table, "cpu"):
        first = run.point == GRID[0]
        save_record(run, finished(0.9 if first else 0.4, curve=[[1, 0.0], [2, 0.3 if first else 0.6]]), tmp_path)
    markdown = rendered(table, tmp_path)
    assert "| easy | 1.000 | 0.400 ± 0.000 |" in markdown
    said = "Chosen from optim.lr=0.01 | optim.lr=0.001 by the mean validation `scaled_accuracy`: easy: optim.lr=0.001."
    assert said in markdown


def put_grid(folder, validated, *, seeds=2, by="mean"):
    """A table of loss over two points, of whose runs some failed; validated maps (lr, seed) to a validation loss."""
    selection = Selection(by=by, grids={"cpu": GRID})
    table = make_table((Row("easy", "lstm"),), metric="loss", seeds=seeds, selection=selection)
    for run in list_runs(table, "cpu"):
        value = validated.get((run.config.optim.lr, run.seed))
        save_record(run, FAILED if value is None else finished(value, metric="loss"), folder)
    return table


@pytest.mark.parametrize("better", [1e-2, 1e-3])
def test_points_with_as_many_failed_seeds_are_compared_by_validation(tmp_path, better):
    worse = round(1e-2 + 1e-3 - better, 6)
    markdown = rendered(put_grid(tmp_path, {(better, 0): 0.2, (worse, 1): 0.9}), tmp_path)
    assert f"easy: optim.lr={better}." in markdown and "| easy |  | 0.200 (1 of 2) | 0.200 | failed |" in markdown


def test_a_point_with_fewer_failed_seeds_is_chosen_first(tmp_path):
    table = put_grid(tmp_path, {(1e-2, 0): 0.1, (1e-3, 0): 0.8, (1e-3, 1): 0.9})
    assert "easy: optim.lr=0.001." in rendered(table, tmp_path)


@pytest.mark.parametrize(("by", "chosen"), [("mean", 1e-3), ("median", 1e-2)])
def test_the_mean_or_the_median_of_the_seeds_chooses(tmp_path, by, chosen):
    # one bad seed of three moves the mean of the first point beyond the second's, and not its median
    losses = {(1e-2, 0): 0.1, (1e-2, 1): 0.1, (1e-2, 2): 2.0, **{(1e-3, seed): 0.5 for seed in range(3)}}
    table = put_grid(tmp_path, losses, seeds=3, by=by)
    assert f"by the {by} validation `loss`: easy: optim.lr={chosen}." in rendered(table, tmp_path)


def test_a_choice_among_missing_runs_says_so(tmp_path):
    table = put_grid(tmp_path, {(1e-2, 0): 0.1, (1e-2, 1): 0.1, (1e-3, 0): 0.8, (1e-3, 1): 0.9})
    record_file(list_runs(table, "cpu")[3], tmp_path).unlink()
    assert "easy: optim.lr=0.01 (of 3 of 4 runs)." in rendered(table, tmp_path)


def test_best_parameters_are_reported_where_the_table_says_so(tmp_path):
    table = make_table((Row("easy", "lstm"),), seeds=1, selection=Selection(checkpoint="best"))
    best = {"step": 1, "metrics": finished(0.75)["metrics"]}
    save_record(list_runs(table, "cpu")[0], finished(0.5, best=best), tmp_path)
    assert "| easy |  | 0.750 | 0.750 |" in rendered(table, tmp_path)


@pytest.mark.parametrize(
    ("statistic", "text", "gap"),
    [("mean", "0.500 ± 0.361", "+0.000"), ("best", "0.800 ± 0.361", "+0.300"), ("median", "0.600 ± 0.200", "+0.100")],
)
def test_columns_and_statistics(tmp_path, statistic, text, gap):
    table = column_table(statistic=statistic)
    values = {("parity", "one"): [0.6, 0.1, 0.8], ("modular_counting", "two"): [0.25, None, None]}
    for run in list_runs(table, "cpu"):
        value = values.get((run.column.name, run.row.name), [None] * 3)[run.seed]
        if value is not None:
            save_record(run, finished(value, 60.0), tmp_path)
    lines = rendered(table, tmp_path).splitlines()
    assert f"| one | 0.500 | {text} | 0.600 | 0.100 | 0.800 | {gap} | 180 s |" in lines
    assert "| two |  | 0.250 (1 of 3) | 0.250 | missing | missing |  | 60 s |" in lines
    assert "| ours (published) | parity | modular_counting |" in lines
    assert f"| one | {text.partition(' ')[0]} (0.500) | missing (0.500) |" in lines
    assert "| two | missing | 0.250 (1 of 3) |" in lines
    assert "Wall time of all runs: 4.0 min." in lines
    assert {run.config.model.depth for run in list_runs(table, "cpu") if run.row.name == "two"} == {2}


def test_a_row_stands_only_in_its_columns_and_at_its_settings(tmp_path):
    table = column_table()
    limited = Row("three", "lstm", columns=("parity",), settings=("cpu",))
    table = make_table((*table.rows, limited), table.columns)
    assert [(c.name, r.name) for c, r in table.places("cpu") if r is limited] == [("parity", "three")]
    assert limited not in [row for _, row in table.places("smoke")]
    assert "| three | missing |  |" in rendered(table, tmp_path)


# --- records --------------------------------------------------------------------------------------------------------


def test_a_record_keeps_the_validation_of_every_metric(tmp_path, monkeypatch):
    (run, _) = list_runs(make_table(), "cpu")
    lines = [
        {"split": "train", "step": 1, "loss": 3.0},
        {"split": "validation", "step": 1, "loss": 2.0, "accuracy": 0.25, "accuracy/40-64": 0.25},
        {"split": "validation", "step": 2, "loss": 1.0, "accuracy": None},
    ]
    monkeypatch.setattr(records_file.RunFolder, "parse_metrics", lambda _: lines)
    result = {key: value for key, value in finished(0.5).items() if key != "validation"}
    records_file.write_record(run, result, tmp_path / "store", tmp_path / "records")
    record = load_record(record_file(run, tmp_path / "records"))
    assert record.validation == {"loss": [(1, 2.0), (2, 1.0)], "accuracy": [(1, 0.25), (2, None)]}
    assert record.recipe == {"config": run.spec, "fields": {"seed": 0}}


def test_columns_of_one_group_count_as_one_in_the_mean(tmp_path):
    """As in MAD's score: over the tasks, not over all of their difficulties."""
    columns = (
        Column("one", "configs/parity.py", group="first"),
        Column("two", "configs/modular_counting.py", group="first"),
        Column("three", "configs/modular_arithmetic.py"),
    )
    table = make_table((Row("whole", "lstm"),), columns, seeds=1, total=True)
    for run, value in zip(list_runs(table, "cpu"), (0.0, 0.5, 0.75), strict=True):
        save_record(run, finished(value), tmp_path)
    assert "| whole | 0.000 | 0.500 | 0.750 | 0.500 |" in rendered(table, tmp_path)
    (mean,) = mean_cells(fill_table(table, "cpu", tmp_path))
    assert (mean.summary[0], mean.scores) == (0.5, [0.5])
