"""The page of a folder of results: what it shows, where its links lead, and in a browser the curve of every seed."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_tables import FAILED, column_table, finished, make_table

from helpers import call, refuse
from lrnn_jax.tables import report
from lrnn_jax.tables.declaring import Column, Published, Row, list_runs
from lrnn_jax.tables.records import record_file, save_record

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SETTINGS = ("cpu", "grazzi2025-released")  # of what there is of Table 3
PNG = b"\x89PNG made up"
CURVE = [[10, 0.125], [20, None], [40, 0.75]]
NAME = "a<b & 'c'"
BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class Page(HTMLParser):
    """A page's elements, each as (tag, attributes, the text in it)."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        if tag not in ("meta", "img"):
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag  # every element ends where it should

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **wanted):
        """(attributes, text) of the elements of a tag that have the wanted attributes."""
        return [
            (attributes, text)
            for name, attributes, text in self.found
            if name == tag and all(attributes.get(key.replace("_", "-")) == value for key, value in wanted.items())
        ]


def put(folder, monkeypatch, table, records, *, name="made", setting="cpu"):
    """A folder of results with one table, as `reproduce` leaves it; records may be None where one is missing."""
    monkeypatch.setattr(report, "load_experiment", lambda _, **options: table)
    place = folder / name / setting
    place.mkdir(parents=True)
    (place / "table.md").write_text("")
    (place / "plot.png").write_bytes(PNG)
    for run, record in zip(list_runs(table, "cpu"), records, strict=True):
        if record:
            save_record(run, record, folder / "runs")


