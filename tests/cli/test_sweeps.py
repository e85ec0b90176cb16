"""The commands for many runs, in process: ``lrnn sweep``, ``runs`` and ``reproduce``, and what they refuse in one line."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from helpers import call, refuse, succeed
from lrnn_jax.runs.store import locked_store
from lrnn_jax.sweeps import executors, packs, sweep
from lrnn_jax.tables import reproducing as reproduce
from lrnn_jax.tables.declaring import Column, Published, Row, Table

FILE = """
from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, on
from lrnn_jax.sweeps.combinators import grid, seeds, zip

SMALL = load_settings("parity")["smoke"] + on({
    "train.duration": "6 steps", "train.length": [3, 8], "train.batch_size": 8,
    "eval.every": "50%", "eval.lengths": [[40, 48]], "eval.examples": 8, "eval.batch_size": 8,
})

def get_config(arg=None):
    return Choices("parity", {"smoke": SMALL, "cpu": SMALL})(arg, layer="diagonal")

def sweep():
    return grid({"optim.lr": [1e-3, 1e-2]}, seeds(2))

def sweep_widths():
    return grid({"model.width": [4, 8]}, seeds(2))

def sweep_equal():
    return [*seeds(2), *seeds(2)]

def sweep_deadly():
    return [{"seed": 0}, {"seed": 1, "optim.lr": 1.0, "optim.weight_decay": 1e6}]

def sweep_empty():
    return []

def sweep_field():
    return [{"optim.lrr": 0.1}]

def sweep_type():
    return [{"model.width": "wide"}]

def sweep_value():
    return [{"seed": 0}, {"model.norm": "layernrm"}]

def sweep_uneven():
    return zip({"optim.lr": [1e-3, 1e-2]}, seeds(3))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands work from any folder, and tests leave nothing in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "experiment.py"
    path.write_text(FILE)
    return path


def make_table(*rows, seeds=1, columns=()):
    return Table("t", "s", "c", "accuracy", columns, rows, seeds=seeds, settings=("smoke",), paper="")


def read_csv(out):
    return list(csv.DictReader(io.StringIO(out)))


# --- mistakes ------------------------------------------------------------------------------------------------------

