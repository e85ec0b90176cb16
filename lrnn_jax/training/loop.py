"""The one training loop: compiled dispatches, logs, validations, checkpoints, resumption, for one run or many at once."""

import dataclasses
import math
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config.fields import less_is_better
from lrnn_jax.errors import Interrupted, TrainingFailed, UserError
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder, allow_open_files
from lrnn_jax.runs.origin import describe_origin
from lrnn_jax.runs.parameters import hash_params
from lrnn_jax.tasks.base import Sums
from lrnn_jax.training.loggers import Progress, Sink, format_spread, open_sinks
from lrnn_jax.training.optimizer import format_groups
from lrnn_jax.training.program import Program, make_program, member_means, take_member
from lrnn_jax.training.signals import interruptible
from lrnn_jax.training.steps import TrainState, Tree


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains one run, or resumes it, or returns the finished run's result.

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
    (result,) = train_members([config], [workdir], workdir / "checkpoints")
    if result["status"] == "failed":
        raise TrainingFailed(f"{result['reason']}; the state before it is kept in {workdir / 'checkpoints'}")
    return result


def train_members(
    configs: Sequence[ConfigDict], workdirs: Sequence[Path], checkpoint_folder: Path, *, verbose: bool = True
) -> list[dict[str, Any]]:
    """Trains runs that share a program side by side: each gets its own folder, metrics, result and final checkpoint.

    A run whose numbers are no longer finite, or that stops early, keeps its last good state; the others go on.

    Args:
      configs: resolved configs that differ in traced fields only (see `lrnn_jax.config.traced_values`).
      workdirs: the runs' folders.
      checkpoint_folder: where the state of all of them is kept while they train.
      verbose: prints the parameter groups and every validation, not only the progress line.

    Returns:
      What each ``result.json`` holds; ``status`` is "finished" or "failed".

    Raises:
      UserError, Interrupted: as `train`; also where JAX runs as several processes.
    """
    if jax.process_count() > 1:
        # batches are shared out, but gradients are not summed: each process would train a model of its own
        raise UserError(f"training runs in one JAX process, and this is one of {jax.process_count()}; start one alone")
    program = make_program(*configs)
    folders = [RunFolder(workdir) for workdir in workdirs]
    allow_open_files(len(folders))
    with ExitStack() as stack:
        for folder, config in zip(folders, configs, strict=True):
            stack.enter_context(folder.locked())
            folder.claim(config, program.records())
        results = [folder.read_result() for folder in folders]
        if all(result and result["status"] == "finished" for result in results):
            print(
                f"{', '.join(map(str, workdirs))}: finished; nothing to do (remove the folder to train it again)",
                file=sys.stderr,
            )
            return [result for result in results if result]
        if verbose:
            print(format_groups(program.groups), file=sys.stderr)
        checkpoints = Checkpoints(checkpoint_folder, keep=program.config.checkpoint.keep)
        stack.callback(checkpoints.close)
        members = [_Member(c, f, open_sinks(c, f.path)) for c, f in zip(configs, folders, strict=True)]
        for member, result in zip(members, results, strict=True):
            member.kept = result if result and result["status"] == "finished" else None
            for sink in member.sinks:
                stack.callback(sink.close)
        with interruptible() as signals:
            return _Training(program, members, checkpoints, signals, verbose=verbose).run()


