"""Tables and records that the tests of tables make up."""

from lrnn_jax.tables.declaring import Column, Published, Row, Table

PARITY = Column("", "configs/parity.py")
EASY = Row("easy", "lstm", {"": Published(1.0, "Table 9")})
ORIGIN = {"versions": {"jax": "0.0", "python": "3.0"}, "git_commit": "abc", "device": "cpu"}


def make_table(rows=(EASY,), columns=(PARITY,), **fields):
    said = {"title": "t", "source": "s", "claim": "c", "metric": "scaled_accuracy", "seeds": 2, "paper": "", **fields}
    return Table(columns=columns, rows=rows, **said)


def finished(value, seconds=2.0, *, metric="scaled_accuracy", curve=None, **fields):
    """What a record says of a finished run: ``value`` in the test, and in validation too unless there is a ``curve``."""
    metrics = {metric: value, f"{metric}/40-64": value, f"{metric}/65-128": value}
    validation = {metric: curve or [[1, 0.0], [2, value]]}
    part = {"status": "finished", "steps": 2, "metrics": metrics, "best": None, "validation": validation}
    return {**part, "wall_time_s": seconds, **ORIGIN, **fields}


FAILED = {"status": "failed", "reason": "step 3: not finite", "steps": 3, "validation": {}, **ORIGIN}


def column_table(**fields):
    columns = (Column("parity", "configs/parity.py"), Column("modular_counting", "configs/modular_counting.py"))
    one = {column.name: Published(0.5, "Table 9") for column in columns}
    rows = (Row("one", "lstm", one, {"model.depth": 1}), Row("two", "lstm", fields={"model.depth": 2}))
    return make_table(rows, columns, seeds=3, **fields)
