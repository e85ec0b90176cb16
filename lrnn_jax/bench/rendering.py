"""What was measured as Markdown, CSV and a plot."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lrnn_jax.bench.grids import Point, Row
from lrnn_jax.bench.measuring import COMPILED_ONLY
from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import write_together

# A rival counts as faster beyond this: what lies within it changes from run to run.
FASTER = 1.05
MIB = 2**20
COLUMNS = (
    *("what", "batch", "length", "width", "block_size", "dtype", "passes", "program", "kind", "ms", "lowest_ms"),
    *("ratio", "ratio_to", "temporary_mib", "compile_s", "of_bandwidth", "positions_per_s", "failed"),
)


class Report(NamedTuple):
    """Rows with what is said of all of them.

    Attributes:
      kind: "scan", "layer", "train" or "decode".
      rows: in the order of measuring; those of one point stand together.
      bandwidth: measured bytes per second.
      origin: device and versions.
      rounds: of the medians.
    """

    kind: str
    rows: Sequence[Row]
    bandwidth: float
    origin: str
    rounds: int


def render_markdown(report: Report) -> str:
    """Returns the table, what its columns are, and where `auto` is not the fastest."""
    rivals, compared = report.kind in ("scan", "layer"), report.kind in _RATIOS
    heads = [*_point_heads(report.kind), "", "ms", "lowest", *([_RATIOS[report.kind]] if compared else [])]
    heads += ["temporary MiB", "compile s", *(["of bandwidth"] if rivals else []), _rate(report.kind)]
    lines = [f"# lrnn bench {report.kind}", "", *_describe(report), "", _line(heads), _line(["---"] * len(heads))]
    for row in report.rows:
        values = row_values(report, row)
        name = f"**{row.name}**" if row.kind == "auto" and rivals else row.name
        ms = values["ms"] if row.timed.failed in ("", COMPILED_ONLY) else row.timed.failed
        numbers = [ms, values["lowest_ms"], *([values["ratio"]] if compared else [])]
        numbers += [values["temporary_mib"], values["compile_s"], *([values["of_bandwidth"]] if rivals else [])]
        cells = [*_point_cells(report.kind, row.point), name, *map(_number, [*numbers, _per_second(report.kind, values)])]
        lines.append(_line(cells))
    return "\n".join([*lines, "", *_where_we_lose(report)]) + "\n"


def render_csv(report: Report) -> str:
    """Returns one line per row with the columns `COLUMNS`."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row_values(report, row) for row in report.rows)
    return out.getvalue()


def row_values(report: Report, row: Row) -> dict[str, Any]:
    """Returns a row's values by `COLUMNS`; None where there are none."""
    timed, point = row.timed, row.point
    seconds = timed.seconds
    reference = _reference(report, row)
    ratio = None
    if seconds and reference is not None and reference.timed.seconds:
        ratio = seconds / reference.timed.seconds if report.kind == "train" else reference.timed.seconds / seconds
    positions = point.batch if point.passes == "decode" else point.positions
    return {
        **point._asdict(),
        "program": row.name,
        "kind": row.kind,
        "ms": _times(1e3, seconds),
        "lowest_ms": _times(1e3, timed.lowest),
        "ratio": ratio,
        "ratio_to": reference.name if reference else None,
        "temporary_mib": _times(1 / MIB, timed.temporary),
        "compile_s": timed.compile_s,
        "of_bandwidth": timed.moved / seconds / report.bandwidth if seconds and timed.moved else None,
        "positions_per_s": positions / seconds if seconds else None,
        "failed": timed.failed or None,
    }


def find_losses(rows: Sequence[Row]) -> list[tuple[Row, Row, float]]:
    """Returns (auto, what is faster, how many times) where a peer or a method of ours beats `auto`, the worst first."""
    found = []
    for row in rows:
        if row.kind != "auto" or not row.timed.seconds:
            continue
        rivals = [other for other in rows if other.point == row.point and other.kind in ("peer", "method")]
        for rival in rivals:
            if rival.timed.seconds and row.timed.seconds > FASTER * rival.timed.seconds:
                found.append((row, rival, row.timed.seconds / rival.timed.seconds))
    return sorted(found, key=lambda loss: -loss[2])


