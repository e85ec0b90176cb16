"""A folder of results as one page of HTML: tables, plots, every seed's curve. It needs no network and travels alone."""

import base64
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

from lrnn_jax.errors import UserError
from lrnn_jax.runs.files import replace_text
from lrnn_jax.tables.cells import Cell, FilledTable, fill_table, lower_is_better, mean_cells
from lrnn_jax.tables.declaring import Run, load_experiment
from lrnn_jax.tables.plot_style import in_words
from lrnn_jax.tables.records import Record
from lrnn_jax.tables.rendering import compare_with_paper, describe_cells, find_gap, format_ours, format_published, format_seed
from lrnn_jax.tables.reproducing import name_folder
from lrnn_jax.tables.studies import Study, format_value, load_study_record

# A gap of this much of an accuracy's range, or of the published number where the metric is no accuracy, has the full colour.
FULL_GAP = 0.5


class Section(NamedTuple):
    """One table or study on the page.

    Attributes:
      title: as declared.
      anchor: its id on the page.
      said: setting, seeds and runs, for the list at the top.
      html: the whole.
    """

    title: str
    anchor: str
    said: str
    html: str


class Page:
    """What the sections share: where links go, and the curves that a script draws.

    Attributes:
      folder: of the results.
      out: the page's file.
      curves: of each cell: its name, its metric, and of each seed what there is of it and (step, value) of each validation.
    """

    def __init__(self, folder: Path, out: Path) -> None:
        """Starts with no curves."""
        self.folder, self.out = folder, out
        self.curves: list[dict[str, Any]] = []

    def link(self, file: Path, text: str) -> str:
        """Returns a link to a file, relative to the page."""
        return f'<a href="{quote(Path(os.path.relpath(file, self.out.parent)).as_posix())}">{escape(text)}</a>'

    def add_curves(self, filled: FilledTable) -> dict[tuple[str, str], int]:
        """Keeps the curves of a table's cells; returns where those of each (column, row) are."""
        places = {}
        for cell in filled.cells:
            places[cell.column.name, cell.row.name] = len(self.curves)
            seeds = [
                {"said": format_seed(record, value), "reason": record and record.reason, "curve": _curve(filled, record)}
                for record, value in zip(cell.chosen, cell.scores, strict=True)
            ]
            self.curves.append({"name": _name(cell), "metric": filled.table.metric, "seeds": seeds})
        return places


def write_report(folder: Path, out: Path) -> tuple[int, list[str]]:
    """Writes the page of every table and study in a folder of results.

    Args:
      folder: of the results: NAME/SETTING/ as `lrnn_jax.tables.reproducing.reproduce` writes them, and runs/ beside them.
      out: the page's file.

    Returns:
      How many are shown, and a line for each that cannot be, which the page has too.

    Raises:
      UserError: no results in the folder, a folder that cannot be read, or a page that cannot be written.
    """
    if out.is_dir():
        raise UserError(f"--out={out} is a folder; give a file, such as {out / 'report.html'}")
    found = find_results(folder)
    if not found:
        raise UserError(f"{folder} holds no results, NAME/SETTING/table.md; `lrnn reproduce TABLE` writes them")
    page, sections, refused = Page(folder, out), [], []
    for place in found:
        try:
            sections.append(_make_section(page, place))
        except UserError as error:
            refused.append(f"{place.as_posix()}: {error}")
    curves = json.dumps(page.curves, separators=(",", ":")).replace("<", "\\u003c")
    text = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).substitute(
        count=len(sections),
        found=len(found),
        folder=escape(folder.resolve().name),
        full=f"{FULL_GAP:.0%}",
        refused=_list([f"Cannot be shown: {_prose(line)}" for line in refused]),
        navigation=_navigation(sections),
        sections="\n".join(section.html for section in sections),
        curves=curves,
    )
    # ASCII alone, so that neither a locale nor a folder's name can spoil it
    replace_text(out, text.encode("ascii", "xmlcharrefreplace").decode())
    return len(sections), refused


