"""The one trainer: a resolved config and a folder in; a trained, evaluated and checkpointed result out."""

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config import config_hash, interval_steps, train_steps, validate_config
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.registry import build_model, build_task, load_layer
from lrnn_jax.training.checkpoints import Checkpoints
from lrnn_jax.training.loggers import Progress, Sink, open_sinks
from lrnn_jax.training.optimizer import (
    Group,
    assign_groups,
    format_groups,
    make_optimizer,
    make_schedule,
)
from lrnn_jax.training.runs import RunFolder, describe_origin, hash_params
from lrnn_jax.training.steps import (
    Sums,
    Trainable,
    TrainState,
    evaluate_bucket,
    find_nonfinite,
    init_state,
    init_variables,
    stream_key,
    train_many,
)


class TrainingFailed(Exception):
    """Training stopped because a number was not finite. The last good checkpoint is kept."""


class Interrupted(Exception):
    """A signal asked the run to stop. The checkpoint is saved."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


@dataclasses.dataclass
class Program:
    """Everything made from the config alone, before any step is taken.

    Attributes:
      config: resolved and validated.
      trainable: task, model and optimiser.
      groups: parameter groups.
      total: optimiser steps.
      every: optimiser steps between logs, validations and checkpoints.
    """

    config: ConfigDict
    trainable: Trainable
    groups: list[Group]
    total: int
    every: dict[str, int]

    @property
    def state_shapes(self) -> TrainState:
        """Shapes and dtypes of the training state."""
        return jax.eval_shape(lambda: init_state(self.trainable.model, self.trainable.optimizer, self.config.seed))

    def evaluate(self, state: TrainState, stream: str) -> dict[str, float]:
        """Returns metrics per length bucket (``accuracy/40-64``) and over the headline lengths (``accuracy``).

        The headline weighs each bucket by the lengths it spans: lengths are uniform over the whole range.
        """
        settings = self.config.eval
        batches = -(-settings.examples // settings.batch_size)
        low, high = settings.headline
        metrics: dict[str, float] = {}
        headline: dict[str, list[tuple[float, int]]] = {}
        for i, (shortest, longest) in enumerate(settings.lengths):
            key = jax.random.fold_in(stream_key(self.config.seed, stream), i)
            sums = evaluate_bucket(
                self.trainable, state.params, state.batch_stats, key, (shortest, longest), batches, settings.batch_size
            )
            for name, value in _means(sums).items():
                metrics[f"{name}/{shortest}-{longest}"] = value
                if low <= shortest and longest <= high:
                    headline.setdefault(name, []).append((value, longest - shortest + 1))
        for name, parts in headline.items():
            metrics[name] = sum(value * span for value, span in parts) / sum(span for _, span in parts)
        return metrics


def make_program(config: ConfigDict) -> Program:
    """Validates the config and builds task, model, parameter groups and optimiser; compiles nothing.

    Raises:
      UserError: the config cannot run.
    """
    validate_config(config)
    task = build_task(config.task)
    model = build_model(config.model, task)
    total = train_steps(config)
    every = {section: interval_steps(config, f"{section}.every") for section in ("log", "eval", "checkpoint")}
    params = jax.eval_shape(lambda: init_variables(model, config.seed))["params"]
    layer = load_layer(config.model.layer.name)
    groups = assign_groups(
        params,
        config_rules=config.optim.groups,
        layer_name=layer.__name__,
        layer_rules=layer.PARAM_GROUPS,
        backbone_rules=model.PARAM_GROUPS,
    )
    schedule = make_schedule(config.optim, warmup_steps=interval_steps(config, "optim.warmup", least=0), total_steps=total)
    optimizer = make_optimizer(config.optim, params, groups, schedule)
    trainable = Trainable(task, model, optimizer, config.train.batch_size, tuple(config.train.length))
    name = config.checkpoint.best_metric
    if name and name.partition("/")[0] not in trainable.metric_names():
        names = trainable.metric_names()
        raise UserError(f"checkpoint.best_metric={name!r} is not one of {', '.join(names)}{suggest(name, names)}")
    return Program(config, trainable, groups, total, every)


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, or resumes, or returns the finished run's result.

    Args:
      config: resolved config.
      workdir: the run's folder.

    Returns:
      What ``result.json`` holds.

    Raises:
      UserError: the config cannot run, or the folder cannot be used.
      TrainingFailed: loss, gradient or update was not finite.
      Interrupted: SIGTERM or Ctrl-C; everything is saved.
    """
    program = make_program(config)
    folder = RunFolder(workdir)
    with folder.locked():
        folder.claim(config)
        result = folder.read_result()
        if result and result["status"] == "finished":
            print(f"{workdir} is finished; nothing to do", file=sys.stderr)
            return result
        print(format_groups(program.groups), file=sys.stderr)
        checkpoints = Checkpoints(
            folder.checkpoint_folder,
            keep=config.checkpoint.keep,
            best_metric=config.checkpoint.best_metric,
            best_mode=config.checkpoint.best_mode,
        )
        sinks = open_sinks(config, workdir)
        try:
            return _Training(program, folder, checkpoints, sinks).run()
        finally:
            checkpoints.close()
            for sink in sinks:
                sink.close()