@dataclasses.dataclass
class _Member:
    """What the host knows of one run.

    Attributes:
      config: its config.
      folder: its folder.
      sinks: where its metrics go besides the folder.
      best: step, value and age in validations of the best validation so far.
      ended: status, steps and reason, once it goes no further.
      kept: its result, where it was finished on its own after the program that it is part of had been interrupted.
    """

    config: ConfigDict
    folder: RunFolder
    sinks: list[Sink]
    best: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
    kept: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be written of it."""
        return bool(self.ended or self.kept)


class _Training:
    """Runs in progress."""

    def __init__(
        self,
        program: Program,
        members: list[_Member],
        checkpoints: Checkpoints,
        signals: Sequence[int] = (),
        *,
        verbose: bool = False,
    ) -> None:
        self.program = program
        self.config = program.config
        self.members = members
        self.checkpoints = checkpoints
        self.signals = signals
        self.verbose = verbose
        self.elapsed_before = 0.0
        self.began = time.monotonic()
        self.sums: Sums | None = None
        self.unwritten: tuple[int, Sums] | None = None
        self.logged, self.logged_at = 0, 0.0
        self.best: Tree = None

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all resumptions."""
        return self.elapsed_before + time.monotonic() - self.began

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best parameters."""
        return self.config.eval.best_metric

    def run(self) -> list[dict[str, Any]]:
        state, step = self._start()
        progress = Progress(self.program.total, start=step)
        try:
            state, step = self._loop(state, step, progress)
            if self.verbose:
                progress.say("testing")
            return self._finish(state, step)
        finally:
            progress.close()

    def _start(self) -> tuple[TrainState, int]:
        shapes = self.program.state_shapes
        target = {"state": shapes, "best": shapes.variables} if self.metric else {"state": shapes}
        restored = self.checkpoints.restore_newest(target)
        step = 0
        lines: list[list[str]] = [[] for _ in self.members]
        if restored is None:
            state = self.program.init()
        else:
            kept, info = restored
            state, self.best = kept["state"], kept.get("best")
            step, self.elapsed_before = info["step"], info["elapsed_s"]
            self.logged, self.logged_at, lines = info["logged"], info["logged_at_s"], info["metrics"]
            if info["sums"] is not None:
                self.sums = {name: (_floats(total), _floats(weight)) for name, (total, weight) in info["sums"].items()}
            for i, member in enumerate(self.members):
                member.best, member.ended = info["best"][i], info["ended"][i]
            if len(self.members) == 1 and bool(state.alive):
                self.members[0].ended = None
            print(f"resuming {self._place()} at step {step}", file=sys.stderr)
        for member, own in zip(self.members, lines, strict=True):
            if not member.kept:
                member.folder.restore_metrics(own)
        return state, step

    def _loop(self, state: TrainState, step: int, progress: Progress) -> tuple[TrainState, int]:
        """Dispatches K steps at a time, and looks at a dispatch only once the next one is under way."""
        total, every = self.program.total, self.program.every
        alive = jnp.copy(state.alive)
        while step < total and not all(member.over for member in self.members):
            before, size = step, self.program.per_dispatch
            # a run that is tried again starts at its last good step, and is back on the grid after one dispatch
            count = min(size - step % size, total - step)
            state, sums = self.program.advance(state, count, start=step)
            step += count
            self._end_dead(alive, state, progress)
            self._write_training(progress)
            self.sums = sums if self.sums is None else jax.tree.map(jnp.add, self.sums, sums)
            # a copy: the state itself is given away to the next dispatch
            alive = jnp.copy(state.alive)
            progress.update(before)
            due = {section: step % n == 0 or step == total for section, n in every.items()}
            stop = bool(self.signals)  # asked once: a signal that comes later waits for the next dispatch
            if due["log"]:
                self.unwritten, self.sums = (step, self.sums), None
            if due["eval"] or due["checkpoint"] or stop:
                self._end_dead(state.alive, state, progress)
                self._write_training(progress)
            if all(member.over for member in self.members):
                break
            if due["eval"]:
                state = self._validate(state, step, progress)
            if due["checkpoint"] or stop:
                self._save(state, step)
            if stop and step < total:
                self._leave(step)
        progress.update(step)
        if len(self.members) == 1:
            state, step = _reviving(state, step, self.members[0].ended)
        self._save(state, step)
        return state, step

    def _save(self, state: TrainState, step: int) -> None:
        """Saves the state, with the lines of metrics so far and the sums since the last one.

        So the next line is whole after a resume too, and a member's lines are those of this program, whatever its folder has
        been used for in between.
        """
        info = {
            "step": step,
            "elapsed_s": self.elapsed,
            "logged": self.logged,
            "logged_at_s": self.logged_at,
            "sums": jax.tree.map(lambda x: np.asarray(x).tolist(), self.sums),
            "metrics": [member.folder.read_metrics() for member in self.members],
            "best": [member.best for member in self.members],
            "ended": [member.ended for member in self.members],
        }
        tree = {"state": state, "best": state.variables if self.best is None else self.best}
        self.checkpoints.save(step, tree if self.metric else {"state": state}, info)

    def _write_training(self, progress: Progress) -> None:
        """Writes the training metrics that were due one dispatch ago, and so are ready without waiting."""
        if self.unwritten is None:
            return
        (step, sums), self.unwritten = self.unwritten, None
        now = self.elapsed
        rate = (step - self.logged) / max(now - self.logged_at, 1e-9)
        self.logged, self.logged_at = step, now
        means = member_means(sums, len(self.members))
        going = [(member, values) for member, values in zip(self.members, means, strict=True) if not member.over]
        for member, values in going:
            self._write(member, step, "train", {**values, "steps_per_s": rate})
        progress.show({name: [values[name] for _, values in going] for name in ("loss", "accuracy")})

    def _validate(self, state: TrainState, step: int, progress: Progress) -> TrainState:
        """Writes the validation metrics, keeps each member's best parameters, and ends members that have stopped improving."""
        measured = [m.metrics for m in self.program.evaluate(state.params, state.batch_stats, "validation")]
        better = [self._compare(member, values, step) for member, values in zip(self.members, measured, strict=True)]
        if self.metric:
            new = state.variables
            self.best = _choose(self._mask(better), new, new if self.best is None else self.best)
        going = [(member, values) for member, values in zip(self.members, measured, strict=True) if not member.over]
        for member, values in going:
            self._write(member, step, "validation", values)
        if self.verbose:
            shown = {name: [values[name] for _, values in going] for name in measured[0] if "/" not in name}
            line = "  ".join(f"{name} {format_spread(values)}" for name, values in shown.items())
            progress.say(f"step {step}  validation  {line}")
        patience = self.config.eval.patience
        stopped = [bool(patience and m.best and not m.over and m.best["age"] >= patience) for m in self.members]
        for i, member in enumerate(self.members):
            if stopped[i]:
                reason = f"no better {self.metric} in {patience} validations"
                member.ended = {"status": "finished", "steps": step, "reason": reason}
                progress.say(f"{self._name(i)}stopped at step {step}: {reason}")
        return state._replace(alive=state.alive & ~self._mask(stopped)) if any(stopped) else state

    def _compare(self, member: _Member, values: dict[str, float], step: int) -> bool:
        """Says whether a validation is the member's best so far, and notes it."""
        if not self.metric or member.over:
            return False
        value, less = values[self.metric], less_is_better(self.metric)
        old = member.best["value"] if member.best else math.inf if less else -math.inf
        if value < old if less else value > old:
            member.best = {"step": step, "value": value, "age": 0}
            return True
        if member.best:
            member.best["age"] += 1
        return False

    def _end_dead(self, alive: jax.Array, state: TrainState, progress: Progress) -> None:
        """Notes which members' numbers are no longer finite, and where; their states are the last good ones."""
        fine = np.atleast_1d(np.asarray(alive))
        for i, member in enumerate(self.members):
            if fine[i] or member.over:
                continue
            count = len(self.members)
            own = take_member(state, i, count)
            step = int(own.step)
            loss_finite, paths = self.program.find_nonfinite(i, own)
            groups = [g for g in self.program.groups if any(path in paths for path in g.paths)]
            named = "; ".join(f"group {g.source}: {g.pattern} ({next(p for p in g.paths if p in paths)})" for g in groups)
            elsewhere = "the update; loss and gradients were finite" if loss_finite else "the loss; every gradient was finite"
            reason = f"step {step + 1}: not finite in {named or elsewhere}"
            member.ended = {"status": "failed", "steps": step, "reason": reason}
            if count > 1:
                progress.say(f"{self._name(i)}failed at {reason}; the others go on")

    def _write(self, member: _Member, step: int, split: str, values: dict[str, float]) -> None:
        member.folder.append_metrics({"step": step, "split": split, "elapsed_s": self.elapsed, **values})
        for sink in member.sinks:
            sink.write(step, {f"{split}/{name}": value for name, value in values.items()})

    def _leave(self, step: int) -> None:
        self.checkpoints.wait()
        signum = self.signals[0]
        name = signal.Signals(signum).name
        raise Interrupted(signum, f"{name}: saved step {step} of {self._place()}; the same command resumes there")

    def _finish(self, state: TrainState, step: int) -> list[dict[str, Any]]:
        """Tests every member and writes its result; where there are several, each also gets its part of the checkpoint."""
        self.checkpoints.wait()
        tested = self.program.evaluate(state.params, state.batch_stats, "test")
        best_tested = tested if self.best is None else self.program.evaluate(**self.best, stream="test")
        if self.signals:
            self._leave(step)
        results = []
        for i, member in enumerate(self.members):
            if member.kept:
                results.append(member.kept)
                continue
            own = take_member(state, i, len(self.members))
            ended = member.ended or {"status": "finished", "steps": step, "reason": None}
            result: dict[str, Any] = {
                **ended,
                "task": self.config.task.name,
                "layer": self.config.model.layer.name,
                "seed": member.config.seed,
                "parameter_count": sum(leaf.size for leaf in jax.tree.leaves(own.params)),
                "params_sha256": hash_params(own.params),
                "wall_time_s": round(self.elapsed, 3),
                "trained_together": len(self.members),
                **describe_origin(member.config),
            }
            if ended["status"] == "finished":
                self._write(member, ended["steps"], "test", tested[i].metrics)
                best = member.best and {"step": member.best["step"], **best_tested[i]._asdict()}
                result |= {**tested[i]._asdict(), "best": best}
            if len(self.members) > 1:
                self._save_part(i, state, ended["steps"])
            member.folder.write_result(result)
            results.append(result)
        return results

    def _save_part(self, i: int, state: TrainState, step: int) -> None:
        """Gives a member a checkpoint of its own, as if it had been trained alone."""
        member, count = self.members[i], len(self.members)
        shutil.rmtree(member.folder.checkpoint_folder, ignore_errors=True)
        checkpoints = Checkpoints(member.folder.checkpoint_folder)
        best = None if self.best is None else take_member(self.best, i, count)
        training = _Training(self.program, [member], checkpoints)
        training.elapsed_before, training.best = self.elapsed, best
        training._save(*_reviving(take_member(state, i, count), step, member.ended))
        checkpoints.close()

    def _mask(self, chosen: Sequence[bool]) -> jax.Array:
        return jnp.asarray(chosen[0] if len(chosen) == 1 else chosen)

    def _name(self, i: int) -> str:
        return f"{self.members[i].folder.path}: " if len(self.members) > 1 else ""

    def _place(self) -> str:
        first = self.members[0].folder.path
        return str(first) if len(self.members) == 1 else f"{len(self.members)} runs in {first.parent}"


def _reviving(state: TrainState, step: int, ended: dict[str, Any] | None) -> tuple[TrainState, int]:
    """A failed run's last checkpoint is its last good state, from which it can be tried again."""
    if ended is None or ended["status"] != "failed":
        return state, step
    return state._replace(alive=jnp.ones_like(state.alive)), ended["steps"]


def _choose(mask: jax.Array, new: Tree, old: Tree) -> Tree:
    """Where the mask says so the new parameters, as arrays of their own: the state is given away to the next dispatch."""
    return jax.tree.map(lambda n, o: jnp.where(mask.reshape(mask.shape + (1,) * (n.ndim - mask.ndim)), n, o), new, old)


def _floats(numbers: Any) -> jax.Array:
    return jnp.asarray(numbers, jnp.float32)