def find_results(folder: Path) -> list[Path]:
    """Returns NAME/SETTING and NAME/SETTING/LAYER of what has been rendered, relative to the folder.

    Raises:
      UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error

    found = []
    for path, folders, files in os.walk(folder, onerror=refuse, followlinks=True):  # three deep, so that loops end
        place = Path(path).relative_to(folder)
        # neither the records nor what a writer keeps in a folder of its own until it is whole
        passed = [name for name in folders if not name.startswith(".") and (place.parts or name != "runs")]
        folders[:] = sorted(passed) if len(place.parts) < 3 else []
        if "table.md" in files and len(place.parts) in (2, 3):
            found.append(place)
    return found


def _make_section(page: Page, place: Path) -> Section:
    name, setting, *layer = place.parts
    experiment = load_experiment(name, **({"layer": _find_layer(page.folder / place)} if layer else {}))
    if isinstance(experiment, Study):
        record = load_study_record(page.folder / place / "record.json")
        body, origin = _study_body(experiment, record), _study_origin(setting, record)
        notes = [f"Source: {experiment.source}", *experiment.notes]
        links = ["record.json"]
    else:
        filled = fill_table(experiment, setting, page.folder / "runs")
        body, origin = _table_body(page, filled), _table_origin(filled)
        notes = [*describe_cells(filled), f"Published: {experiment.source}", *experiment.notes, *_failures(filled)]
        links = []
    files = [file for part in (*links, "table.md", "table.csv") if (file := page.folder / place / part).exists()]
    title, anchor = experiment.title, "-".join(place.parts)
    parts = [
        f'<article id="{escape(anchor)}">',
        f"<h2>{_prose(title)}</h2>",
        f"<p>{_prose(experiment.claim)}</p>",
        _figure(page, place, title),
        body,
        _list([_prose(note) for note in notes]),
        "<dl>" + "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(said)}</dd></div>" for what, said in origin.items()),
        f"<div><dt>Files</dt><dd>{', '.join(page.link(file, file.name) for file in files)}</dd></div></dl>",
        "</article>",
    ]
    said = ", ".join(origin[what] for what in ("Setting", "Seeds") if what in origin)
    return Section(title, anchor, said, "\n".join(parts))


def _find_layer(folder: Path) -> str:
    """The LAYER[/VARIANT] that the folder of its table is named after: rows of the table begin with it."""
    try:
        lines = (folder / "table.csv").read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {folder / 'table.csv'}: {error.strerror}") from error
    for match in re.finditer(r"[^,\"\n]+", lines):
        words = match[0]
        for end in range(len(words), 0, -1):
            if name_folder(words[:end]) == folder.name:
                return words[:end]
    raise UserError(f"{folder / 'table.csv'} has no row of the layer that its folder is named after")


def _table_body(page: Page, filled: FilledTable) -> str:
    """An overview where there are several columns, with every seed of each column to be unfolded; else the seeds at once."""
    places = page.add_curves(filled)
    heads = {
        name: escape(name) + "".join(f"<small>{escape(text)}</small>" for text in said.values())
        for name, said in compare_with_paper(filled).items()
    }
    tables = [_column_table(page, filled, name, head, places) for name, head in heads.items()]
    if len(tables) == 1:
        return tables[0]
    return "\n".join(
        [_overview(filled, heads, places), "<details><summary>Every seed, column by column</summary>", *tables, "</details>"]
    )


def _overview(filled: FilledTable, heads: Mapping[str, str], places: Mapping[tuple[str, str], int]) -> str:
    found = {(cell.column.name, cell.row.name): cell for cell in filled.cells}
    means = {cell.row.name: f"<td>{cell.summary[0]:.3f}</td>" for cell in mean_cells(filled) if cell.summary}
    rows = []
    for row in dict.fromkeys(cell.row.name for cell in filled.cells):
        cells = []
        for column in heads:
            cell = found.get((column, row))
            below = ""
            if cell and cell.published:
                gap = find_gap(cell)
                number = format_published(cell.published, spread=False)
                below = f"<small>{number}{'' if gap is None else f' <b>{gap:+.3f}</b>'}</small>"
            cells.append(_number(filled, cell, places[column, row], below) if cell else "<td></td>")
        if filled.table.total:
            cells.append(means.get(row, '<td class="missing">missing</td>'))
        rows.append((row, cells))
    said = "; below it the published number and the gap" if any(cell.published for cell in filled.cells) else ""
    return _html_table(
        f"Ours, {_metric(filled)}{said}.", ["", *heads.values(), *(["mean"] if filled.table.total else [])], rows
    )


def _column_table(page: Page, filled: FilledTable, name: str, head: str, places: Mapping[tuple[str, str], int]) -> str:
    own, table = [cell for cell in filled.cells if cell.column.name == name], filled.table
    sizes = ["parameters of a layer", "its state"] if table.over_sizes else []
    there = any(cell.published for cell in own)
    rows = []
    for cell in own:
        place, gap = places[name, cell.row.name], find_gap(cell)
        seeds = [
            f'<td data-cell="{place}" data-seed="{seed}"{_status(said)}>'
            f"{page.link(page.folder / 'runs' / f'{record.name}.json', said) if record else said}</td>"
            for seed, (record, value) in enumerate(zip(cell.chosen, cell.scores, strict=True))
            for said in [format_seed(record, value)]
        ]
        words = [*map(str, cell.sizes or ()), *([format_published(cell.published, spread=True)] if there else [])]
        last = ["" if gap is None else f"{gap:+.3f}"] if there else []
        last.append("" if cell.seconds is None else f"{cell.seconds:.0f} s")
        cells = [
            *(f"<td>{word}</td>" for word in words),
            _number(filled, cell, place),
            *seeds,
            *(f"<td>{w}</td>" for w in last),
        ]
        rows.append((cell.row.name, cells))
    seeds = [f"seed {seed}" for seed in range(table.seeds)]
    words = ["", *sizes, *["published"] * there, "ours", *seeds, *["gap"] * there, "wall time"]
    note = f"<p>{_prose(own[0].column.note)}</p>" if own[0].column.note else ""
    return _html_table(head or f"Ours, {_metric(filled)}.", words, rows) + note


def _number(filled: FilledTable, cell: Cell, place: int, below: str = "") -> str:
    """Our number, coloured by its gap, with the curves to be drawn when it is pointed at."""
    said, gap = format_ours(cell), find_gap(cell)
    colour = _status(said)
    if gap is not None and cell.published:
        scale = FULL_GAP if filled.table.metric.partition("/")[0].endswith("accuracy") else FULL_GAP * abs(cell.published.value)
        better = (gap < 0) == lower_is_better(filled.table, filled.runs[0])
        share = min(1.0, abs(gap) / scale) if scale else 1.0
        colour = f' class="{"better" if better else "worse"}" style="--gap:{share:.2f}"'
    return f'<td tabindex="0" data-cell="{place}"{colour}>{said}{below}</td>'


def _metric(filled: FilledTable) -> str:
    return in_words(filled.table.metric) + (" (lower is better)" if lower_is_better(filled.table, filled.runs[0]) else "")


def _status(said: str) -> str:
    return f' class="{said.replace(" ", "-")}"' if said in ("failed", "missing", "stale", "not finite") else ""


def _html_table(caption: str, heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table; the caption, the heads and the cells are HTML, the rows' names text."""
    lines = ['<div class="wide"><table>', f"<caption>{caption}</caption>"]
    lines += ["<thead><tr>", *(f'<th scope="col">{head}</th>' for head in heads), "</tr></thead><tbody>"]
    lines += [f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows]
    return "\n".join([*lines, "</tbody></table></div>"])


