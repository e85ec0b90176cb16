"""A program is built once from configs that are checked once; calls are of the wanted size; what is compiled is let go."""

import collections
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import lrnn_jax
from lrnn_jax.config import checks
from lrnn_jax.config.fields import base_config, layer_config, task_config
from lrnn_jax.config.identity import split_seeds
from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.sweeps.executors import execute
from lrnn_jax.training import loop, program
from lrnn_jax.training.program import make_program

HOUSE = str(Path(lrnn_jax.__file__).parent)


def make_config(**fields):
    c = base_config()
    c.task = task_config("parity")
    c.model.layer = layer_config("diagonal")
    c.model.width, c.model.depth = 4, 1
    c.train.batch_size, c.train.length, c.train.duration = 4, [3, 8], "100 steps"
    c.eval.lengths, c.eval.headline, c.eval.examples = [[8, 8]], [8, 8], 8
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        (c[section] if section else c)[field] = value
    return c


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of functions by name, in every module of ours that has them."""
    counted = collections.Counter()

    def count(name, function):
        def counting(*args, **kwargs):
            counted[name] += 1
            return function(*args, **kwargs)

        for module in list(sys.modules.values()):
            if module.__name__.startswith("lrnn_jax") and getattr(module, name, None) is function:
                monkeypatch.setattr(module, name, counting)

    count("validate_config", checks.validate_config)
    count("make_program", make_program)
    return counted


def test_a_run_checks_its_config_once_and_builds_one_program(calls, tmp_path):
    loop.train(make_config(train__duration="4 steps"), tmp_path / "run")
    assert calls == {"validate_config": 1, "make_program": 1}


def test_runs_of_one_structure_build_one_program_and_check_each_config_once(calls, tmp_path):
    configs = split_seeds(make_config(seeds=3, train__duration="4 steps"))
    results = execute(configs, tmp_path / "together")
    assert calls == {"validate_config": 3, "make_program": 1}
    calls.clear()
    apart = execute(configs, tmp_path / "apart", executor="local")
    assert calls == {"validate_config": 3, "make_program": 1}
    for one, other in zip(results, apart, strict=True):
        assert one["metrics"] == pytest.approx(other["metrics"], rel=1e-4)


def test_from_train_to_the_model_there_are_at_most_seven_frames(monkeypatch, tmp_path):
    frames = []
    call = Backbone.__call__

    def listen(self, inputs, **kwargs):
        if kwargs.get("train"):
            frames.append([f.name for f in traceback.extract_stack() if f.filename.startswith(HOUSE)])
        return call(self, inputs, **kwargs)

    program.compile_steps.cache_clear()
    monkeypatch.setattr(Backbone, "__call__", listen)
    loop.train(make_config(train__duration="4 steps"), tmp_path / "run")
    assert frames
    for names in frames:
        path = names[names.index("train") :]
        assert len(path) <= 7, path


@pytest.mark.parametrize(
    ("every", "per_call"),
    [("20 steps", 50), ("7 steps", 5), ("1e3 tokens", 50)],  # 1e3 tokens: 32 steps, which the others do not divide
)
def test_calls_are_as_long_as_wanted_and_end_where_something_is_due(every, per_call):
    made = make_program(make_config(eval__every=every, train__steps_per_dispatch=per_call, log__every="25 steps"))
    step, ends, sizes = 0, [], []
    while step < made.total:
        sizes.append(made.steps_from(step))
        step += sizes[-1]
        ends.append(step)
    due = {n for interval in made.every.values() for n in range(interval, 101, interval)} | {100}
    assert due <= set(ends)
    assert max(sizes) <= per_call
    # no call is cut but by what is due, or by the wanted size
    assert all(size == per_call or end in due for size, end in zip(sizes, ends, strict=True))


def test_one_compiled_program_takes_every_number_of_steps():
    made = make_program(make_config())
    program.compile_steps.cache_clear()
    state = made.init()
    for count, start in [(3, 0), (1, 3), (5, 4)]:
        state, sums = made.advance(state, count, start=start)
        assert float(np.asarray(sums["grad_norm"][1])) == count
    assert int(state.step) == 9
    assert program.compile_steps.cache_info().currsize == 1


def test_compiled_programs_are_let_go():
    for function in (program.compile_steps, program.compile_part):
        assert 0 < function.cache_info().maxsize <= 64


def test_a_training_set_smaller_than_a_batch_is_refused():
    c = make_config()
    c.task = task_config("parity", train_examples=3)
    with pytest.raises(UserError, match=r"task\.train_examples=3 is less than train\.batch_size=4"):
        checks.validate_config(c)


def test_all_examples_of_a_task_that_makes_them_is_no_number():
    with pytest.raises(UserError, match=r"eval\.examples=0 takes all that files hold"):
        make_program(make_config(eval__examples=0))
