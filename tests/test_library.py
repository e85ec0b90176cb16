"""The library: names on first use, a trained run in one's own hands, weights out and in."""

import ast
import json
import subprocess
import sys
import threading
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

import lrnn_jax
from helpers import refuse, succeed
from lrnn_jax import registry
from lrnn_jax.config.identity import config_hash
from lrnn_jax.runs.parameters import hash_params, parameter_paths
from lrnn_jax.runs.results import Result

ROOT = Path(__file__).parents[1]
# one block with BatchNorm, so that statistics travel as well
TINY = {
    "model.width": 8,
    "model.depth": 1,
    "model.norm": "batchnorm",
    "train.batch_size": 8,
    "train.length": [3, 8],
    "train.duration": "20 steps",
    "train.steps_per_dispatch": 10,
    "eval.lengths": [[8, 8]],
    "eval.headline": [8, 8],
    "eval.examples": 8,
    "eval.best_metric": "loss",
    "eval.every": "10 steps",
}
TOKENS = np.random.default_rng(0).integers(1, 3, (2, 6))


def tiny_config(**fields):
    paths = {name.replace("__", "."): value for name, value in fields.items()}
    return lrnn_jax.get_config("configs/parity.py:diagonal,smoke", {**TINY, **paths})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library") / "run"
    return lrnn_jax.train(tiny_config(), str(folder)), folder


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_layer_and_task_has_its_class_by_name():
    for name in registry.LAYERS:
        cls = registry.load_layer(name)
        assert getattr(lrnn_jax, cls.__name__) is cls
    for name in registry.TASKS:
        cls = registry.load_task(name)
        assert getattr(lrnn_jax, cls.__name__) is cls
    assert len(lrnn_jax._places()) == len(registry.LAYERS) + len(registry.TASKS) + len(lrnn_jax._NAMES)


