"""Runs that read files: their position is their step, so that kills, members and other orders of reading change nothing."""

import contextlib
import io
import itertools
import json
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.cli.main import main
from lrnn_jax.config.files import load_own_config
from lrnn_jax.config.identity import split_seeds
from lrnn_jax.data.packing import load_corpus
from lrnn_jax.errors import UserError
from lrnn_jax.registry import build_model, build_task
from lrnn_jax.sweeps.sweep import plan
from lrnn_jax.training.loop import train, train_members
from lrnn_jax.training.program import make_program, take_member
from lrnn_jax.training.steps import stream_key

SMALL = {
    "train.duration": "20 steps",
    "train.batch_size": 4,
    "train.length": [16, 16],
    "train.steps_per_dispatch": 5,
    "eval.every": "10 steps",
    "eval.lengths": [[16, 16], [32, 32]],
    "eval.headline": [16, 32],
    "eval.examples": 8,
    "eval.batch_size": 4,
    "checkpoint.every": "10 steps",
    "log.every": "10 steps",
    "model.width": 8,
    "optim.eps": 1e-3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "words.jsonl"
    moment = random.Random(0)
    texts = [" ".join(moment.choice(["one", "two", "three"]) for _ in range(moment.randint(3, 40))) for _ in range(300)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def tiny_config(data, arg="diagonal", **fields):
    config = load_own_config(f"configs/language_modeling.py:{arg},smoke").unlock()
    config.update_from_flattened_dict({**SMALL, "task.data": str(data), **fields})
    return config.lock()


def arguments(data, *more):
    fields = {**SMALL, "task.data": str(data)}
    return [
        "--config=configs/language_modeling.py:diagonal,smoke",
        *(f"--config.{k}={v}" for k, v in fields.items()),
        *more,
    ]


def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return code, out.getvalue(), err.getvalue()


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- the feed ------------------------------------------------------------------------------------------------------


def test_what_is_read_ahead_is_what_is_read_on_demand(data):
    feed, other = make_program(tiny_config(data)).feed, make_program(tiny_config(data)).feed
    ahead = [feed.take(0, 5, following=5), feed.take(5, 5, following=3), feed.take(10, 2), feed.take(0, 1)]
    assert_same(ahead, [other.take(0, 5), other.take(5, 5), other.take(10, 2), other.take(0, 1)])
    assert_same(jax.tree.map(lambda x: x[3], ahead[1]), other.batch_at(0, 8))


def test_members_read_what_each_alone_would(data):
    configs = split_seeds(tiny_config(data, seeds=3, seed=5))
    together = make_program(*configs).feed.take(7, 4)
    calls = configs[0].train.steps_per_dispatch
    assert together.inputs.shape == (3, calls, 4, 16)
    # a call of fewer steps has the shape of the largest, and looks at what it needs
    np.testing.assert_array_equal(together.inputs[:, 4:], np.repeat(together.inputs[:, 3:4], calls - 4, axis=1))
    for i, config in enumerate(configs):
        assert_same(take_member(together, i, 3), make_program(config).feed.take(7, 4))
    assert together.inputs[0].tolist() != together.inputs[1].tolist()


def test_microbatches_of_packed_rows_make_the_whole_batches_gradients(data):
    def gradients(count):
        program = make_program(tiny_config(data, **{"train.microbatches": count}))
        step, batch = program.step, jax.tree.map(jnp.asarray, program.feed.batch_at(0, 3))
        assert batch.reset.any()
        state = program.init()
        key = stream_key(0, "dropout")
        return jax.jit(step.value_and_grad)(state.params, program.hyper, state.batch_stats, key, batch)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), gradients(1), gradients(2))


