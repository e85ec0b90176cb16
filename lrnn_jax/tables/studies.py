"""Figures made of a small numerical study, and not of training runs: declared in ``experiments/``, computed, rendered."""

import csv
import dataclasses
import importlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.files import check_seal, read_object, replace_text, seal, write_together
from lrnn_jax.tables.plot_style import paper_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Study:
    """What ``study()`` of a file in ``experiments/`` returns.

    Attributes:
      title: one line.
      source: where the paper has it, and what of it is ours.
      claim: what the paper says that it shows.
      compute: ``module:function`` that returns the rows, each a mapping of names to text, numbers or None.
      settings: setting -> the function's arguments.
      figure: draws the rows into an empty figure.
      summary: rows -> those of ``table.md``, where all would be too many to read.
      notes: what our settings do differently, and what was found.
    """

    title: str
    source: str
    claim: str
    compute: str
    settings: Mapping[str, Mapping[str, Any]]
    figure: "Callable[[Figure, Rows], None]"
    summary: Callable[[Rows], Rows] | None = None
    notes: tuple[str, ...] = ()

    def arguments(self, setting: str) -> Mapping[str, Any]:
        """Returns the arguments of a setting.

        Raises:
          UserError: there is no such setting.
        """
        if setting not in self.settings:
            known = tuple(self.settings)
            raise UserError(f"--setting={setting!r} is not one of {', '.join(known)}{suggest(setting, known)}")
        return self.settings[setting]


def reproduce_study(
    study: Study, setting: str, folder: Path, *, formats: Sequence[str] = ("png",), only_render: bool = False
) -> str:
    """Computes a study's rows, keeps them as ``record.json`` of ``folder``, and renders them there.

    Args:
      study: as declared.
      setting: one of its settings.
      folder: of the record, ``table.md``, ``table.csv`` and the plot.
      formats: of the plot, of `lrnn_jax.tables.plot_style.FORMATS`.
      only_render: computes nothing, and reads the record.

    Returns:
      The table as Markdown.

    Raises:
      UserError: no such setting, no record to render, or a folder that cannot be written.
    """
    arguments = study.arguments(setting)
    if not only_render:
        from lrnn_jax.runs.origin import describe_machine

        module, _, function = study.compute.partition(":")
        began = time.perf_counter()
        rows = getattr(importlib.import_module(module), function)(**arguments)
        seconds = time.perf_counter() - began
        said = {"arguments": dict(arguments), "wall_time_s": round(seconds, 3), **describe_machine()}
        save_rows(folder / "record.json", [{name: _round(value) for name, value in row.items()} for row in rows], said)
    return render_study(study, setting, folder, formats)


def render_study(study: Study, setting: str, folder: Path, formats: Sequence[str]) -> str:
    """Writes ``table.md``, ``table.csv`` and the plot from a folder's record; returns the Markdown."""
    record = load_study_record(folder / "record.json")
    markdown = render_study_markdown(study, setting, record)
    writers: dict[str, Callable[[Path], object]] = {
        "table.md": lambda path: path.write_text(markdown, encoding="utf-8"),
        "table.csv": lambda path: path.write_text(render_study_csv(record), encoding="utf-8"),
        **{f"plot.{ending}": lambda path: _draw(study, record["rows"], path) for ending in formats},
    }
    try:
        write_together(folder, writers)
    except OSError as error:
        raise UserError(f"cannot write the study in {folder}: {error.strerror}") from error
    return markdown


def load_study_record(file: Path) -> dict[str, Any]:
    """Returns a study's rows and where they come from.

    Raises:
      UserError: no such file, or one that is no record.
    """
    try:
        record = read_object(file)
        names = {"rows", "arguments", "wall_time_s", "git_commit", "versions", "device"}
        if not names <= record.keys() or not record["rows"]:
            raise ValueError(f"it lacks {', '.join(sorted(names - record.keys())) or 'rows'}")
        mappings = [record["arguments"], record["versions"], *record["rows"]]
        if not all(isinstance(part, dict) for part in mappings) or not isinstance(record["wall_time_s"], (int, float)):
            raise ValueError("its rows, arguments, versions or wall time are of another kind")
        if lacking := {"jax", "numpy", "python"} - record["versions"].keys():
            raise ValueError(f"it lacks the version of {', '.join(sorted(lacking))}")
        check_seal(record)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not the record of a study: {error}; the same command without --render makes it") from error
    return record


def save_rows(file: Path, rows: Rows, said: Mapping[str, Any]) -> None:
    """Writes a record, a line per row, so that two of them can be compared."""
    digest = seal({**said, "rows": rows})["sha256"]
    entries = sorted({**said, "sha256": digest}.items())
    lines = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in entries]
    lines.append('"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    replace_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def render_study_markdown(study: Study, setting: str, record: Mapping[str, Any]) -> str:
    """Returns the rows, or their summary, and where they come from."""
    rows = study.summary(record["rows"]) if study.summary else record["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"# {study.title}", "", study.claim, "", _line(names), _line(["---"] * len(names))]
    lines += [_line([format_value(row.get(name)) for name in names]) for row in rows]
    said = ", ".join(f"{name} {value}" for name, value in record["arguments"].items())
    versions = record["versions"]
    lines += ["", f"Setting {setting}: {said}.", f"Source: {study.source}", *study.notes]
    lines.append(
        f"Commit {record['git_commit']}; jax {versions['jax']}; numpy {versions['numpy']}; python {versions['python']}; "
        f"{record['device']}."
    )
    lines.append(f"Wall time: {record['wall_time_s']:.1f} s.")
    return "\n".join(lines) + "\n"


def render_study_csv(record: Mapping[str, Any]) -> str:
    """Returns all rows."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in record["rows"] for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record["rows"])
    return out.getvalue()


def _draw(study: Study, rows: Rows, path: Path) -> None:
    from matplotlib.figure import Figure

    with paper_style():
        figure = Figure(layout="constrained")
        study.figure(figure, rows)
        figure.suptitle(study.title)
        save_figure(figure, path)


def _round(value: Any) -> Any:
    """Plain numbers of five digits; what is not finite is None, since JSON has no word for it."""
    if isinstance(value, str) or value is None:
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, (bool, int)):
        return number
    return float(f"{number:.5g}") if abs(number) < float("inf") else None


def format_value(value: Any) -> str:
    """Returns an entry of a row as text; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