def make(folder, *arguments):
    """The page that the command writes."""
    code, out, err = call("report", str(folder), *arguments)
    assert (code, err) == (0, ""), err
    return Page(Path(out.partition(":")[0]).read_text())


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A finished, a failed and a missing seed of one cell, whose names have to be escaped."""
    row = Row(NAME, "lstm", {"": Published(1.0, "Table 9")})
    said = {"title": "Made et al. 2031, Table 9: <i>", "claim": "x < y & `z`", "notes": ("</script>",)}
    table = make_table((row,), seeds=3, **said)
    records = [finished(0.75, curve=CURVE), {**FAILED, "validation": {"scaled_accuracy": [[3, 0.5]]}}, None]
    put(tmp_path / "results & more", monkeypatch, table, records)
    return tmp_path / "results & more"


def test_a_finished_a_failed_and_a_missing_seed(three):
    page = make(three)
    (ours,) = page.all("td", tabindex="0")
    # 0.25 below the published number, half of the gap that has the full colour
    assert ours[1] == "0.750 (1 of 3)" and (ours[0]["class"], ours[0]["style"]) == ("worse", "--gap:0.50")
    seeds = [page.all("td", data_cell="0", data_seed=str(seed))[0] for seed in range(3)]
    assert [(text, attributes.get("class")) for attributes, text in seeds] == [
        ("0.750", None), ("failed", "failed"), ("missing", "missing"),
    ]  # fmt: skip
    assert [text for _, text in page.all("th", scope="row")] == [NAME]
    heads = [text for _, text in page.all("th", scope="col")]
    assert heads == ["", "published", "ours", "seed 0", "seed 1", "seed 2", "gap", "wall time"]
    assert any("-0.250" in text for _, text in page.all("tr"))
    assert [text for _, text in page.all("caption")] == ["Ours, scaled accuracy."]
    assert f"Failed: {NAME}, seed 1: step 3: not finite" in [text for _, text in page.all("li")]


def test_names_are_escaped_and_the_curves_are_json(three):
    page = make(three)
    assert [text for _, text in page.all("h2")] == ["Made et al. 2031", "Made et al. 2031, Table 9: <i>"]
    ((_, navigation),) = page.all("nav")
    assert navigation.split("\n")[1] == "Made et al. 2031Table 9: <i> cpu, 3 seeds, 2 of 3 runs"
    assert page.all("i") == [] and "x < y & z" in [text for _, text in page.all("p")]
    assert "</script>" in page.all("article")[0][1] and page.all("code")[1][1] == "z"
    (cells,) = page.all("script", id="cells")
    seeds = [
        {"said": "0.750", "reason": None, "curve": [[10, 0.125], [40, 0.75]]},  # what is not finite is no point
        {"said": "failed", "reason": "step 3: not finite", "curve": [[3, 0.5]]},
        {"said": "missing", "reason": None, "curve": []},
    ]
    assert json.loads(cells[1]) == [{"name": NAME, "metric": "scaled_accuracy", "seeds": seeds}]


@pytest.mark.parametrize("where", [(), ("--out=other place/sub/page.html",)])
def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(three, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    page = make(three, *where)
    beside = tmp_path / "other place" / "sub" if where else three
    links = [attributes["href"] for attributes, _ in page.all("a")]
    assert len(links) == 4  # the list at the top, two records, table.md
    for link in links:
        if link.startswith("#"):
            assert page.all("article", id=link[1:])
        else:
            assert beside.joinpath(unquote(link)).is_file()
    (image,) = page.all("img")
    assert base64.b64decode(image[0]["src"].removeprefix("data:image/png;base64,")) == PNG
    text = (beside / ("page.html" if where else "report.html")).read_text(encoding="ascii")
    assert set(re.findall(r"\w+://[\w.]+", text)) == {"http://www.w3.org"}  # the names of HTML and SVG
    assert page.all("link") == [] and all("src" not in attributes for attributes, _ in page.all("script"))


@pytest.mark.parametrize(
    ("metric", "published", "ours", "colour"),
    [
        ("scaled_accuracy", 0.5, 0.625, ("better", "--gap:0.25")),
        ("scaled_accuracy", 1.0, 0.25, ("worse", "--gap:1.00")),  # beyond the full colour
        ("loss", 4.0, 5.0, ("worse", "--gap:0.50")),  # lower is better; a quarter of the published number
        ("loss", 4.0, 3.0, ("better", "--gap:0.50")),
        ("loss", 0.0, 1.0, ("worse", "--gap:1.00")),
    ],
)
def test_the_colour_is_the_gap(tmp_path, monkeypatch, metric, published, ours, colour):
    row = Row("one", "lstm", {"": Published(published, "p")})
    put(tmp_path, monkeypatch, make_table((row,), metric=metric, seeds=1), [finished(ours, metric=metric)])
    (cell,) = make(tmp_path).all("td", tabindex="0")
    assert (cell[0]["class"], cell[0]["style"]) == colour


def test_a_number_of_another_unit_has_no_colour(tmp_path, monkeypatch):
    row = Row("one", "lstm", {"": Published(3.0, "p", unit="bits")})
    put(tmp_path, monkeypatch, make_table((row,), seeds=1), [finished(0.5)])
    (cell,) = make(tmp_path).all("td", tabindex="0")
    assert cell[0].keys() == {"tabindex", "data-cell"}


def test_several_columns_have_an_overview_before_their_seeds(tmp_path, monkeypatch):
    columns = (column_table().columns[0], Column("sums", "configs/modular_arithmetic.py", "plain,nomult", note="With care."))
    rows = (
        Row("one", "lstm", {"parity": Published(0.5, "p")}, {"model.depth": 1}),
        Row("two", "lstm", fields={"model.depth": 2}),
    )
    table = make_table(rows, columns, seeds=1, paper="grazzi2025", total=True)
    put(tmp_path, monkeypatch, table, [finished(0.25), finished(0.5), None, finished(1.0)])
    page = make(tmp_path)
    texts = [text for _, text in page.all("tr")]
    assert "one0.2500.500 -0.250missingmissing" in texts
    assert "two0.5001.0000.750" in texts  # (0.5 + 1) / 2
    differs = ["trained on lengths 3 to 20 (grazzi2025: 3 to 40)", "tested on lengths 20 to 128 (grazzi2025: 40 to 256)"]
    heads = [text for _, text in page.all("th", scope="col")]
    assert heads[:4] == ["", "parity", "".join(("sums", *differs)), "mean"]
    assert [text for _, text in page.all("small")][-2:] == differs  # at the column's own table too
    assert len(page.all("details")) == 1 and len(page.all("table")) == 3
    assert "With care." in [text for _, text in page.all("p")]
    # each cell of the overview and of the column's table draws the same curves
    assert sorted(int(attributes["data-cell"]) for attributes, _ in page.all("td", tabindex="0")) == sorted([*range(4)] * 2)


def test_real_tables_and_studies(tmp_path):
    """Also where folders of the results are links, as on a machine whose disks are many."""
    for name in ("runs", "grazzi2025_table3", "orvieto2023_fig9"):
        (tmp_path / name).symlink_to(RESULTS / name)
    page = make(tmp_path)
    papers = [text for _, text in page.all("h2")][:2]
    assert papers == ["Grazzi et al. 2025", "Orvieto et al. 2023"]
    links = [attributes["href"] for attributes, _ in page.all("a") if not attributes["href"].startswith("#")]
    assert len(links) > 80 and all(tmp_path.joinpath(link).is_file() for link in links)
    cells = json.loads(page.all("script", id="cells")[0][1])
    markdown = "".join((tmp_path / "grazzi2025_table3" / setting / "table.md").read_text() for setting in SETTINGS)
    seeds = [" | ".join(seed["said"] for seed in cell["seeds"]) for cell in cells]
    assert len(seeds) > 50 and all(f" | {said} | " in markdown for said in seeds)
    assert any(len(seed["curve"]) > 1 for cell in cells for seed in cell["seeds"])
    said = {text for _, text in page.all("dd")}
    assert {*SETTINGS, "record.json, table.md, table.csv"} <= said


def test_the_table_of_a_newcomers_layer_is_found_by_its_rows(tmp_path, monkeypatch):
    place = tmp_path / "grazzi2025_fig1" / "cpu" / "lstm-x"
    place.mkdir(parents=True)
    (place / "table.md").write_text("")
    (place / "table.csv").write_text('column,row\n,"[0, 1]",1\n,"lstm:x, 1 layer",2\n')
    assert report._find_layer(place) == "lstm:x"
    (place.parent / ".writing").mkdir()  # as another process leaves it until it is whole
    (place.parent / ".writing" / "table.md").write_text("")
    assert report.find_results(tmp_path) == [Path("grazzi2025_fig1/cpu/lstm-x")]
    (place / "table.csv").write_text("column,row\n")
    code, out, err = call("report", str(tmp_path))
    assert code == 1 and "0 of 1 tables" in out and "has no row of the layer that its folder is named after" in err


# --- bad input -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_shown_is_said_and_spoils_nothing_else(three, monkeypatch):
    made = report.load_experiment
    monkeypatch.setattr(report, "load_experiment", lambda name: made(name) if name == "made" else load_experiment(name))
    for name in ("nosuch", "orvieto2023_fig9"):
        (three / name / "cpu").mkdir(parents=True)
        (three / name / "cpu" / "table.md").write_text("")
    (three / "orvieto2023_fig9" / "cpu" / "record.json").write_text('{"rows": [1]}')
    code, out, err = call("report", str(three))
    assert code == 1 and f"{three / 'report.html'}: 1 of 3 tables and studies" in out
    assert err.splitlines()[0] == "lrnn: nosuch/cpu: unknown table 'nosuch' (`lrnn list tables` shows all)"
    assert "record.json is not the record of a study: it lacks arguments," in err.splitlines()[1]
    assert err.splitlines()[2:] == ["lrnn: 2 of 3 cannot be shown; the page says why"]
    page = Page((three / "report.html").read_text())
    assert len(page.all("article")) == 1
    assert "Cannot be shown: nosuch/cpu: unknown table 'nosuch' (lrnn list tables shows all)" in [t for _, t in page.all("li")]


def load_experiment(name, loader=report.load_experiment):
    return loader(name)


def test_a_damaged_record_is_named_on_the_page(three):
    record_file(list_runs(report.load_experiment("made"), "cpu")[0], three / "runs").write_text("{")
    code, _, err = call("report", str(three))
    assert code == 1 and "is not a record" in err.splitlines()[0]


def test_mistakes_are_one_line(tmp_path, three, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cannot read nowhere: No such file or directory" in refuse("report", "nowhere")
    (tmp_path / "file").write_text("")
    assert "cannot read file: Not a directory" in refuse("report", "file")
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    assert "empty holds no results" in refuse("report", "empty")
    assert "'b'" in refuse("report", "a", "b")
    assert "--out=empty is a folder; give a file, such as empty/report.html" in refuse("report", str(three), "--out=empty")
    assert "cannot write file/page.html: " in refuse("report", str(three), "--out=file/page.html")
    assert [path.name for path in three.iterdir() if path.suffix == ".html"] == []


def test_a_folder_that_cannot_be_read_is_named(three, monkeypatch):
    def scandir(path):
        if Path(path).name == "cpu":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    real = report.os.scandir
    monkeypatch.setattr("os.scandir", scandir)
    assert f"cannot read {three / 'made' / 'cpu'}: Permission denied" in refuse("report", str(three))


# --- in a browser --------------------------------------------------------------------------------------------------

# Points at a cell, then moves the focus to a seed's link, then on; keeps what is drawn each time.
POINTER = """
<script>
addEventListener("load", () => {
  const seen = [], box = document.getElementById("curves"), ours = document.querySelector("td[tabindex]");
  const keep = () => seen.push({hidden: box.hidden, lines: box.querySelectorAll("polyline").length, text: box.innerText,
    thick: [...box.querySelectorAll("polyline")].map((line) => getComputedStyle(line).strokeWidth),
    ends: [...box.querySelectorAll("polyline")].map((line) => line.getAttribute("points").split(" ").length),
    inside: box.getBoundingClientRect().right <= innerWidth && box.getBoundingClientRect().left >= 0});
  keep();
  ours.dispatchEvent(new MouseEvent("mouseover", {bubbles: true})); keep();
  document.querySelector("h1").dispatchEvent(new MouseEvent("mouseover", {bubbles: true})); keep();
  ours.focus(); keep();
  document.querySelector("td[data-seed='1'] a").focus(); keep();
  document.activeElement.blur(); keep();
  ours.focus(); document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); keep();
  const seeds = document.createElement("pre"); seeds.id = "seen"; seeds.textContent = JSON.stringify(seen);
  document.body.append(seeds);
});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_a_browser_draws_the_curve_of_every_seed(three, tmp_path):
    make(three)
    file = tmp_path / "pointed.html"
    file.write_text((three / "report.html").read_text().replace("</body>", POINTER))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([BROWSER, *flags, file.as_uri()], capture_output=True, text=True, timeout=120).stdout
    before, pointed, away, focused, seed, blurred, escaped = json.loads(Page(shown).all("pre", id="seen")[0][1])
    for state in (before, away, blurred, escaped):
        assert state["hidden"]
    for state in (pointed, focused, seed):
        # the third seed is missing, and has no curve; one of a single validation is drawn from the start
        assert (state["hidden"], state["inside"], state["lines"], state["ends"]) == (False, True, 2, [2, 2])
        for said in (NAME, "validation scaled accuracy", "seed 0: 0.750", "seed 1: failed, step 3: not finite", "missing"):
            assert said in state["text"]
    assert pointed["thick"] == ["1.6px", "1.6px"] and seed["thick"] == ["1.6px", "3.2px"]
