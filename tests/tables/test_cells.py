"""Which cells a table has at a setting, and which ``--cells`` names."""

import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.tables.declaring import Column, Row, Table, list_runs
from lrnn_jax.tables.reproducing import _choose_cells

PARITY = Column("", "configs/parity.py")


def make_table(rows, columns):
    return Table(title="t", source="s", claim="c", metric="loss", columns=columns, rows=rows, seeds=1)


def test_a_row_alone_names_its_cells_in_all_columns():
    columns = (PARITY, Column("count", "configs/modular_counting.py"))
    table = make_table((Row("a [-1, 1]", "lstm"), Row("b", "lru")), columns)
    runs = list_runs(table, "cpu")

    def chosen(*cells):
        return [(run.column.name, run.row.name) for run in _choose_cells(runs, cells)]

    assert chosen("b") == [("", "b"), ("count", "b")]
    assert chosen("a*") == [("", "a [-1, 1]"), ("count", "a [-1, 1]")]
    assert chosen("count/*") == [("count", "a [-1, 1]"), ("count", "b")]
    with pytest.raises(UserError, match=r"--cells='c' is not one of .*count/b"):
        chosen("c")


def test_a_column_is_there_at_its_own_settings_alone():
    table = make_table((Row("a", "lstm"),), (PARITY, Column("more", "configs/parity.py", settings=("smoke",))))
    assert [run.column.name for run in list_runs(table, "cpu")] == [""]
    assert [run.column.name for run in list_runs(table, "smoke")] == ["", "more"]
