"""The tables in ``experiments/``: their configs exist, their published numbers are the papers', newcomers get their rows."""

import importlib
import inspect
import json

import pytest

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.files import data_folder
from lrnn_jax.errors import UserError
from lrnn_jax.tables.cells import fill_table
from lrnn_jax.tables.declaring import list_runs, load_experiment, load_table
from lrnn_jax.tables.rendering import render_csv, render_markdown
from lrnn_jax.tables.studies import Study, load_study_record, render_study_csv, render_study_markdown

DECLARED = {file.stem: load_experiment(file.stem) for file in sorted(data_folder("experiments").glob("*.py"))}
TABLES = [name for name, declared in DECLARED.items() if not isinstance(declared, Study)]
STUDIES = [name for name, declared in DECLARED.items() if isinstance(declared, Study)]
RESULTS = data_folder("experiments") / "results"
COMMITTED = sorted(f"{file.parent.parent.name}/{file.parent.name}" for file in RESULTS.glob("*/*/table.md"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_configs_that_validate_at_each_of_its_settings(name):
    table = load_table(name)
    assert {"smoke", "cpu"} <= set(table.settings) and table.seeds >= 3
    assert not table.paper or table.paper in table.settings
    for setting in table.settings:
        for run in list_runs(table, setting):
            if run.seed == 0:
                validate_config(run.config)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_names_a_function_that_takes_its_settings(name):
    study = DECLARED[name]
    module, _, function = study.compute.partition(":")
    assert {"smoke", "cpu"} <= set(study.settings)
    for arguments in study.settings.values():
        inspect.signature(getattr(importlib.import_module(module), function)).bind(**arguments)
    with pytest.raises(UserError, match="is a study"):
        load_table(name)
    with pytest.raises(UserError, match="did you mean 'cpu'"):
        study.arguments("cpuu")


# model | the columns as the paper prints them
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
        Transformer      0.003+-0.013  0.018+-0.009  0.064+-0.003  0.025+-0.000
        mLSTM            0.018+-0.035  0.027+-0.013  0.114+-0.000  0.034+-0.001
        sLSTM            1.000+-0.000  0.124+-0.000  0.163+-0.015  0.153+-0.020
        Mamba [0, 1]     0.000+-0.000  0.066+-0.029  0.116+-0.007  0.072+-0.008
        Mamba [-1, 1]    1.000+-0.000  0.214+-0.027  0.098+-0.009  0.126+-0.010
        DeltaNet [0, 1]  0.010+-0.005  0.214+-0.056  0.162+-0.018  0.113+-0.009
        DeltaNet [-1, 1] 0.999+-0.006  0.826+-0.146  0.227+-0.011  0.129+-0.016""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_the_papers(name):
    table, expected = load_table(name), []
    for line in PUBLISHED[name].strip().splitlines():
        model = line.strip().rpartition("]")[0] + "]" if "]" in line else line.split()[0]
        for column, text in enumerate(line.replace(model, "").split()):
            value, _, spread = text.partition("+-")
            expected.append((column, model, float(value), float(spread) if spread else None))
    columns = [column.name for column in table.columns]
    rows = [row for row in table.rows if not row.settings]
    published = [(columns.index(c), row.name, p.value, p.spread) for row in rows for c, p in row.published.items()]
    assert sorted(published) == sorted(expected)


def test_without_brackets_the_published_numbers_stand_beside_runs_with_products():
    """Every released file of that task has products; sums and differences alone are a column of ours."""
    for name in PUBLISHED:
        table = load_table(name)
        tasks = {run.column.name: run.config.task for run in list_runs(table, "cpu")}
        published = {column for row in table.rows for column in row.published}
        plain = [
            (task.multiplication, column in published) for column, task in tasks.items() if task.name == "modular_arithmetic"
        ]
        assert plain == [(True, True), (False, False)]


@pytest.mark.parametrize("place", COMMITTED)
def test_the_committed_table_is_what_its_records_render_to(place):
    name, setting = place.split("/")
    if name in STUDIES:
        record = load_study_record(RESULTS / place / "record.json")
        assert render_study_markdown(DECLARED[name], setting, record) == (RESULTS / place / "table.md").read_text()
        assert render_study_csv(record) == (RESULTS / place / "table.csv").read_text()
        assert record["arguments"] == json.loads(json.dumps(DECLARED[name].arguments(setting)))
        return
    filled = fill_table(load_table(name), setting, RESULTS / "runs")
    assert render_markdown(filled) == (RESULTS / place / "table.md").read_text()
    assert render_csv(filled) == (RESULTS / place / "table.csv").read_text()


def test_what_the_notes_of_tables_3_and_5_say_stands_in_them():
    for name, ours in (("grazzi2025_table3", ("0.003", "0.774")), ("grazzi2025_table5", ("-0.001", "0.728"))):
        table = load_table(name)
        (note,) = [note for note in table.notes if "not reproduced yet" in note]
        row = (RESULTS / name / "cpu" / "table.md").read_text().splitlines()
        row = next(line for line in row if line.startswith("| DeltaNet [-1, 1] |"))
        assert all(number in note and number in row for number in ours)


@pytest.mark.parametrize("name", TABLES)
def test_a_newcomer_gets_a_row_in_every_column(name):
    table, paper = load_table(name, layer="gated_deltanet/positive"), load_table(name)
    runs = [run for run in list_runs(table, "cpu") if run.row not in paper.rows]
    assert list(dict.fromkeys(run.column.name for run in runs)) == [
        column.name for column in table.columns if "cpu" in (column.settings or table.settings)
    ]
    for run in runs:
        assert run.config.model.layer.name == "gated_deltanet" and run.config.model.layer.negative_eigenvalues is False
        assert not run.row.published
        validate_config(run.config)
    # all but the layer is as the column has it: its task and lengths
    own = {run.column.name: (run.config.task.to_dict(), run.config.eval.lengths) for run in list_runs(paper, "cpu")}
    assert own == {run.column.name: (run.config.task.to_dict(), run.config.eval.lengths) for run in runs}


def test_a_table_or_setting_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="unknown table 'grazzi2025_tabel3'; did you mean 'grazzi2025_table3'"):
        load_table("grazzi2025_tabel3")
    with pytest.raises(UserError, match=r"--setting='grazzi2052' is not one of .*; did you mean 'grazzi2025'"):
        list_runs(load_table("grazzi2025_fig1"), "grazzi2052")
