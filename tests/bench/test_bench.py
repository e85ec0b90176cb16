"""``lrnn bench``: every kind on a tiny grid, peers that agree and one that does not, and what is refused in one line."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import refuse, succeed
from lrnn_jax.bench import scanning
from lrnn_jax.bench.grids import Grid, Point
from lrnn_jax.bench.layering import own_blocks
from lrnn_jax.bench.peers import Peer
from lrnn_jax.bench.rendering import COLUMNS
from lrnn_jax.bench.steps import make_config
from lrnn_jax.cli.main import main
from lrnn_jax.registry import LAYERS

# ml_collections loads config files by a deprecated call
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

TINY = ("--batch=2", "--length=8", "--width=4", "--rounds=1")


def bench(kind, *arguments, folder):
    """The rows of the CSV and the Markdown of one command."""
    printed = succeed("bench", kind, *arguments, f"--out={folder}")
    assert sorted(file.name for file in folder.iterdir()) == [f"{kind}.csv", f"{kind}.md", f"{kind}.png"]
    assert (folder / f"{kind}.md").read_text() == printed
    rows = list(csv.DictReader((folder / f"{kind}.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert sum(line.startswith("| ") for line in printed.splitlines()) == len(rows) + 2
    return rows, printed


def test_scans_are_timed_beside_peers_that_agree_in_outputs_and_gradients(tmp_path):
    families = "diagonal,diagonal_complex,blocks,companion,time_invariant,delta_rule"
    how = (f"--family={families}", "--method=sequential", "--passes=gradients", "--block_size=2")
    rows, printed = bench("scan", *how, *TINY, folder=tmp_path)
    assert not [row["failed"] for row in rows if row["failed"]]
    assert all(float(row["ms"]) > 0 and float(row["temporary_mib"]) >= 0 and float(row["of_bandwidth"]) > 0 for row in rows)
    named = {family: [row["program"] for row in rows if row["what"] == family] for family in families.split(",")}
    assert named == {
        "diagonal": ["sequential", "associative_scan", "lax.scan"],
        "diagonal_complex": ["sequential", "complex64 associative_scan", "time-major loop", "lax.scan"],
        "time_invariant": ["sequential", "auto", "complex64 associative_scan", "lax.scan"],
        "blocks": ["sequential", "einsum associative_scan", "lax.scan"],
        "companion": ["sequential", "dense associative_scan", "lax.scan"],
        "delta_rule": ["sequential", "lax.scan"],
    }
    assert {row["program"] for row in rows if row["kind"] == "auto"} == {"sequential", "auto"}
    assert [row["ratio"] for row in rows if row["program"].endswith("associative_scan")] == ["1.0"] * 5
    assert "jax 0." in printed
    assert "GB/s" in printed
    assert "## Where we lose" in printed


def test_what_was_measured_before_an_interruption_is_written(monkeypatch, tmp_path):
    def bench_scans(grid):
        yield scanning.measure_scan(Point("diagonal", 1, 8, 2, None, "float32", "forward"), ("sequential",), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(scanning, "bench_scans", bench_scans)
    assert main(["bench", "scan", f"--out={tmp_path}"]) == 130
    rows = list(csv.DictReader((tmp_path / "scan.csv").read_text().splitlines()))
    assert {row["what"] for row in rows} == {"diagonal"}


def test_a_peer_that_differs_is_not_timed(monkeypatch):
    monkeypatch.setattr(scanning, "list_peers", lambda family, case: {"wrong": Peer(lambda _, xs: xs[1].astype(jnp.float32))})
    rows = scanning.measure_scan(Point("diagonal", 1, 8, 2, None, "float32", "forward"), ("sequential",), 1)
    (wrong,) = [row for row in rows if row.kind == "peer"]
    assert wrong.timed.seconds is None
    assert wrong.timed.failed.startswith("not timed: differs from ours by")


def test_rows_of_arguments_are_of_any_length():
    case = scanning.make_case(Point("diagonal", 2, 300, 3, None, "float32", "forward"))
    (_, (a, b)) = scanning.draw_arguments(case, 2, 300, "bfloat16")
    assert a.shape == b.shape == (2, 300, 3)
    assert a.dtype == b.dtype == jnp.bfloat16
    np.testing.assert_array_equal(a[1, 256:], a[0, :44])


def test_a_layer_by_its_methods(tmp_path):
    rows, _ = bench("layer", "--layer=bd_lru", "--block_size=2", "--passes=forward", *TINY, folder=tmp_path)
    assert [(row["program"], row["kind"], row["block_size"]) for row in rows] == [
        ("sequential", "auto", "2"),
        ("associative", "method", "2"),
    ]
    assert rows[0]["ratio"] == "1.0"


def test_a_training_step_beside_its_products_and_the_training_of_configs(tmp_path):
    rows, _ = bench("train", "--layer=diagonal", *TINY, folder=tmp_path / "layers")
    assert [(row["program"], row["kind"]) for row in rows] == [("step", "auto"), ("its matrix products", "bound")]
    assert float(rows[0]["ratio"]) == pytest.approx(float(rows[0]["ms"]) / float(rows[1]["ms"]))
    spec = "configs/parity.py:diagonal,smoke"
    rows, printed = bench("train", f"--config={spec}", "--rounds=1", folder=tmp_path / "configs")
    assert [(row["what"], row["width"], row["length"]) for row in rows] == [(spec, "10", "40")]
    assert float(rows[0]["ms"]) > 0
    assert "steps/s" in printed


def test_decoding_token_by_token(tmp_path):
    rows, printed = bench("decode", "--layer=lru", "--batch=2,3", "--length=8", "--width=4", "--rounds=1", folder=tmp_path)
    assert [row["batch"] for row in rows] == ["2", "3"]
    assert float(rows[1]["positions_per_s"]) == pytest.approx(3e3 / float(rows[1]["ms"]))
    assert "tokens/s" in printed


def test_a_step_of_every_layer_can_be_configured_and_two_have_blocks():
    blocks = own_blocks(tuple(LAYERS))
    assert {name: size for name, size in blocks.items() if size} == {"bd_lru": 4, "h_lru": 4}
    for name, size in blocks.items():
        config = make_config(Point(name, 4, 8, 64, size and 2, "float32", "step"))
        assert (config.model.width, config.train.batch_size, tuple(config.train.length)) == (64, 4, (8, 8))
    assert (config := make_config(Point("h_lru", 4, 8, 64, 2, "float32", "step"))).model.layer.order == 2
    assert config.model.layer.channels == 32


def test_a_grid_has_every_point_once():
    grid = Grid(("diagonal", "blocks"), (1,), (8, 16), (4,), (1, 2), passes=("forward",))
    points = [(point.what, point.length, point.block_size) for point in grid.points({"diagonal": None, "blocks": 4})]
    assert points == [
        ("diagonal", 8, None), ("diagonal", 16, None),
        ("blocks", 8, 1), ("blocks", 16, 1), ("blocks", 8, 2), ("blocks", 16, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["scan, layer, train, decode"]),
        (["scna"], ["'scna'", "did you mean 'scan'"]),
        (["scan", "layer"], ["one of scan"]),
        (["scan", "--family=blokcs"], ["'blokcs'", "did you mean 'blocks'"]),
        (["scan", "--family=delta_rule", "--method=chunkd"], ["'chunkd'", "sequential, chunked", "delta_rule"]),
        (["scan", "--layer=lru"], ["--layer", "layer, train, decode"]),
        (["scan", "--family=blocks", "--block_size=5"], ["--block_size=5", "--width=256"]),
        (["scan", "--length=1,two"], ["--length=1,two"]),
        (["scan", "--batch=0"], ["--batch=0"]),
        (["scan", "--dtype=flaot32"], ["'flaot32'", "did you mean 'float32'"]),
        (["scan", "--passes=backward"], ["'backward'", "forward, gradients"]),
        (["scan", "--rounds=-1"], ["rounds"]),
        (["layer", "--layer=lur"], ["'lur'", "did you mean 'lru'"]),
        (["layer", "--layer=lru", "--method=chunked"], ["'chunked'", "sequential, associative", "lru"]),
        (["layer", "--layer=deltanet", "--width=6"], ["heads=4", "width=6"]),
        (["train", "--method=sequential"], ["train takes no --method"]),
        (["train", "--config=configs/partiy.py"], ["did you mean 'configs/parity.py'"]),
        (["train", "--config=configs/parity.py", "--width=8"], ["--width", "--config"]),
        (["decode", "--layer=h_lru", "--block_size=3"], ["--block_size=3", "--width=256"]),
    ],
)
def test_what_is_refused(arguments, said):
    line = refuse("bench", *arguments)
    assert not [words for words in said if words not in line], line