FIGURE = ["reproduce", "grazzi2025_fig1", "--results=results", "--workdir=w"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep"], ["--config=FILE"]),
        (["sweep", "--sweep=x"], ["--config=FILE"]),
        (["sweep", "FILE", "--sweep=feild"], ["'feild'", "did you mean 'field'"]),
        (["sweep", "FILE", "--sweep=empty"], ["'empty'", "is empty"]),
        (["sweep", "FILE", "--sweep=field"], ["optim.lrr", "did you mean 'lr'"]),
        (["sweep", "FILE", "--sweep=type"], ["model.width", "wide"]),
        (["sweep", "FILE", "--sweep=value"], ["model.norm", "did you mean 'layernorm'"]),
        (["sweep", "FILE", "--sweep=uneven"], ["different lengths"]),
        (["sweep", "FILE", "--config.optim.lrr=1"], ["optim.lrr", "did you mean 'lr'"]),
        (["sweep", "FILE", "--config.train.batch_size=0"], ["train.batch_size", "0"]),
        (["sweep", "FILE", "--part=3/2"], ["--part='3/2'"]),
        (["sweep", "FILE", "--part=0/2"], ["--part='0/2'"]),
        (["sweep", "FILE", "--part=half"], ["--part='half'"]),
        (["sweep", "FILE", "--part="], ["--part=''"]),
        (["sweep", "FILE", "--executor=vmpa"], ["'vmpa'", "did you mean 'vmap'"]),
        (["sweep", "FILE", "--executor=vmpa", "--plan"], ["'vmpa'", "did you mean 'vmap'"]),
        (["sweep", "FILE", "--workers=0"], ["workers", "0"]),
        (["sweep", "FILE", "--workers=many"], ["workers", "many"]),
        (["sweep", "FILE", "--sweeep=x"], ["--sweeep", "did you mean 'sweep'"]),
        (["sweep", "FILE", "garbage"], ["'garbage'"]),
        (["runs"], ["one DIR"]),
        (["runs", "a", "b"], ["one DIR"]),
        (["runs", "nowhere"], ["nowhere"]),
        (["runs", "nowhere", "--clumns=x"], ["--clumns", "did you mean 'columns'"]),
        (["reproduce", "grazzi2025_fgi1", "--results=results"], ["'grazzi2025_fgi1'", "did you mean 'grazzi2025_fig1'"]),
        ([*FIGURE, "--setting=grazi2025"], ["--setting='grazi2025'", "did you mean 'grazzi2025'"]),
        ([*FIGURE, "--setting=smoke", "--cells=[2, 1]"], ["--cells='[2, 1]'", "[-1, 1]"]),
        ([*FIGURE, "--setting=smoke", "--cells=nosuch*"], ["--cells='nosuch*'"]),
        ([*FIGURE, "--setting=smoke", "--executor=locl"], ["'locl'", "did you mean 'local'"]),
        ([*FIGURE, "--setting=smoke", "--render"], ["no records"]),
        ([*FIGURE, "garbage"], ["one TABLE"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0] in ("sweep", "runs", "reproduce") else "",
)
def test_a_mistake_is_one_line_that_names_it_and_leaves_nothing(arguments, said, file, tmp_path):
    err = refuse(*(f"--config={file}" if word == "FILE" else word for word in arguments))
    for part in said:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('raise ValueError("one\\ntwo")', "ValueError: one"),
        ('raise UserError("one\\ntwo")', "one"),
        ("raise ValueError", "ValueError"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("sys.exit()", "SystemExit"),
    ],
)
@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("train", ""),
        ("train", "def get_config(arg=None):\n    "),
        ("sweep", "get_config = x.get_config\ndef sweep():\n    "),
    ],
)
def test_a_config_file_that_fails_or_exits_is_one_line(tmp_path, command, where, line, said):
    path = tmp_path / "broken.py"
    path.write_text(f"import sys\nfrom lrnn_jax.errors import UserError\nimport configs.parity as x\n{where}{line}\n")
    err = refuse(command, f"--config={path}")
    assert said in err and "two" not in err and ("UserError" in line or f"{path}:{len(path.read_text().splitlines())}" in err)


def test_a_setting_that_the_table_lacks_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: make_table())
    err = refuse("reproduce", "table", "--setting=cpu", "--results=results", "--workdir=w")
    assert "'cpu'" in err and "smoke" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["sweep", "train", "reproduce"])
def test_two_commands_that_write_one_workdir_are_one_too_many(command, file, tmp_path, monkeypatch):
    table = make_table(Row("row", "diagonal"), columns=(Column("", str(file)),))
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: table)
    arguments = {
        "sweep": [f"--config={file}"],
        "train": [f"--config={file}", "--config.seeds=2"],
        "reproduce": ["table", "--setting=smoke", "--results=results"],
    }
    with locked_store(tmp_path / "w"):
        code, out, err = call(command, *arguments[command], "--workdir=w")
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("lrnn: another sweep") and "w" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["w", ".lock"]


def test_a_ray_address_that_is_none_is_one_line(file, tmp_path):
    pytest.importorskip("ray")
    command = ["sweep", f"--config={file}", "--executor=ray", "--ray_address=nonsense", "--workdir=w"]
    done = subprocess.run([sys.executable, "-m", "lrnn_jax", *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("lrnn: ") and "'nonsense'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_made_is_the_only_line(file, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write in --workdir=file/w" in refuse("sweep", f"--config={file}", "--workdir=file/w")


@pytest.mark.parametrize("command", ["sweep", "train", "reproduce"])
def test_a_runs_own_folder_is_no_folder_of_runs(command, file, tmp_path, monkeypatch):
    table = make_table(Row("row", "diagonal"), columns=(Column("", str(file)),))
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: table)
    arguments = {
        "sweep": [f"--config={file}"],
        "train": [f"--config={file}", "--config.seeds=2"],
        "reproduce": ["table", "--setting=smoke", "--results=results"],
    }
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.json").write_text("{}")
    err = refuse(command, *arguments[command], "--workdir=runs/x")
    assert "--workdir=runs/x" in err and "one run" in err and "such as runs\n" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "x", "config.json"]