def write_report(report: Report, folder: Path) -> None:
    """Writes ``KIND.md``, ``KIND.csv`` and ``KIND.png``.

    Raises:
      UserError: the folder cannot be written.
    """
    from lrnn_jax.bench.plots import draw_throughput

    writers: dict[str, Callable[[Path], object]] = {
        f"{report.kind}.md": lambda path: path.write_text(render_markdown(report), encoding="utf-8"),
        f"{report.kind}.csv": lambda path: path.write_text(render_csv(report), encoding="utf-8"),
        f"{report.kind}.png": lambda path: draw_throughput(report.rows, _rate(report.kind), path),
    }
    try:
        write_together(folder, writers)
    except OSError as error:
        raise UserError(f"cannot write in --out={folder}: {error.strerror}") from error


def describe_point(point: Point) -> str:
    """Returns a point in words."""
    block = "" if point.block_size is None else f", m={point.block_size}"
    return f"{point.what} {point.batch}x{point.length}x{point.width}{block}, {point.dtype}, {point.passes}"


_RATIOS = {
    "scan": "times as fast as the first peer",
    "layer": "times as fast as `auto`",
    "train": "times the products",
}


def _reference(report: Report, row: Row) -> Row | None:
    """What a row's ratio is about: the first peer, the products of a step, or `auto`."""
    kind = {"scan": "peer", "train": "bound"}.get(report.kind, "auto")
    return next((other for other in report.rows if other.point == row.point and other.kind == kind), None)


def _describe(report: Report) -> list[str]:
    rounds = f"median and lowest of {report.rounds} rounds" if report.rounds else COMPILED_ONLY
    lines = [
        f"{report.origin}. Milliseconds: {rounds}, in which the programs of a point take turns, each right after an untimed "
        "call of itself. Compiling is tracing, lowering and compiling; temporary memory is XLA's account of its peak."
    ]
    if report.kind in ("scan", "layer"):
        lines[0] += (
            " Bandwidth: bytes of arguments and results, each once, over the time, as a share of "
            f"{report.bandwidth / 1e9:.1f} GB/s, which `a + 3 b` over 128 MiB each with a fresh result has in this run; "
            "what stays in caches, or in memory that is used again, has more."
        )
        lines[0] += " `auto` takes what is in bold."
        whose = "outputs and the gradients of all inputs" if report.kind == "scan" else "those of parameters and input"
        lines[0] += f" Gradients: {whose}."
    if report.kind == "train":
        lines[0] += " Products: those of the loss and its gradients outside of loops, on arrays of their own, nothing else."
    if report.kind == "decode":
        lines[0] += " A call of T = 1 with a state, as often as T says inside one program; times are those of one token."
    return lines


def _where_we_lose(report: Report) -> list[str]:
    if report.kind not in ("scan", "layer"):
        return []
    losses = find_losses(report.rows)
    lines = ["## Where we lose", ""]
    if not losses:
        measured = any(row.timed.seconds for row in report.rows)
        nothing = f"Nowhere here: nothing is more than {FASTER - 1:.0%} faster than `auto`." if measured else "Not measured."
        return [*lines, nothing]
    return [*lines, *(f"* {_describe_loss(*loss)}" for loss in losses)]


def _describe_loss(ours: Row, rival: Row, times: float) -> str:
    what = "a peer" if rival.kind == "peer" else "another method of ours"
    fast, slow = (f"{1e3 * (row.timed.seconds or 0.0):.3g}" for row in (rival, ours))
    who = f"{rival.name}, {what}, is {times:.2f} times as fast as `auto` ({ours.name})"
    return f"{describe_point(ours.point)}: {who}, {fast} against {slow} ms"


def _point_heads(kind: str) -> list[str]:
    what = {"scan": "family", "train": "layer or config"}.get(kind, "layer")
    return [what, "B", "T", "width", "m", "dtype", *(["passes"] if kind in ("scan", "layer") else [])]


def _point_cells(kind: str, point: Point) -> list[str]:
    numbers = [point.batch, point.length, point.width, "" if point.block_size is None else point.block_size]
    return [point.what, *map(str, numbers), point.dtype, *([point.passes] if kind in ("scan", "layer") else [])]


def _rate(kind: str) -> str:
    return {"train": "steps/s", "decode": "tokens/s"}.get(kind, "positions/s")


def _per_second(kind: str, values: Mapping[str, Any]) -> float | None:
    if kind == "train":
        return 1e3 / values["ms"] if values["ms"] else None
    return values["positions_per_s"]


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
