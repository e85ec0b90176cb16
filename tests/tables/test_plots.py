"""Plots of tables: what is drawn where, from records that are made up."""

import dataclasses

import pytest
from made_tables import column_table, finished, make_table
from matplotlib.figure import Figure

from lrnn_jax.tables.cells import fill_table
from lrnn_jax.tables.declaring import Column, Row, list_runs
from lrnn_jax.tables.plots import by_length, draw_lengths, draw_rows, draw_sizes, row_styles, wrap
from lrnn_jax.tables.records import load_record, record_file, save_record, thin_curves
from lrnn_jax.tables.rendering import render, render_markdown


def test_curves_by_position_are_plotted_from_thin_records(tmp_path):
    table = column_table(positions="sequence_accuracy_by_length")
    result = finished(0.5, 1.0) | {
        "curves": {
            "sequence_accuracy_by_length/32-32": [0.5],
            "sequence_accuracy_by_length/500-500": [t / 500 for t in range(500)],
            "other/600-600": [1.0],
        },
    }
    result["best"] = {"step": 1, "metrics": result["metrics"], "curves": result["curves"]}
    for part in (thin := thin_curves(result), thin_curves(thin["best"])):
        curve = part["positions"]["sequence_accuracy_by_length"]
        assert "curves" not in part and 50 <= len(curve) <= 60
        assert curve[0] == [1, 0.0] and curve[-1] == [500, 0.998]
        assert part["positions"]["other"] == [[1, 1.0]]
    for run in list_runs(table, "cpu"):
        save_record(run, thin, tmp_path)
    render(table, "cpu", tmp_path, tmp_path / "table")
    assert (tmp_path / "table" / "plot.png").stat().st_size > 10_000


def test_curves_by_context_stand_at_powers_of_two_and_leave_out_what_nothing_was_measured_at(tmp_path):
    table = make_table(positions="perplexity_by_context", seeds=1)
    (run,) = list_runs(table, "cpu")
    curves = {"perplexity_by_context/16-16": [3.0, None, 2.0, 1.5, None]}
    save_record(run, thin_curves({**finished(0.5, 1.0), "curves": curves}), tmp_path)
    assert by_length(table, load_record(record_file(run, tmp_path))) == [(1, 3.0), (4, 2.0), (8, 1.5)]


def test_a_line_stands_where_training_ended():
    axes = Figure().subplots()
    draw_lengths(make_table(), axes, [], {}, papers=[], trained={40}, title="test")
    (line,) = axes.get_lines()
    assert (list(line.get_xdata()), line.get_label()) == ([40, 40], "longest in training")


def test_a_row_looks_the_same_in_every_column_and_its_band_is_the_range_of_its_seeds(tmp_path):
    columns = (Column("a", "configs/parity.py"), Column("b", "configs/modular_counting.py"))
    rows = (Row("only a", "lstm", columns=("a",)), Row("both", "diagonal/positive"))
    table = make_table(rows, columns, seeds=3)
    for run, value in zip(list_runs(table, "cpu"), [0.5, 0.5, 0.5, 0.2, 0.9, 0.4, 0.1, 0.2, 0.6], strict=True):
        save_record(run, finished(value), tmp_path)
    filled = fill_table(table, "cpu", tmp_path)
    styles = row_styles([cell.row for cell in filled.cells])
    means = {}
    for column in ("a", "b"):
        axes = Figure().subplots()
        own = [cell for cell in filled.cells if cell.column.name == column]
        draw_lengths(table, axes, own, styles, papers=[], trained=set(), title="")
        (line,) = [line for line in axes.get_lines() if line.get_label() == "both"]
        means[column] = (list(line.get_ydata()), line.get_color(), line.get_linestyle())
        low, high = axes.collections[-1].get_paths()[0].get_extents().intervaly
        assert (low, high) == ((0.2, 0.9) if column == "a" else (0.1, 0.6))
    assert means["a"][0] == pytest.approx([0.5, 0.5]) and means["b"][0] == pytest.approx([0.3, 0.3])
    assert means["a"][1:] == means["b"][1:] and means["a"][2] == "--"


def test_a_colour_is_a_layer_a_dash_the_range_and_a_shade_the_rest():
    rows = [
        Row("lstm", "lstm"),
        Row("m=1", "bd_lru"),
        Row("m=2", "bd_lru"),
        Row("+", "mamba/positive"),
        Row("-", "mamba/negative"),
    ]
    styles = row_styles(rows)
    assert styles["+"]["color"] == styles["-"]["color"] != styles["lstm"]["color"]
    assert (styles["+"]["linestyle"], styles["-"]["linestyle"]) == ("--", "-")
    assert all(light >= full for light, full in zip(styles["m=1"]["color"], styles["m=2"]["color"], strict=True))
    assert styles["m=1"]["color"] != styles["m=2"]["color"]
    assert len({style["marker"] for style in styles.values()}) == 5