def test_data_that_are_absent_are_missed_before_the_rows_ahead_of_them_are_trained(file, tmp_path, monkeypatch):
    text = Column("text", "configs/language_modeling.py", fields={"task.data": "absent.txt"})
    table = make_table(Row("row", "diagonal"), columns=(Column("bits", str(file)), text))
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: table)
    monkeypatch.setattr(reproduce, "execute", lambda *_, **__: pytest.fail("trained"))
    assert "absent.txt" in refuse("reproduce", "table", "--setting=smoke", "--results=results", "--workdir=w")
    assert list(tmp_path.iterdir()) == []


def test_a_tables_plan_trains_nothing_and_leaves_nothing(file, tmp_path, monkeypatch):
    table = make_table(Row("row", "diagonal"), columns=(Column("", str(file)),), seeds=2)
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: table)
    monkeypatch.setattr(reproduce, "execute", lambda *_, **__: pytest.fail("trained"))
    planned = lambda configs, *_, **__: [sweep.PlannedProgram(configs, 1.0, 2**20)]  # noqa: E731
    monkeypatch.setattr(reproduce, "plan", planned)
    lines = succeed("reproduce", "table", "--setting=smoke", "--plan", "--results=results", "--workdir=w").splitlines()
    assert "1 MiB" in lines[1] and "diagonal" in lines[1]
    assert lines[-1].startswith("2 of 2 runs to train") and lines[-1].endswith("nothing was trained")
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_tables_trains_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(reproduce, "execute", lambda *_, **__: pytest.fail("trained"))
    assert "grazzi2025_fig1" in succeed("reproduce", "--list")
    # beside a table's name the flag still only lists
    assert succeed(*FIGURE, "--setting=smoke", "--list") == succeed("reproduce", "--list")
    assert list(tmp_path.iterdir()) == []


# --- what they do --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(file, tmp_path_factory):
    """The store of a finished sweep, and what was printed."""
    store = tmp_path_factory.mktemp("store")
    return store, succeed("sweep", f"--config={file}", f"--workdir={store}")


def test_a_sweep_prints_one_row_per_run(store):
    folder, out = store
    header, *rows = out.splitlines()
    assert header.split()[:2] == ["run", "status"] and header.split()[-1] == "folder" and "accuracy" in header
    assert sorted(row.split()[-1] for row in rows) == sorted(path.parent.name for path in folder.glob("*/result.json"))
    assert sorted(row.split()[0] for row in rows) == [f"diagonal,lr=0.0{lr},seed={seed}" for lr in ("01", "1") for seed in "01"]
    assert len(rows) == 4 and all(row.split()[1] == "finished" for row in rows)


def test_a_sweep_that_is_finished_is_not_run_again(store, file, monkeypatch):
    monkeypatch.setattr(executors, "train_pack", lambda *_: pytest.fail("trained"))
    assert succeed("sweep", f"--config={file}", f"--workdir={store[0]}") == store[1]
    assert "nothing to do" in succeed("sweep", f"--config={file}", f"--workdir={store[0]}", "--plan")


def test_the_parts_of_a_sweep_are_the_sweep(store, file, tmp_path):
    outs = [succeed("sweep", f"--config={file}", "--workdir=w", f"--part={i}/2", "--executor=local") for i in (1, 2)]
    assert [len(out.splitlines()) for out in outs] == [3, 3]
    assert {p.parent.name for p in tmp_path.glob("w/*/result.json")} == {p.parent.name for p in store[0].glob("*/result.json")}