class _Training:
    """One run in progress."""

    def __init__(self, program: Program, folder: RunFolder, checkpoints: Checkpoints, sinks: list[Sink]) -> None:
        self.program = program
        self.config = program.config
        self.folder = folder
        self.checkpoints = checkpoints
        self.sinks = sinks
        self.seed = jnp.asarray(self.config.seed, jnp.uint32)
        self.elapsed_before = 0.0
        self.began = time.monotonic()
        self.sums: Sums | None = None
        self.unwritten: tuple[int, Sums] | None = None
        self.logged, self.logged_at = 0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all resumptions."""
        return self.elapsed_before + time.monotonic() - self.began

    def run(self) -> dict[str, Any]:
        state, step = self._start()
        progress = Progress(self.program.total, start=step)
        try:
            with _interruptible() as signals:
                state = self._loop(state, step, progress, signals)
            progress.say("testing")
            return self._finish(state)
        finally:
            progress.close()

    def _start(self) -> tuple[TrainState, int]:
        restored = self.checkpoints.restore_newest(self.program.state_shapes)
        if restored is None:
            trainable = self.program.trainable
            state = jax.jit(lambda seed: init_state(trainable.model, trainable.optimizer, seed))(self.seed)
            step = 0
        else:
            state, info = restored
            step, self.elapsed_before = int(state.step), info["elapsed_s"]
            self.logged, self.logged_at = info["logged"], info["logged_at_s"]
            if info["sums"] is not None:
                self.sums = {name: (jnp.float32(total), jnp.float32(weight)) for name, (total, weight) in info["sums"].items()}
            print(f"resuming {self.folder.path} at step {step}", file=sys.stderr)
        self.folder.rewind_metrics(step)
        return state, step

    def _loop(self, state: TrainState, step: int, progress: Progress, signals: list[int]) -> TrainState:
        """Dispatches K steps at a time, and looks at a dispatch only once the next one is under way."""
        total, every = self.program.total, self.program.every
        alive = jnp.copy(state.alive)
        while step < total:
            before, count = step, min(self.config.train.steps_per_dispatch, total - step)
            state, sums = train_many(self.program.trainable, state, self.seed, count)
            step += count
            self._stop_if_dead(alive, state)
            self._write_training(progress)
            self.sums = sums if self.sums is None else jax.tree.map(jnp.add, self.sums, sums)
            # a copy: the state itself is given away to the next dispatch
            alive = jnp.copy(state.alive)
            progress.update(before)
            due = {section: step // n > before // n or step == total for section, n in every.items()}
            if due["log"]:
                self.unwritten, self.sums = (step, self.sums), None
            if due["eval"] or due["checkpoint"] or signals:
                self._stop_if_dead(state.alive, state)
                self._write_training(progress)
            metrics = self._validate(state, step, progress) if due["eval"] else None
            if due["checkpoint"] or self._is_best(metrics) or signals:
                self._save(state, step, metrics)
            if signals and step < total:
                self._leave(step, signals[0])
        progress.update(step)
        return state

    def _save(self, state: TrainState, step: int, metrics: dict[str, float] | None) -> None:
        """Saves the state, with the sums since the last training line, so that the next line is whole after a resume too."""
        sums = jax.tree.map(float, jax.device_get(self.sums))
        logged = {"logged": self.logged, "logged_at_s": self.logged_at, "sums": sums}
        self.checkpoints.save(step, state, {"elapsed_s": self.elapsed, **logged}, metrics)

    def _is_best(self, metrics: dict[str, float] | None) -> bool:
        return metrics is not None and bool(self.checkpoints.best_metric) and self.checkpoints.is_best(metrics)

    def _write_training(self, progress: Progress) -> None:
        """Writes the training metrics that were due one dispatch ago, and so are ready without waiting."""
        if self.unwritten is None:
            return
        (step, sums), self.unwritten = self.unwritten, None
        values = _means(sums)
        now = self.elapsed
        values["steps_per_s"] = (step - self.logged) / max(now - self.logged_at, 1e-9)
        self.logged, self.logged_at = step, now
        self._write(step, "train", values)
        progress.show({name: values[name] for name in ("loss", "accuracy") if name in values})

    def _validate(self, state: TrainState, step: int, progress: Progress) -> dict[str, float]:
        metrics = self.program.evaluate(state, "validation")
        self._write(step, "validation", metrics)
        shown = {name: value for name, value in metrics.items() if "/" not in name}
        progress.say(f"step {step}  validation  " + "  ".join(f"{name} {value:.4f}" for name, value in shown.items()))
        return metrics

    def _write(self, step: int, split: str, values: dict[str, float]) -> None:
        self.folder.append_metrics({"step": step, "split": split, "elapsed_s": self.elapsed, **values})
        for sink in self.sinks:
            sink.write(step, {f"{split}/{name}": value for name, value in values.items()})

    def _stop_if_dead(self, alive: jax.Array, state: TrainState) -> None:
        if bool(alive):
            return
        step = int(state.step)
        loss_finite, paths = find_nonfinite(self.program.trainable, state, self.seed)
        groups = [g for g in self.program.groups if any(path in paths for path in g.paths)]
        named = "; ".join(f"group {g.source}: {g.pattern} ({next(p for p in g.paths if p in paths)})" for g in groups)
        elsewhere = "the update; loss and gradients were finite" if loss_finite else "the loss; every gradient was finite"
        reason = f"step {step + 1}: not finite in {named or elsewhere}"
        # the dead state is still the last good one
        self._save(state._replace(alive=jnp.ones((), bool)), step, None)
        self.checkpoints.wait()
        self.folder.write_result({"status": "failed", "reason": reason, "step": step, **describe_origin(self.config)})
        raise TrainingFailed(f"{reason}; the state before it is kept in {self.folder.checkpoint_folder / str(step)}")

    def _leave(self, step: int, signum: int) -> None:
        self.checkpoints.wait()
        name = signal.Signals(signum).name
        raise Interrupted(signum, f"{name}: saved step {step} in {self.folder.path}; the same command resumes there")

    def _finish(self, state: TrainState) -> dict[str, Any]:
        metrics = self.program.evaluate(state, "test")
        self._write(self.program.total, "test", metrics)
        self.checkpoints.wait()
        best = None
        if self.checkpoints.best_step is not None:
            best_state, _ = self.checkpoints.restore(self.checkpoints.best_step, self.program.state_shapes)
            best = {"step": self.checkpoints.best_step, "metrics": self.program.evaluate(best_state, "test")}
        result = {
            "status": "finished",
            "task": self.config.task.name,
            "layer": self.config.model.layer.name,
            "seed": self.config.seed,
            "steps": self.program.total,
            "metrics": metrics,
            "best": best,
            "parameter_count": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "params_sha256": hash_params(state.params),
            "wall_time_s": round(self.elapsed, 3),
            **describe_origin(self.config),
        }
        self.folder.write_result(result)
        return result


def evaluate_run(workdir: Path, *, which: str, lengths: list[list[int]] | None, examples: int | None) -> dict[str, Any]:
    """Evaluates a run's checkpoint on its test stream.

    Args:
      workdir: the run's folder.
      which: "last" or "best".
      lengths: length buckets instead of the config's.
      examples: examples per bucket instead of the config's.

    Raises:
      UserError: no run or no such checkpoint there, or lengths that the task cannot make.
    """
    folder = RunFolder(workdir)
    config = folder.read_config()
    if lengths:
        config.eval.lengths = lengths
        config.eval.headline = [min(low for low, _ in lengths), max(high for _, high in lengths)]
    if examples:
        config.eval.examples = examples
    program = make_program(config)
    if not folder.checkpoint_folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoint yet")
    checkpoints = Checkpoints(
        folder.checkpoint_folder,
        best_metric=config.checkpoint.best_metric,
        best_mode=config.checkpoint.best_mode,
        read_only=True,
    )
    step = checkpoints.best_step if which == "best" else max(checkpoints.steps, default=None)
    if step is None:
        raise UserError(f"{workdir} holds no {which} checkpoint (checkpoint.best_metric={config.checkpoint.best_metric!r})")
    state, _ = checkpoints.restore(step, program.state_shapes)
    checkpoints.close()
    return {"checkpoint": which, "step": step, "metrics": program.evaluate(state, "test")}


def default_workdir(config: ConfigDict) -> Path:
    """Returns ``runs/<hash of the resolved config>``."""
    return Path("runs") / config_hash(config)


def _means(sums: Sums) -> dict[str, float]:
    return {name: float(np.asarray(total) / np.maximum(np.asarray(weight), 1e-30)) for name, (total, weight) in sums.items()}


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second one acts at once."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def receive(signum: int, _: Any) -> None:
        received.append(signum)
        logging.warning("%s: saving after this dispatch; once more stops at once", signal.Signals(signum).name)
        for earlier, handler in previous.items():
            signal.signal(earlier, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for earlier, handler in previous.items():
            signal.signal(earlier, handler)
