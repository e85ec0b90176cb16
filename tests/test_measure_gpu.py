"""One cheap piece of each item at a tiny size, and what the script does with pieces that fail or that there is no time for."""

import json
import time
from pathlib import Path

import pytest

from lrnn_jax import scans
from lrnn_jax.bench import cases
from scripts import measure_gpu
from scripts.gpu.pieces import Piece

# ml_collections loads config files by a deprecated call
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

CHEAP = {"correct": ["scan diagonal", "layer diagonal"], "methods": ["copy", "diagonal 16 bfloat16"], "seeds": ["1 members"]}
ORIGIN = {"date": "now", "git_commit": None, "versions": {"jax": "1"}, "device": "none"}


def run(pieces, folder, *, seconds=600.0, name="item"):
    results = measure_gpu.Results(name, folder, ORIGIN)
    pending = measure_gpu.find_pending(pieces, results, named=False)
    ended = measure_gpu.measure(pending, results, time.monotonic() + seconds, quickly=True)
    return ended, [piece.name for piece in pending]


def read(folder, name="item"):
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("item", measure_gpu.ITEMS)
def test_a_piece_of_each_item_runs_and_is_shown(item, tmp_path):
    pieces = [piece for piece in measure_gpu.ITEMS[item](True) if piece.name in CHEAP[item]]
    assert [piece.name for piece in pieces] == CHEAP[item]
    assert run(pieces, tmp_path, name=item)[0]
    entries = read(tmp_path, item)["pieces"]
    assert list(entries) == CHEAP[item]
    assert not any(measure_gpu.has_failed(entry) for entry in entries.values()), entries
    rows = [row for entry in entries.values() for row in entry["rows"]]
    assert all(row.get("passed", True) for row in rows)
    shown = measure_gpu.show(tmp_path).splitlines()
    assert f"## {item}" in shown
    assert sum(line.startswith("| ") for line in shown) == len(rows) + 2


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("item", measure_gpu.ITEMS)
def test_pieces_have_names_of_their_own(item, tiny):
    names = [piece.name for piece in measure_gpu.ITEMS[item](tiny)]
    assert len(names) == len(set(names)) > 1


def test_every_public_scan_has_a_case():
    text = Path(cases.__file__).read_text()
    assert not [name for name in scans.__all__ if name.startswith("scan_") and f"scans.{name}(" not in text]


def test_a_failure_is_one_line_and_stops_nothing_and_what_is_done_is_not_done_again(tmp_path):
    def fail():
        raise ValueError("first line\nsecond line")

    pieces = [
        Piece("cannot be lowered", lambda programs: [], fail),
        Piece("cannot run", lambda programs: fail()),
        Piece("works", lambda programs: [{"x": 1.5}]),
    ]
    assert run(pieces, tmp_path) == (True, [piece.name for piece in pieces])
    entries = read(tmp_path)["pieces"]
    assert [entry.get("failed") for entry in entries.values()] == ["ValueError: first line"] * 2 + [None]
    assert run([*pieces, pieces[2]._replace(name="another")], tmp_path) == (True, ["another"])
    content = read(tmp_path)
    assert (len(content["runs"]), content["pieces"]["works"]["run"], content["pieces"]["another"]["run"]) == (2, 0, 1)
    results = measure_gpu.Results("item", tmp_path, ORIGIN)
    assert measure_gpu.find_pending(pieces, results, named=True) == pieces[:2]


def test_a_piece_that_would_not_end_in_time_is_left(tmp_path):
    assert run([Piece("long", lambda programs: [], seconds=60.0)], tmp_path, seconds=30.0) == (False, ["long"])
    assert not (tmp_path / "item.json").exists()


def test_what_is_committed_is_not_measured_again_unless_named(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_gpu, "COMMITTED", tmp_path)
    piece = Piece("works", lambda programs: [])
    run([piece], tmp_path)
    elsewhere = measure_gpu.Results("item", tmp_path / "elsewhere", ORIGIN)
    assert measure_gpu.find_pending([piece], elsewhere, named=False) == []
    assert measure_gpu.find_pending([piece], elsewhere, named=True) == [piece]


def test_an_unknown_item_is_refused(capsys):
    with pytest.raises(SystemExit):
        measure_gpu.main(["--minutes=1", "--out=nowhere", "--only=methds"])
    assert "unknown item 'methds'" in capsys.readouterr().err