def test_a_plan_says_what_shapes_the_programs_and_writes_nothing(file, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_measure", lambda program: (3.0, 7.0, 2**20))
    monkeypatch.setattr(packs, "split_to_fit", lambda program: [program])
    code, out, err = call("sweep", f"--config={file}", "--sweep=widths", "--workdir=w", "--plan")
    assert code == 0
    assert "4 of 4 runs" in err and "2 programs" in err and "model.width" in err
    assert [line.split()[:6] for line in out.splitlines()[1:3]] == [[i, "2", "10", "s", "1", "MiB"] for i in "12"]
    assert "4 of 4 runs to train, about 20 s" in out and "nothing was trained" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_how_many_runs_are_equal_to_others(file, store, monkeypatch):
    monkeypatch.setattr(sweep, "_measure", lambda program: (3.0, 7.0, 2**20))
    monkeypatch.setattr(packs, "split_to_fit", lambda program: [program])
    out = succeed("sweep", f"--config={file}", "--sweep=equal", "--workdir=w", "--plan")
    assert "2 of 4 runs (2 of them equal to others) to train" in out
    assert "equal" not in succeed("sweep", f"--config={file}", "--workdir=w", "--plan")
    assert "equal" not in succeed("sweep", f"--config={file}", f"--workdir={store[0]}", "--plan")


def test_a_run_that_cannot_be_read_is_a_row_of_its_own(store, tmp_path):
    shutil.copytree(store[0], tmp_path / "copy")
    broken = next((tmp_path / "copy").glob("*/result.json"))
    broken.write_bytes(b"\x80")
    header, *rows = succeed("runs", "copy").splitlines()
    assert len(rows) == 4 and "reason" in header
    (row,) = (row for row in rows if row.startswith(broken.parent.name))
    assert row.split()[1:3] == ["unreadable", "result.json:"]
    assert "'high'" in refuse("runs", "copy", "--where=scaled_accuracy>=high")


def test_runs_reads_a_store_into_a_table(store):
    folder = str(store[0])
    rows = read_csv(succeed("runs", folder, "--columns=seed,optim.lr,loss", "--where=optim.lr>=0.01", "--sort=seed", "--csv"))
    assert [(row["seed"], row["optim.lr"]) for row in rows] == [("0", "0.01"), ("1", "0.01")]
    losses = {json.loads(file.read_text())["metrics"]["loss"] for file in store[0].glob("*/result.json")}
    assert {float(row["loss"]) for row in rows} < losses
    lines = succeed("runs", folder, "--where=seed=1", "--where=optim.lr<0.01").splitlines()
    assert len(lines) == 2 and lines[0].split()[:2] == ["run", "status"]
    assert len(succeed("runs", folder, "--where=seed=7").splitlines()) == 1


def test_runs_averages_over_seeds(store):
    losses = {0.001: [], 0.01: []}
    for file in store[0].glob("*/result.json"):
        lr = json.loads(file.with_name("config.json").read_text())["optim"]["lr"]
        losses[lr].append(json.loads(file.read_text())["metrics"]["loss"])
    for by in ("--by=", "--by=optim.lr"):
        rows = read_csv(succeed("runs", str(store[0]), by, "--sort=optim.lr", "--csv"))
        assert [(row["optim.lr"], row["runs"], row["finished"]) for row in rows] == [("0.001", "2", "2"), ("0.01", "2", "2")]
        for row, (a, b) in zip(rows, losses.values(), strict=True):
            assert float(row["loss"]) == pytest.approx((a + b) / 2)
            assert float(row["loss_sd"]) == pytest.approx(abs(a - b) / 2**0.5)
    code, out, err = call("runs", str(store[0]), "--by=task.name", "--columns=loss")
    assert code == 0 and "differ in more than the seed: optim.lr" in err
    assert out.splitlines()[0].split() == ["task.name", "runs", "finished", "loss", "loss_sd"] and len(out.splitlines()) == 2


def test_a_sweep_says_what_it_trains_by_what_differs_and_the_seeds(file):
    code, _, err = call("sweep", f"--config={file}", "--sweep=widths", "--workdir=w")
    assert code == 0
    assert "next: diagonal,width=4, seeds 0, 1  (0 of 4 runs done)" in err
    assert "next: diagonal,width=8, seeds 0, 1  (2 of 4 runs done, about 0:" in err and "left for all)" in err
    assert "[4/4] diagonal,width=8, seed 1  " in err


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--by=optim.rl", "did you mean 'optim.lr'"),
        ("--columns=seed,acuracy", "did you mean 'accuracy'"),
        ("--sort=sede", "did you mean 'seed'"),
        ("--where=optim.rl=1", "did you mean 'optim.lr'"),
        ("--where=seed", "FIELD=VALUE"),
    ],
)
def test_a_column_that_no_run_has_is_one_line(store, flag, said):
    assert said in refuse("runs", str(store[0]), flag)


