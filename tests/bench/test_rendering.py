"""The report of made-up numbers: ratios, rates, and the section that says where we lose."""

import csv
import io

import pytest

from lrnn_jax.bench.grids import Point, Row
from lrnn_jax.bench.measuring import Timed
from lrnn_jax.bench.plots import collect_lines
from lrnn_jax.bench.rendering import Report, render_csv, render_markdown

SHORT = Point("blocks", 2, 50, 8, 4, "float32", "forward")
LONG = SHORT._replace(length=500)


def row(point, name, kind, ms, failed=""):
    seconds = None if ms is None else ms / 1e3
    return Row(point, name, kind, Timed(seconds, seconds and seconds / 2, 2**20, 0.25, 4000, failed))


ROWS = [
    row(SHORT, "sequential", "auto", 2.0),
    row(SHORT, "associative", "method", 1.0),
    row(SHORT, "einsum", "peer", 8.0),
    row(SHORT, "loop", "peer", 1.96),
    row(LONG, "sequential", "auto", 30.0),
    row(LONG, "associative", "method", 31.0),
    row(LONG, "einsum", "peer", 10.0),
    row(LONG, "loop", "peer", None, "not run: needs 20 GiB"),
]


def report(rows=ROWS, kind="scan"):
    return Report(kind, rows, bandwidth=8e6, origin="a machine, jax 1", rounds=3)


def test_where_we_lose_names_what_is_faster_the_worst_first():
    # 1.96 ms is within what changes from run to run
    lines = render_markdown(report()).partition("## Where we lose\n\n")[2].splitlines()
    assert lines == [
        "* blocks 2x500x8, m=4, float32, forward: einsum, a peer, is 3.00 times as fast as `auto` (sequential), "
        "10 against 30 ms",
        "* blocks 2x50x8, m=4, float32, forward: associative, another method of ours, is 2.00 times as fast as `auto` "
        "(sequential), 1 against 2 ms",
    ]


def test_where_we_lose_nowhere_or_nothing_is_known():
    kept = [ROWS[0], ROWS[2], ROWS[3]]
    assert "Nowhere here" in render_markdown(report(kept))
    assert "Not measured." in render_markdown(report([row(SHORT, "sequential", "auto", None, "compiled only")]))


def test_the_table_has_ratios_to_the_first_peer_and_says_why_something_is_missing():
    markdown = render_markdown(report())
    assert markdown.startswith("# lrnn bench scan\n\na machine, jax 1. ")
    assert "median and lowest of 3 rounds" in markdown
    table = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    assert table[0] == [
        *("family", "B", "T", "width", "m", "dtype", "passes", "", "ms", "lowest", "times as fast as the first peer"),
        *("temporary MiB", "compile s", "of bandwidth", "positions/s"),
    ]
    # 100 positions in 2 ms; 4000 bytes in 2 ms are a quarter of 8 MB/s
    assert table[2][7:] == ["**sequential**", "2", "1", "4", "1", "0.25", "0.25", "50,000"]
    assert table[-1][7:9] == ["loop", "not run: needs 20 GiB"]


def test_csv_has_the_numbers_as_they_are():
    rows = list(csv.DictReader(io.StringIO(render_csv(report()))))
    assert len(rows) == len(ROWS)
    first, last = rows[0], rows[-1]
    assert {name: first[name] for name in ("what", "batch", "length", "width", "block_size", "dtype", "passes")} == {
        "what": "blocks",
        "batch": "2",
        "length": "50",
        "width": "8",
        "block_size": "4",
        "dtype": "float32",
        "passes": "forward",
    }
    numbers = {"ms": 2, "lowest_ms": 1, "ratio": 4, "temporary_mib": 1, "compile_s": 0.25, "of_bandwidth": 0.25}
    assert {name: float(first[name]) for name in numbers} == pytest.approx(numbers)
    assert (first["program"], first["kind"], first["ratio_to"]) == ("sequential", "auto", "einsum")
    assert (last["ms"], last["failed"]) == ("", "not run: needs 20 GiB")


def test_a_step_is_so_many_times_its_products():
    step = SHORT._replace(passes="step")
    rows = [row(step, "step", "auto", 6.0), row(step, "its matrix products", "bound", 2.0)]
    table = render_markdown(report(rows, "train")).splitlines()
    line = next(line for line in table if " step " in line)
    assert "| step | 6 | 3 | 3 |" in line
    assert line.endswith("| 167 |")
    assert not any("Where we lose" in line for line in table)


def test_the_plot_has_a_line_per_program_over_what_varies():
    assert collect_lines(ROWS, "length", "positions/s") == {
        ("sequential", ""): [(50, pytest.approx(50_000)), (500, pytest.approx(1000 / 0.03))],
        ("associative", ""): [(50, pytest.approx(100_000)), (500, pytest.approx(1000 / 0.031))],
        ("einsum", ""): [(50, pytest.approx(12_500)), (500, pytest.approx(100_000))],
        ("loop", ""): [(50, pytest.approx(100 / 0.00196))],
    }
    labels = list(collect_lines(ROWS, "block_size", "positions/s"))
    assert labels[3:5] == [("loop", "T=50"), ("sequential", "T=500")]
    assert next(iter(collect_lines(ROWS[:2], "block_size", "positions/s").values())) == [(4, pytest.approx(50_000))]
