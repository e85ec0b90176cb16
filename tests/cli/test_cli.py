"""The command ``lrnn``, in process: what it prints, what it refuses in one line, and a whole small run."""

import json
import shutil

import pytest

from helpers import call, refuse, succeed
from lrnn_jax import __version__
from lrnn_jax.cli.main import COMMANDS
from lrnn_jax.registry import LAYERS, TASKS

PARITY = "--config=configs/parity.py"
SMALL = [
    "--config=configs/parity.py:diagonal",
    "--config.train.duration=6 steps",
    "--config.train.length=[3,8]",
    "--config.train.steps_per_dispatch=2",
    "--config.eval.examples=8",
    "--config.eval.batch_size=8",
    "--config.eval.lengths=[[40,64]]",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands work from any folder, and tests leave nothing in the checkout."""
    monkeypatch.chdir(tmp_path)


# --- help and lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(arguments):
    out = succeed(*arguments)
    for name, command in COMMANDS.items():
        assert any(line.split()[:1] == [name] and command.summary in line for line in out.splitlines())


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("train", ["--config", "--workdir"]),
        ("eval", ["--workdir", "--checkpoint", "--lengths", "--examples"]),
        ("generate", ["--workdir", "--prompt", "--tokens", "--temperature", "--top_k", "--top_p", "--seed"]),
        ("spectra", ["--workdir", "--checkpoint", "--examples", "--length"]),
        ("reproduce", ["--setting", "--layer"]),
        ("report", ["--out"]),
        ("bench", ["--family", "--layer", "--method", "--batch", "--length", "--width", "--block_size", "--rounds", "--out"]),
        ("data", ["--data_dir", "--seed", "--examples", "--processes", "--archive", "--split", "--index", "--count", "--out"]),
        ("list", []),
    ],
)
def test_help_of_a_command_names_its_flags(command, flags):
    out = succeed(command, "--help")
    assert out.startswith(f"lrnn {command}")
    for flag in flags:
        assert flag in out
    assert succeed(command, "something", "-h") == out


def test_every_command_has_help():
    for command in COMMANDS:
        assert COMMANDS[command].summary in succeed(command, "--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_one_line_and_at_most_one_default_per_flag(command):
    lines = succeed(command, "--help").splitlines()[4:]
    assert [line for line in lines if not line.startswith("  --") or line.count("(default: ") > 1 or "[]" in line] == []


def test_version():
    assert succeed("--version").strip() == __version__


@pytest.mark.parametrize(
    ("what", "header", "names"),
    [
        ("layers", ["layer", "methods", "source"], list(LAYERS)),
        ("tasks", ["task", "lengths", "what"], list(TASKS)),
        ("configs", ["config", "settings", "what"], ["configs/parity.py"]),
        ("tables", ["table", "what"], []),
    ],
)
def test_list_prints_a_table_with_a_header(what, header, names):
    lines = succeed("list", what).splitlines()
    assert lines[0].split() == header
    first = [line.split()[0] for line in lines[1:]]
    assert set(names) <= set(first)
    assert len(first) == len(set(first))


def test_list_verbose_writes_the_sizes_out_over_the_width():
    lines = {
        line.split()[0]: " ".join(line.split()) for line in succeed("list", "layers", "--verbose", "--width=64").splitlines()
    }
    assert "sequential, associative lru, ring, stable_exp, exp, real_imag Orvieto" in lines["lru"]
    assert "33,024 = 8 D^2 + 4 D 128 = 2 D sequential" in lines["lstm"]  # 4 gates of two matrices and one bias
    assert "64 = D sequential, associative" in lines["diagonal"]
    assert 40_464 == 6 * 72**2 + 4 * 72 * 5 + 110 * 72  # Mamba's rank is rounded up there
    assert "40,464 = 6 D^2 + 4 D rank + 110 D" in " ".join(succeed("list", "layers", "--verbose", "--width=72").split())
    ranks, count = 3 * 32, int(lines["rwkv7"].split()[1].replace(",", ""))  # half of D at most
    assert "= 4 D^2 + 2 D (rank_w + rank_a + rank_g) + 13 D" in lines["rwkv7"]  # they are rounded: no polynomial
    assert count == 4 * 64**2 + 2 * 64 * ranks + 13 * 64


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], ["'trian'", "did you mean 'train'"]),
        (["--config=configs/parity.py"], ["unknown command"]),
        (["xyzzy"], [", ".join(COMMANDS)]),
        # train: the config file
        (["train"], ["--config=FILE"]),
        (["train", "--config"], ["config"]),
        (["train", "--config="], ["config"]),
        (["train", "--config=configs/partiy.py"], ["did you mean 'configs/parity.py'"]),
        (["train", "--config", "configs/partiy.py"], ["did you mean 'configs/parity.py'"]),
        (["train", "--config=configs/parity.py:dellanet"], ["'dellanet'", "did you mean 'deltanet'"]),
        (["train", "--config=configs/parity.py:setting=smok"], ["'setting=smok'", "did you mean 'smoke'"]),
        (["train", "--config=configs/parity.py:settign=cpu"], ["'settign'", "did you mean 'setting'"]),
        (["train", "--config=configs/parity.py:mamba/postive"], ["'mamba/postive'", "did you mean 'positive'"]),
        (["train", "--config=configs/parity.py:lstm/positive"], ["'lstm/positive'", "no variants"]),
        # train: the overrides
        (["train", PARITY, "--config.modle.width=3"], ["'modle'", "did you mean 'model'"]),
        (["train", PARITY, "--config.model.widht=3"], ["'model.widht'", "did you mean 'width'"]),
        (["train", PARITY, "--config.model.widht", "3"], ["'model.widht'", "did you mean 'width'"]),
        (["train", PARITY, "--config.task.modulus=3"], ["'task.modulus'"]),
        (["train", PARITY, "--config.model.layer.haeds=2"], ["'model.layer.haeds'", "did you mean 'heads'"]),
        (["train", PARITY, "--config.model.width.x=2"], ["'model.width'"]),
        (["train", PARITY, "--noconfig.model.residul"], ["'model.residul'", "did you mean 'residual'"]),
        (["train", "--config.modle.width=3"], ["'modle'", "did you mean 'model'"]),
        (["train", "--config.model.width=3"], ["--config=FILE"]),
        (["train", "--config.model.width=3", "--config=configs/partiy.py"], ["did you mean 'configs/parity.py'"]),
        (["train", PARITY, "--config.train.batch_size=abc"], ["batch_size", "abc"]),
        (["train", PARITY, "--config.train.batch_size=1.5"], ["batch_size", "1.5"]),
        (["train", PARITY, "--config.optim.lr=fast"], ["lr", "fast"]),
        (["train", PARITY, "--config.model.residual=perhaps"], ["residual", "perhaps"]),
        (["train", PARITY, "--config.train.length=3"], ["train.length", "3"]),
        (["train", PARITY, "--config.train.length=[3,"], ["train.length", "[3,"]),
        (["train", PARITY, "--config.train.length=[3]"], ["train.length", "[3]"]),
        (["train", PARITY, "--config.train.length=[3,100000]"], ["train.length", "16384"]),
        (["train", PARITY, "--config.eval.lengths=[3,8]"], ["eval.lengths"]),
        (["train", PARITY, "--config.eval.headline=[1,2]"], ["eval.headline"]),
        (["train", PARITY, "--config.train.duration=10 stesp"], ["train.duration", "did you mean 'steps'"]),
        (["train", PARITY, "--config.model.norm=layernrm"], ["model.norm", "did you mean 'layernorm'"]),
        (["train", PARITY, "--config.model.layer.name=lruu"], ["'lruu'", "did you mean 'lru'"]),
        (["train", PARITY, "--config.model.layer.name=nowhere:Layer"], ["'nowhere:Layer'", "cannot import 'nowhere'"]),
        (["train", PARITY, "--config.model.layer.name=json:Layer"], ["'json:Layer'", "no class 'Layer'"]),
        (
            ["train", PARITY, "--config.model.layer.name=json:JSONDecoder"],
            ["lacks the base class"],
        ),
        (["train", PARITY, "--config.task.name=json:JSONDecoder"], ["lacks the base class"]),
        (["train", PARITY, "--config.model.layer.name=lru", "--config.model.layer.heads=2"], ["'model.layer.heads'"]),
        (["train", PARITY, "--config.task.name=parrity"], ["did you mean 'parity'"]),
        (["train", PARITY, "--config.optim.groups=[['nosuch',1,1]]"], ["optim.groups", "nosuch"]),
        (["train", PARITY, "--config.seed=-1"], ["seed"]),
        # flags and arguments
        (["train", PARITY, "--wrokdir=x"], ["--wrokdir", "did you mean 'workdir'"]),
        (["train", "--wrokdir=x"], ["--wrokdir", "did you mean 'workdir'"]),
        (["train", PARITY, "--workdir"], ["workdir"]),
        (["train", PARITY, "garbage"], ["'garbage'"]),
        (["train", "configs/parity.py"], ["'configs/parity.py'"]),
        (["eval"], ["--workdir"]),
        (["eval", "--workdir=nowhere"], ["nowhere", "not a run"]),
        (["eval", "--workdir=x", "--lenghts=3-4"], ["--lenghts", "did you mean 'lengths'"]),
        (["eval", "--workdir=x", "--checkpoint=bets"], ["bets", "best"]),
        (["eval", "--workdir=x", "--examples=0"], ["examples", "0"]),
        (["eval", "--workdir=x", "--examples=many"], ["examples", "many"]),
        (["eval", "--workdir=x", "--lengths=long"], ["--lengths", "'long'"]),
        (["eval", "--workdir=x", "garbage"], ["'garbage'"]),
        (["spectra"], ["--workdir"]),
        (["spectra", "--workdir=nowhere"], ["nowhere", "not a run"]),
        (["spectra", "--workdir=x", "--checkpoint=bets"], ["bets", "best"]),
        (["spectra", "--workdir=x", "--examples=0"], ["examples", "0"]),
        (["spectra", "--workdir=x", "--length=0"], ["length", "0"]),
        (["spectra", "--workdir=x", "garbage"], ["'garbage'"]),
        (["list"], ["layers, tasks, configs, tables"]),
        (["list", "nonsense"], ["'nonsense'", "layers, tasks, configs, tables"]),
        (["list", "layer"], ["did you mean 'layers'"]),
        (["list", "layers", "tasks"], ["needs one"]),
        (["list", "layers", "--verbos"], ["--verbos", "did you mean 'verbose'"]),
        (["list", "tasks", "--verbose"], ["--verbose", "layers"]),
        (["list", "layers", "--width=64"], ["--width", "lrnn list layers --verbose"]),
        (["list", "tables", "--width=3"], ["--width", "lrnn list layers --verbose"]),
        (["list", "layers", "--verbose", "--width=10"], ["heads=4", "width=10"]),
        (["reproduce"], ["needs one TABLE"]),
        (["reproduce", "nonsense"], ["nonsense"]),
        (["reproduce", "nonsense", "--setitng=cpu"], ["--setitng", "did you mean 'setting'"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value, list) and value[0] in [*COMMANDS, "trian"] else "",
)
def test_a_mistake_is_one_line_that_names_it(arguments, said, tmp_path):
    err = refuse(*arguments)
    for part in said:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "--workdir=file/run" in refuse("train", *SMALL, "--workdir=file/run")


@pytest.mark.parametrize("command", ["eval", "generate", "spectra"])
@pytest.mark.parametrize(
    ("text", "said"), [("{", "not a run"), ("{}", "'task'"), ('{"task": {"name": "parrity"}}', "'parity'")]
)
def test_a_folder_with_a_broken_config_is_no_run(tmp_path, command, text, said):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    assert said in refuse(command, "--workdir=run")


# --- a whole run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its folder, and what the command printed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, out, err = call("train", *SMALL, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out, err


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished[0], tmp_path / "run")


def metrics_of(out):
    """Printed metrics as {row: {column: text}}."""
    rows = [line.split() for line in out.split("\n\n")[0].splitlines()]
    assert rows[0][0] == "lengths"
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[1:]}


def test_train_writes_the_resolved_config(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert config["train"]["duration"] == "6 steps"
    assert config["train"]["length"] == [3, 8]
    assert config["eval"]["lengths"] == [[40, 64]]
    assert config["model"]["layer"]["name"] == "diagonal"


def test_train_writes_metrics_line_by_line(finished):
    lines = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    assert all({"step", "split", "loss", "accuracy"} <= line.keys() for line in lines)
    assert {line["split"] for line in lines} == {"train", "validation", "test"}
    for split in ("train", "validation"):
        steps = [line["step"] for line in lines if line["split"] == split]
        assert steps == sorted(set(steps))
        assert steps[-1] == 6
    assert [line["step"] for line in lines if line["split"] == "test"] == [6]


def test_train_writes_its_result(finished):
    result = json.loads((finished[0] / "result.json").read_text())
    assert result["status"] == "finished"
    assert (result["task"], result["layer"], result["seed"], result["steps"]) == ("parity", "diagonal", 0, 6)
    assert len(result["params_sha256"]) == 64
    assert {"python", "jax", "flax", "optax", "numpy"} <= result["versions"].keys()
    assert "cpu" in result["device"]
    assert result["wall_time_s"] > 0
    assert result["git_commit"] is None or len(result["git_commit"].rstrip("+")) == 40
    assert result["parameter_count"] > 100
    assert {"accuracy", "scaled_accuracy", "loss", "accuracy/40-64", "scaled_accuracy/40-64"} <= result["metrics"].keys()
    assert result["best"]["metrics"].keys() == result["metrics"].keys()


def test_train_prints_headline_and_buckets(finished):
    workdir, out, err = finished
    metrics = json.loads((workdir / "result.json").read_text())["metrics"]
    printed = metrics_of(out)
    assert list(printed) == ["headline", "40-64"]
    assert printed["headline"] == {name: f"{value:.4f}" for name, value in metrics.items() if "/" not in name}
    assert str(workdir / "result.json") in out
    # progress and the table of parameter groups go to standard error
    assert "lr x" in err
    assert "validation" in err


def test_a_finished_run_is_not_trained_again(run, finished):
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir() if file.is_file() and file.name != ".lock"}
    code, out, err = call("train", *SMALL, f"--workdir={run}")
    assert code == 0, err
    assert "nothing to do" in err
    assert metrics_of(out) == metrics_of(finished[1])
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir() if file.name in before} == before


def test_logging_may_change_in_a_finished_run(run, finished):
    assert metrics_of(succeed("train", *SMALL, f"--workdir={run}", "--config.log.every=1 steps")) == metrics_of(finished[1])


def test_another_config_in_the_same_workdir_is_refused(run):
    err = refuse("train", *SMALL, f"--workdir={run}", "--config.optim.lr=0.5")
    assert "optim.lr: 0.5 -> " in err
    assert "another --workdir" in err


def test_config_after_a_space_means_the_same(run, finished):
    file = SMALL[0].removeprefix("--config=")
    out = succeed("train", f"--workdir={run}", "--config", file, *SMALL[1:])
    assert metrics_of(out) == metrics_of(finished[1])


def test_an_override_after_a_space_is_an_override(run):
    assert "optim.lr: 0.5 -> " in refuse("train", *SMALL, "--config.optim.lr", "0.5", "--workdir", str(run))


def test_eval_prints_the_metrics_of_the_result(run, finished):
    out = succeed("eval", f"--workdir={run}")
    assert metrics_of(out) == metrics_of(finished[1])
    assert "last checkpoint, step 6" in out


def test_eval_at_other_lengths(run):
    out = succeed("eval", f"--workdir={run}", "--lengths=8-8", "--examples=16")
    assert list(metrics_of(out)) == ["headline", "8-8"]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--lengths=100000-100000", "--lengths=[100000, 100000]"),
        ("--lengths=9-8", "--lengths=[9, 8]"),
        ("--lengths=0-8", "--lengths=[0, 8]"),
        ("--lengths=8-16,12-24", "--lengths: [8, 16] and [12, 24] overlap"),
    ],
)
def test_eval_refuses_what_cannot_be_measured_by_the_flag_that_was_written(run, flag, said):
    err = refuse("eval", f"--workdir={run}", flag)
    assert said in err and "eval.lengths" not in err and "eval.examples" not in err


def test_eval_of_the_best_checkpoint(run):
    result = json.loads((run / "result.json").read_text())
    out = succeed("eval", f"--workdir={run}", "--checkpoint=best")
    assert f"best checkpoint, step {result['best']['step']}" in out
    assert metrics_of(out)["headline"]["accuracy"] == f"{result['best']['metrics']['accuracy']:.4f}"


def test_eval_without_checkpoints_is_refused(run):
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in refuse("eval", f"--workdir={run}")


def test_the_default_workdir_is_named_by_the_hash(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    (tmp_path / "runs").mkdir()
    run.rename(tmp_path / "runs" / result["config_hash"])
    assert f"runs/{result['config_hash']}/result.json" in succeed("train", *SMALL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--results=x"], "unknown flag --results; usage: lrnn report [DIR] [--out=FILE] (lrnn report --help)"),
        (["runs", "x", "--sorted=y"], "unknown flag --sorted; did you mean 'sort'? (lrnn runs --help)"),
        ([*SMALL, "--config.train.duration=20 steps", "--config.log.profile=100:200"], "from 0 to 20, such as '10:20'"),
        (
            ["spectra", "--workdir=nope"],
            "lrnn: nope is not a run: there is no config.json in it; `lrnn train` or lrnn_jax.train",
        ),
        (["reproduce", "grazzi2025_fig1", "--cells=zzz"], "; * stands for any letters, ? for one"),
    ],
)
def test_a_refusal_says_what_to_write(arguments, said, tmp_path):
    assert said in refuse(*(["train", *arguments] if arguments[0].startswith("--") else arguments))
    assert not list(tmp_path.iterdir())


def test_help_says_that_subfolders_are_left_out():
    assert "not of its subfolders" in succeed("runs", "--help")