def test_every_other_name_is_there_and_typed():
    for name in lrnn_jax._NAMES:
        assert getattr(lrnn_jax, name) is not None
    assert set(lrnn_jax._places()) < set(dir(lrnn_jax))
    tree = ast.parse(Path(lrnn_jax.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    shown = {alias.asname: f"{node.module}:{alias.name}" for node in typed.body for alias in node.names}
    assert shown.pop(None) == "lrnn_jax.scans:*"
    assert shown == {name: place.replace("lrnn_jax.scans", "lrnn_jax:scans") for name, place in lrnn_jax._NAMES.items()}
    assert typing.get_type_hints(lrnn_jax.train)["return"] is Result


def test_every_scan_can_be_had_from_the_package():
    from lrnn_jax import scan_diagonal

    assert scan_diagonal is lrnn_jax.scans.scan_diagonal
    assert all(getattr(lrnn_jax, name) is getattr(lrnn_jax.scans, name) for name in lrnn_jax.scans.__all__)
    assert not hasattr(lrnn_jax, "scan_nothing") and not hasattr(lrnn_jax, "scanning")


def test_a_name_that_is_not_there_says_the_nearest():
    with pytest.raises(AttributeError, match="no attribute 'DeltaNett'; did you mean 'DeltaNet'"):
        lrnn_jax.DeltaNett  # noqa: B018 - the access is the test


def test_our_own_files_import_from_where_things_are():
    """Not by the names of the package: those know every room."""
    lazy = {name for name, place in lrnn_jax._places().items() if ":" in place}
    for file in (ROOT / "lrnn_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "lrnn_jax" and file.parent != ROOT / "lrnn_jax":
                assert not lazy & {alias.name for alias in node.names}, file


def test_importing_the_package_takes_a_tenth_of_a_second_and_no_jax():
    program = (
        "import sys, time\nbegan = time.perf_counter()\nimport lrnn_jax\ntook = time.perf_counter() - began\n"
        "dir(lrnn_jax)\nprint(took, 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in range(3)]
    times, *heavy = zip(*(done.stdout.split() for done in said), strict=True)
    assert {*heavy[0], *heavy[1]} == {"False"}
    assert min(map(float, times)) < 0.1


def test_the_wheel_ships_the_marker_of_types_and_what_the_package_finds():
    from hatchling.builders.wheel import WheelBuilder

    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    needed = {"lrnn_jax/py.typed", "lrnn_jax/__init__.py", "lrnn_jax/configs/parity.py", "lrnn_jax/experiments/mad.py"}
    assert needed <= shipped
    assert not [path for path in shipped if path.startswith(("tests", "scripts"))]


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_loaded_run_computes_what_the_trainer_had(trained):
    result, folder = trained
    run = lrnn_jax.load_run(str(folder))
    assert (run.steps, hash_params(run.params)) == (20, result["params_sha256"])
    assert run.config.model.width == 8 and run.task == lrnn_jax.Parity()
    best = lrnn_jax.load_run(folder, which="best")
    assert best.steps == result["best"]["step"]
    outputs, _ = run.apply(TOKENS)
    expected, _ = run.model.apply(run.variables, jnp.asarray(TOKENS, jnp.int32))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_token_by_token_is_the_whole_row(trained):
    run = lrnn_jax.load_run(trained[1])
    states = None
    for t in range(TOKENS.shape[1]):
        output, states = run.apply(TOKENS[:, t : t + 1], states=states)
    whole, last = run.apply(TOKENS.tolist())
    np.testing.assert_allclose(output, whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), states, last)


def test_a_loop_of_ones_own_goes_on_from_a_run(trained):
    run = lrnn_jax.load_run(trained[1])
    optimizer = optax.adam(1e-2)

    def lose(params, batch):
        outputs, _ = run.model.apply({**run.variables, "params": params}, batch.inputs, lengths=batch.lengths)
        total, weight = run.task.loss(outputs, batch)
        return total / weight

    @jax.jit
    def step(params, moments, key):
        loss, grads = jax.value_and_grad(lose)(params, run.task.batch(key, 16, (3, 8)))
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    params, moments, losses = run.params, jax.jit(optimizer.init)(run.params), []
    for _ in range(30):
        params, moments, loss = step(params, moments, jax.random.key(0))
        losses.append(float(loss))
    assert losses[-1] < 0.9 * losses[0]


def test_a_run_is_evaluated_from_python(trained):
    result, folder = trained
    assert lrnn_jax.evaluate_run(str(folder))["metrics"] == result["metrics"]
    assert lrnn_jax.evaluate_run(folder, which="best")["metrics"] == result["best"]["metrics"]
    with pytest.raises(ValueError, match=r"^lengths=\[9, 8\]: lengths must run from shortest to longest"):
        lrnn_jax.evaluate_run(folder, lengths=[[9, 8]])


@pytest.mark.parametrize(
    ("inputs", "how", "said"),
    [
        ([1, 2], {}, r"inputs: shape \(2,\) has no batch axis"),
        ([[1, 3]], {}, r"inputs: tokens 1..3 are not within 0..2"),
        ([[1.0, 2.0]], {}, "inputs: dtype float64 is not an integer"),
        ([[1, 2], [1]], {}, "inputs: rows differ in length; pad them to the longest, and give lengths="),
        ([[]], {}, r"inputs: shape \(1, 0\) holds no position"),
        ([[1, 2]], {"lengths": [5]}, r"lengths: 5..5 are not within 1..2"),
        ([[1, 2]], {"lengths": [1, 2]}, r"lengths: int64\[2\] are not integers \[1\], one for each row"),
        ([[1, 2]], {"lengths": [1.0]}, r"lengths: float64\[1\] are not integers \[1\]"),
        ([[1, 2]], {"states": ()}, "states: 0 of them for 1 blocks"),
    ],
)
def test_what_a_run_cannot_read_is_refused(trained, inputs, how, said):
    with pytest.raises(ValueError, match=said):
        lrnn_jax.load_run(trained[1]).apply(inputs, **how)


def test_what_is_no_run_is_refused_in_one_line(trained, tmp_path):
    for workdir, how, said in (
        (trained[1].parent, {}, r"is a folder of runs, not one of them: take '.*run'"),
        (tmp_path, {}, "is not a run: there is no config.json in it; `lrnn train` or lrnn_jax.train makes one"),
        (trained[1], {"which": "newest"}, "which='newest' must be 'last' or 'best'"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            lrnn_jax.load_run(workdir, **how)
        assert "\n" not in str(caught.value)


def test_train_takes_a_config_and_no_name_of_one():
    with pytest.raises(
        ValueError, match=r"^config: str 'configs/parity.py' is no config; lrnn_jax.get_config\(FILE\) reads one$"
    ):
        lrnn_jax.train("configs/parity.py")


def test_train_takes_one_run_and_a_default_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="seeds=3: train takes one run"):
        lrnn_jax.train(tiny_config(seeds=3))
    assert not list(tmp_path.iterdir())
    # a thread other than the main one has no signals
    config, results = tiny_config(), []
    thread = threading.Thread(target=lambda: results.append(lrnn_jax.train(config)))
    thread.start()
    thread.join()
    assert results[0]["params_sha256"] == trained[0]["params_sha256"]
    assert Path("runs", config_hash(config), "result.json").is_file()


# --- weights out and in ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(trained):
    out = trained[1].parent / "out"
    said = succeed("export", f"--workdir={trained[1]}", f"--out={out}")
    assert "last checkpoint, step 20" in said
    return out


def test_an_exported_folder_holds_every_array_by_its_path(trained, exported):
    run = lrnn_jax.load_run(trained[1])
    assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.safetensors"]
    assert len({path.stat().st_mode for path in (*exported.iterdir(), trained[1] / "config.json")}) == 1
    arrays = load_file(exported / "model.safetensors")
    assert list(arrays) == sorted(parameter_paths(run.variables))
    assert arrays["params/embed/embedding"].shape == (3, 8) and "batch_stats/norm/mean" in arrays
    assert json.loads((exported / "config.json").read_text()) == json.loads((trained[1] / "config.json").read_text())


def test_an_exported_folder_is_the_run_bit_for_bit(trained, exported):
    ours, theirs = lrnn_jax.load_run(exported), lrnn_jax.load_run(trained[1])
    assert ours.steps == theirs.steps
    assert hash_params(ours.variables) == hash_params(theirs.variables)
    np.testing.assert_array_equal(ours.apply(TOKENS)[0], theirs.apply(TOKENS)[0])


@pytest.mark.parametrize("source", ["run", "out"])
def test_a_fresh_run_begins_with_the_parameters_that_it_is_given(trained, exported, tmp_path, source):
    config = tiny_config(train__init_from=str(trained[1].parent / source), optim__lr=0.0, optim__final_lr=0.0, seed=5)
    config.model.norm_momentum = 0.0
    result = lrnn_jax.train(config, tmp_path / "run")
    # nothing is learned at a learning rate of zero
    assert result["params_sha256"] == trained[0]["params_sha256"]


def test_members_begin_alike_each_with_its_own_copy(trained, exported):
    from lrnn_jax.config.identity import split_seeds
    from lrnn_jax.training.program import make_program

    program = make_program(*split_seeds(tiny_config(train__init_from=str(exported), seeds=2)))
    state = program.init()
    for i in range(2):
        assert hash_params(jax.tree.map(lambda x, i=i: np.asarray(x)[i], state.variables)) == hash_params(
            lrnn_jax.load_run(exported).variables
        )


def test_an_empty_init_from_renames_no_run(trained):
    config = tiny_config()
    old = json.loads((trained[1] / "config.json").read_text())
    del old["train"]["init_from"]
    assert config_hash(old) == config_hash(config) != config_hash(tiny_config(train__init_from="x"))


def test_parameters_that_do_not_fit_are_named_and_nothing_is_written(exported, tmp_path):
    flags = [f"--config.{path}={value}" for path, value in TINY.items()]
    begin = ["train", "--config=configs/parity.py:diagonal,smoke", *flags, f"--workdir={tmp_path / 'run'}"]
    begin.append(f"--config.train.init_from={exported}")
    said = refuse(*begin, "--config.model.width=4")
    assert f"train.init_from={exported} does not fit this model" in said
    assert "params/block_0/" in said and "there and float32[" in said and "more" in said
    said = refuse(*begin, "--config.model.norm=layernorm")
    assert "params/block_0/norm" not in said and "is float32[8] there and absent here" in said
    nowhere = tmp_path / "nowhere"
    said = refuse(*begin, f"--config.train.init_from={nowhere}")
    assert said.startswith(f"lrnn: train.init_from: {nowhere} is not a run: there is no config.json in it; `lrnn train` or")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_exported_is_refused(trained, exported, tmp_path):
    assert "needs --workdir=RUN and --out=DIR" in refuse("export", f"--workdir={trained[1]}")
    assert "not empty; choose another" in refuse("export", f"--workdir={trained[1]}", f"--out={exported}")
    assert "is not a run" in refuse("export", f"--workdir={tmp_path}", f"--out={tmp_path / 'x'}")
    (tmp_path / "file").write_text("")
    assert "cannot write in" in refuse("export", f"--workdir={trained[1]}", f"--out={tmp_path / 'file' / 'x'}")


def test_a_damaged_export_is_noticed(exported, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in exported.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged: .*; export the run again"):
            lrnn_jax.load_run(copy)
    # of another program, without a digest
    save_file(load_file(exported / "model.safetensors"), file)
    assert lrnn_jax.load_run(copy).steps == 0


def test_without_the_extra_the_message_says_how_to_get_it(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[export\]'"):
        lrnn_jax.load_run(exported)