def test_members_end_as_runs_of_their_own(data, tmp_path):
    configs = split_seeds(tiny_config(data, seeds=2, seed=1))
    folders = [tmp_path / str(config.seed) for config in configs]
    together = train_members(make_program(*configs), folders, tmp_path / "checkpoints")
    for config, result in zip(configs, together, strict=True):
        alone = train(config, tmp_path / "alone" / str(config.seed))
        assert result["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
        for name, curve in result["curves"].items():
            assert curve == pytest.approx(alone["curves"][name], rel=1e-4)
    assert together[0]["metrics"]["loss"] != together[1]["metrics"]["loss"]


def test_headline_perplexity_is_that_of_the_mean_loss(data, tmp_path):
    result = train(tiny_config(data), tmp_path / "run")
    values = result["metrics"]
    spans = [values["loss/16-16"], values["loss/32-32"]]
    assert values["loss"] == pytest.approx(sum(spans) / 2)
    assert values["perplexity"] == pytest.approx(np.exp(values["loss"]))
    assert values["perplexity/32-32"] == pytest.approx(np.exp(spans[1]))
    assert set(result["curves"]) == {f"{n}_by_context/{b}" for n in ("loss", "perplexity") for b in ("16-16", "32-32")}
    code, out, err = call("eval", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert f"{values['bits_per_byte']:.4f}" in out
    (line,) = [line for line in out.splitlines() if line.startswith("perplexity_by_context/32-32")]
    assert [float(x) for x in line.split()[1:] if x != "-"] == pytest.approx(
        [x for x in result["curves"]["perplexity_by_context/32-32"] if x is not None], rel=1e-3
    )


def test_epochs_are_a_duration(data):
    config = tiny_config(data, **{"train.duration": "2 epochs"})
    rows = len(build_task(config.task).rows("train", (16, 16)))
    assert make_program(config).total == -(-2 * rows // 4)


def test_a_number_that_is_not_finite_is_traced_to_its_step(data, tmp_path):
    config = tiny_config(
        data, **{"optim.lr": 1e6, "optim.weight_decay": 1e6, "optim.warmup": "0 steps", "optim.clip_norm": 0.0}
    )
    (result,) = train_members(make_program(config), [tmp_path / "run"], tmp_path / "run" / "checkpoints")
    assert result["status"] == "failed"
    assert "not finite in" in result["reason"]


def test_a_plan_measures_it(data, tmp_path):
    (planned,) = plan([tiny_config(data)], tmp_path / "runs", executor="vmap")
    assert planned.seconds > 0 and planned.bytes > 0


# --- documents in rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["deltanet", "mamba"])
def test_packed_documents_are_read_as_if_each_were_alone(data, layer):
    config = tiny_config(data, layer)
    task = build_task(config.task)
    model = build_model(config.model, task)
    row = np.array([[256, *b"one two", 256, *b"three", 256, *b"x", 256]])
    batch = jax.tree.map(jnp.asarray, task.collate(row, (row.shape[1] - 1,) * 2))
    variables = model.init(jax.random.key(0), batch.inputs)
    together, _ = model.apply(variables, batch.inputs, reset=batch.reset)
    starts = np.flatnonzero(row[0] == 256)
    alone = [model.apply(variables, jnp.asarray(row[:, a:b]))[0] for a, b in itertools.pairwise(starts)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-5)
    running_on, _ = model.apply(variables, batch.inputs)
    assert np.max(np.abs(running_on - together)) > 1e-3


# --- kills, and data that change -----------------------------------------------------------------------------------

LONG = ["--config.train.duration=1500 steps", "--config.eval.every=500 steps", "--config.checkpoint.every=35 steps"]
LONG += ["--config.train.steps_per_dispatch=5", "--config.log.every=50 steps"]


def start(data, workdir):
    command = [sys.executable, "-m", "lrnn_jax", "train", *arguments(data, *LONG), f"--workdir={workdir}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def steps_saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def finish(data, workdir):
    process = start(data, workdir)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return json.loads((workdir / "result.json").read_text()), err


def metric_lines(workdir):
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("elapsed_s", "steps_per_s")} for line in lines]


def test_two_kills_leave_the_parameters_bit_identical(data, tmp_path):
    expected, _ = finish(data, tmp_path / "whole")
    workdir = tmp_path / "killed"
    for _ in range(2):
        process = start(data, workdir)
        before = steps_saved(workdir)
        deadline = time.monotonic() + 100
        while steps_saved(workdir)[-1:] == before[-1:] and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    result, err = finish(data, workdir)
    assert "resuming" in err
    assert result["params_sha256"] == expected["params_sha256"]
    assert result["metrics"] == expected["metrics"]
    assert metric_lines(workdir) == metric_lines(tmp_path / "whole")


def test_a_run_does_not_go_on_with_other_data(data, tmp_path):
    mine = tmp_path / "mine.jsonl"
    mine.write_text(data.read_text())
    config = tiny_config(mine)
    train(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with mine.open("a") as file:
        file.write('{"text": "one more"}\n')
    load_corpus.cache_clear()
    with pytest.raises(UserError, match=r"trained on other data: data\.json there differs"):
        train(config, tmp_path / "run")
    code, _, err = call("eval", f"--workdir={tmp_path / 'run'}")
    assert code == 2 and "other data" in err


def test_the_tokenizer_of_a_run_is_kept_with_it(data, tmp_path):
    config = tiny_config(data, **{"task.tokenizer": "bpe:300", "eval.examples": 4})
    result = train(config, tmp_path / "run")
    assert (tmp_path / "run" / "tokenizer.json").read_text() == build_task(config.task).load_tokenizer().file
    code, out, err = call("eval", f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert f"{result['metrics']['bits_per_byte']:.4f}" in out


# --- refused before anything is compiled ---------------------------------------------------------------------------

BAD = {
    "not UTF-8": (b'{"text": "\xff\xfe"}\n', [], "words.jsonl:1 is not UTF-8"),
    "empty": (b'{"text": ""}\n', [], "words.jsonl:1 is empty"),
    "one token": (b'{"text": "x"}\n', [], "words.jsonl:1 is one token long"),
    "no field": (b"", ["--config.task.text_field=body"], "task.text_field='body'"),
    "no file": (b"", ["--config.task.data=nowhere.txt"], "task.data='nowhere.txt'"),
    "two lengths": (b"", ["--config.train.length=[8,16]"], "train.length=[8, 16]: rows of text have one length"),
    "long": (b"", ["--config.train.length=[99999,99999]"], "train.length=[99999, 99999]"),
    "longer than the data": (
        b"",
        ["--config.eval.lengths=[[16000,16000]]", "--config.eval.headline=[16000,16000]"],
        "too few for one row of 16000",
    ),
    "many examples": (b"", ["--config.eval.examples=4000"], "eval.examples=4000: the validation split has only"),
    "tokenizer": (b"", ["--config.task.tokenizer=bpe:7"], "task.tokenizer='bpe:7'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(data, tmp_path, monkeypatch, what):
    extra, more, said = BAD[what]
    file = tmp_path / "words.jsonl"
    file.write_bytes(extra + data.read_bytes())
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    load_corpus.cache_clear()
    code, out, err = call("train", *arguments(file, *more), f"--workdir={tmp_path / 'run'}")
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert said in err
    assert not (tmp_path / "run").exists()
    assert not [path for path in tmp_path.glob("cache/*") if not (path / "corpus.json").exists()]