def test_a_published_number_is_marked_over_the_lengths_it_is_of(tmp_path):
    table = make_table(seeds=1, settings=("cpu", "grazzi2025"), paper="grazzi2025")
    save_record(list_runs(table, "cpu")[0], finished(0.5), tmp_path)
    filled = fill_table(table, "cpu", tmp_path)
    axes = Figure().subplots()
    styles = row_styles([cell.row for cell in filled.cells])
    draw_lengths(table, axes, filled.cells, styles, papers=filled.papers, trained=set(), title="")
    dotted = next(line for line in axes.get_lines() if line.get_linestyle() == ":")
    # Grazzi et al. 2025 test parity on lengths 40 to 256
    assert list(dotted.get_ydata()) == [1.0, 1.0] and dotted.get_xdata()[1] == 256


def test_one_tested_length_is_drawn_row_by_row(tmp_path):
    table = make_table(
        columns=(Column("x", "configs/parity.py", fields={"eval.lengths": [[40, 64]], "eval.headline": [40, 64]}),)
    )
    for run in list_runs(table, "cpu"):
        save_record(run, finished(0.5), tmp_path)
    render(table, "cpu", tmp_path, tmp_path / "table", ("png", "pdf"))
    assert (tmp_path / "table" / "plot.pdf").read_bytes().startswith(b"%PDF")
    axes = Figure().subplots()
    filled = fill_table(table, "cpu", tmp_path)
    draw_rows(table, axes, filled.cells, row_styles([cell.row for cell in filled.cells]), title="x")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["easy"]
    published = [cell.published for cell in filled.cells if cell.published and not cell.published.unit]
    assert len(axes.get_legend_handles_labels()[1]) == 1 + bool(published)
    axes.clear()
    bare = [cell._replace(row=dataclasses.replace(cell.row, published={})) for cell in filled.cells]
    draw_rows(table, axes, bare, row_styles([cell.row for cell in bare]), title="x")
    assert axes.get_legend_handles_labels()[1] == ["ours"]


def test_a_long_head_is_wrapped_into_lines_of_equal_length():
    head = "trained on lengths 2 to 1024 (orvieto2023: 2 to 4096)"
    assert wrap(head, 48).split("\n") == ["trained on lengths 2 to 1024", "(orvieto2023: 2 to 4096)"]
    assert wrap(head, 60) == head and wrap("", 48) == ""


def test_a_table_may_have_a_figure_of_its_own(tmp_path):
    seen = []

    def draw(figure, cells):
        figure.subplots().bar([cell.row.name for cell in cells], [cell.scores[0] for cell in cells])
        seen.extend(cell.scores[0] for cell in cells)

    table = make_table(seeds=1, figure=draw)
    save_record(list_runs(table, "cpu")[0], finished(0.5), tmp_path)
    render(table, "cpu", tmp_path, tmp_path / "table")
    assert seen == [0.5] and (tmp_path / "table" / "plot.png").exists()


def test_a_table_over_sizes_has_those_of_one_layer_and_draws_a_line_over_both(tmp_path):
    """BD-LRU has H M ((D + 1)(M + 1) + 2 D) parameters and a state of H M; here D = 32."""
    rows = [
        Row(f"{h} blocks", "bd_lru", fields={"model.layer.blocks": h, "model.layer.block_size": 2}, line="BD-LRU")
        for h in (3, 5)
    ]
    table = make_table((*rows, Row("other", "lstm")), over_sizes=True, seeds=1)
    for run, value in zip(list_runs(table, "cpu"), (0.5, 0.75), strict=False):
        save_record(run, finished(value), tmp_path)
    markdown = render_markdown(fill_table(table, "cpu", tmp_path))
    assert "| parameters of a layer | its state | published |" in markdown
    assert f"| 3 blocks | {6 * (33 * 3 + 64)} | 6 |  | 0.500 |" in markdown
    assert f"| 5 blocks | {10 * (33 * 3 + 64)} | 10 |  | 0.750 |" in markdown
    figure = Figure()
    draw_sizes(fill_table(table, "cpu", tmp_path), {"": ""}, figure)
    for panel, sizes in zip(figure.axes, ([978, 1630], [6, 10]), strict=True):
        (line,) = [line for line in panel.get_lines() if line.get_label() == "BD-LRU"]
        assert line.get_xdata().tolist() == sizes and line.get_ydata().tolist() == [0.5, 0.75]


def test_a_total_is_the_mean_of_rows_that_are_complete(tmp_path):
    columns = (Column("one", "configs/parity.py"), Column("two", "configs/modular_counting.py"))
    rows = (Row("whole", "lstm"), Row("half", "lru"))
    table = make_table(rows, columns, seeds=1, total=True, over_sizes=True)
    for run, value in zip(list_runs(table, "cpu"), (0.5, 0.25, 1.0), strict=False):  # by columns: whole, half, whole
        save_record(run, finished(value), tmp_path)
    markdown = render(table, "cpu", tmp_path, tmp_path / "table")
    assert "| whole | 0.500 | 1.000 | 0.750 |" in markdown and "| half | 0.250 | missing | missing |" in markdown
    figure = Figure()
    draw_sizes(fill_table(table, "cpu", tmp_path), {}, figure)
    assert [line.get_ydata().tolist() for line in figure.axes[0].get_lines() if line.get_label() == "whole"] == [[0.75]]
    assert "half" not in [line.get_label() for panel in figure.axes for line in panel.get_lines()]