def test_a_failed_run_is_told_with_its_reason_and_the_others_are_not_lost(file, monkeypatch):
    command = ("sweep", f"--config={file}", "--sweep=deadly", "--workdir=w")
    code, out, err = call(*command)
    assert code == 1 and err.splitlines()[-1].startswith("lrnn: 1 of 2 runs failed")
    assert sorted(line.split()[1] for line in out.splitlines()[1:]) == ["failed", "finished"]
    assert "not finite" in next(line for line in out.splitlines() if " failed " in line)
    (row,) = read_csv(succeed("runs", "w", "--where=status=failed", "--columns=seed,reason", "--csv"))
    assert row["seed"] == "1" and "not finite" in row["reason"]
    # left alone, unless asked for
    monkeypatch.setattr(executors, "train_pack", lambda program, _: pytest.fail(f"trained {program.config.seed}"))
    assert call(*command)[0] == 1
    with pytest.raises(pytest.fail.Exception, match="trained 1"):
        call(*command, "--retry_failed")


def test_a_table_that_is_complete_is_not_trained_again(file, tmp_path, monkeypatch):
    rows = (Row("easy", "diagonal", {"": Published(1.0, "Table 1")}), Row("hard", "diagonal", fields={"optim.lr": 0.5}))
    table = make_table(*rows, columns=(Column("", str(file)),), seeds=2)
    monkeypatch.setattr(reproduce, "load_experiment", lambda _: table)
    command = ("reproduce", "table", "--setting=smoke", "--results=results", "--workdir=w")
    folder, records = tmp_path / "results" / "table" / "smoke", tmp_path / "results" / "runs"
    part = succeed(*command, "--cells=easy")
    assert "| hard |  | missing |" in part and len(list(records.iterdir())) == 2
    code, out, err = call(*command)
    assert code == 0 and "2 of 4 runs are there already" in err
    assert "next: hard (diagonal), seeds 0, 1  (2 of 4 runs done)" in err and "[4/4] hard (diagonal), seed 1  " in err
    assert "| easy |" in out and "| hard |" in out and "missing" not in out and "stale" not in out
    assert len(list(records.iterdir())) == 4 and {p.name for p in folder.iterdir()} == {"table.md", "table.csv", "plot.png"}
    texts = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}
    monkeypatch.setattr(executors, "train_pack", lambda *_: pytest.fail("trained"))
    # the last one as after a clone: records, but none of their runs
    elsewhere = (*command[:-1], "--workdir=elsewhere")
    for again in (succeed(*command), succeed(*command, "--render"), succeed(*elsewhere, "--missing")):
        assert again.splitlines()[:-1] == out.splitlines()[:-1]
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"} == texts
    next(records.iterdir()).unlink()
    with pytest.raises(pytest.fail.Exception, match="trained"):
        call(*elsewhere, "--missing")