def _study_body(study: Study, record: Mapping[str, Any]) -> str:
    rows = study.summary(record["rows"]) if study.summary else record["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[format_value(row.get(name)) for name in names] for row in rows]
    cells = [(row[0], [f"<td>{escape(text)}</td>" for text in row[1:]]) for row in texts]
    return _html_table("What was computed.", [escape(name) for name in names], cells)


def _table_origin(filled: FilledTable) -> dict[str, str]:
    there = [record for record in filled.records if record and record.status != "stale"]
    ended = f"{len(there)} of {len(filled.runs)} runs"
    return {
        "Setting": filled.setting,
        "Seeds": f"{filled.table.seeds} seeds, {ended}",
        "Commit": _join(_short(record.git_commit) for record in there),
        "Device": _join(record.device for record in there),
        "Versions": _join(f"{name} {version}" for record in there for name, version in record.versions.items()),
        "Wall time": f"{sum(cell.seconds or 0.0 for cell in filled.cells) / 60:.1f} min",
    }


def _study_origin(setting: str, record: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Setting": setting,
        "Arguments": ", ".join(f"{name} {value}" for name, value in record["arguments"].items()),
        "Commit": _short(record["git_commit"]),
        "Device": str(record["device"]),
        "Versions": _join(f"{name} {version}" for name, version in record["versions"].items()),
        "Wall time": f"{record['wall_time_s']:.1f} s",
    }


def _failures(filled: FilledTable) -> list[str]:
    pairs = zip(filled.runs, filled.records, strict=True)
    failed = [(run, record) for run, record in pairs if record and record.status == "failed"]
    return [f"Failed: {_name(run)}, seed {run.seed}: {record.reason}" for run, record in failed]


def _figure(page: Page, place: Path, title: str) -> str:
    file = page.folder / place / "plot.png"
    if not file.exists():
        return f"<p>No plot yet: <code>lrnn reproduce {escape(place.parts[0])} --render</code> draws it.</p>"
    try:
        data = base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    return f'<figure><img src="data:image/png;base64,{data}" alt="Plot of {escape(title)}"></figure>'


def _navigation(sections: Sequence[Section]) -> str:
    papers: dict[str, list[str]] = {}
    for section in sections:
        paper, _, rest = re.sub(r"^(.*? \d{4}\)?)[,:]? +", "\\1\n", section.title, count=1).rpartition("\n")
        link = f'<a href="#{quote(section.anchor)}">{_prose(rest[:1].upper() + rest[1:])}</a>'
        papers.setdefault(paper or "Others", []).append(f"{link} <small>{escape(section.said)}</small>")
    return "\n".join(f"<section><h2>{escape(paper)}</h2>{_list(lines)}</section>" for paper, lines in sorted(papers.items()))


def _name(part: Cell | Run) -> str:
    return ", ".join(filter(None, (part.row.name, part.column.name)))


def _curve(filled: FilledTable, record: Record | None) -> list[tuple[float, float]]:
    points = record.validation.get(filled.table.metric, ()) if record else ()
    return [(step, float(f"{value:.4g}")) for step, value in points if value is not None and math.isfinite(value)]


def _list(lines: Sequence[str]) -> str:
    """A list of HTML; nothing where it is empty."""
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else ""


def _prose(text: str) -> str:
    """A sentence of a declaration: its backticks are code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _short(commit: str | None) -> str:
    """Twelve letters of a commit, and whether the code had been changed."""
    return "unknown" if not commit else commit[:12] + "+" * commit.endswith("+")


def _join(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or "nothing has run"
