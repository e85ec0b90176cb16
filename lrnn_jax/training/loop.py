"""The one training loop: compiled calls, logs, validations, checkpoints, resumption, for one run or many at once."""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import thaw
from lrnn_jax.errors import Interrupted, TrainingFailed, UserError
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.folder import RunFolder, allow_open_files
from lrnn_jax.runs.origin import check_settings, describe_origin, find_changes
from lrnn_jax.runs.parameters import hash_params
from lrnn_jax.runs.results import Result, hash_lines, hash_numbers
from lrnn_jax.runs.store import default_workdir
from lrnn_jax.tasks.base import Sums
from lrnn_jax.training.introducing import introduce
from lrnn_jax.training.loggers import Progress, format_spread
from lrnn_jax.training.measuring import Measured, add_sums, member_means
from lrnn_jax.training.member import Ending, Member, open_members
from lrnn_jax.training.memory import said_if_exhausted
from lrnn_jax.training.optimizer import format_groups
from lrnn_jax.training.profiling import Profile
from lrnn_jax.training.program import Program, make_program, take_member
from lrnn_jax.training.signals import interruptible
from lrnn_jax.training.steps import TrainState, Tree, choose


def train(config: ConfigDict, workdir: str | Path | None = None, *, said: str = "") -> Result:
    """Trains one run, or resumes it, or returns the finished run's result.

    Args:
      config: resolved config.
      workdir: the run's folder; None takes ``runs/<hash of the config>``, as the command does.
      said: what the run's first line is, such as the command.

    Returns:
      What ``result.json`` holds.

    Raises:
      UserError: the config cannot run, or the folder cannot be used.
      TrainingFailed: loss, gradient or update was not finite.
      Interrupted: SIGTERM or Ctrl-C; everything is saved.
    """
    config = thaw(config).lock()
    validate_config(config)
    if config.seeds != 1:
        raise UserError(f"seeds={config.seeds}: train takes one run; set seed, or see lrnn_jax.config.identity.split_seeds")
    workdir = default_workdir(config) if workdir is None else Path(workdir).expanduser()
    with open_loop(make_program(config), [workdir], workdir / "checkpoints", verbose=True, said=said) as run:
        (result,) = run()
    if result["status"] == "failed":
        raise TrainingFailed(f"{result['reason']}; the state before it is kept in {workdir / 'checkpoints'}")
    return result


def train_members(program: Program, workdirs: Sequence[Path], checkpoint_folder: Path) -> list[Result]:
    """Trains a program's runs side by side: each gets its own folder, metrics, result and final checkpoint.

    A run whose numbers are no longer finite, or that stops early, keeps its last good state; the others go on.

    Args:
      program: of all of them.
      workdirs: the runs' folders.
      checkpoint_folder: where the state of all of them is kept while they train.

    Returns:
      What each ``result.json`` holds; ``status`` is "finished" or "failed".

    Raises:
      UserError, Interrupted: as `train`; also where JAX runs as several processes.
    """
    with open_loop(program, workdirs, checkpoint_folder) as run:
        return run()


@contextmanager
def open_loop(
    program: Program, workdirs: Sequence[Path], checkpoint_folder: Path, *, verbose: bool = False, said: str = ""
) -> Iterator[Callable[[], list[Result]]]:
    """Holds the runs' folders and yields what trains them, or only returns their results where all of them are finished.

    Args:
      program: as in `train_members`.
      workdirs: as there.
      checkpoint_folder: as there.
      verbose: prints the parameter groups and every validation, not only the progress line.
      said: printed first, where there is something to train.
    """
    if jax.process_count() > 1:
        # batches are shared out, but gradients are not summed: each process would train a model of its own
        raise UserError(f"training runs in one JAX process, and this is one of {jax.process_count()}; start one alone")
    folders = [RunFolder(workdir) for workdir in workdirs]
    if not all(folder.config_file.exists() for folder in folders):
        program.read_start()  # what cannot begin writes nothing
    allow_open_files(len(folders))
    with ExitStack() as stack:
        for folder, config in zip(folders, program.configs, strict=True):
            stack.enter_context(folder.locked())
            folder.claim(config, program.records())
        results = [folder.read_result(config) for folder, config in zip(folders, program.configs, strict=True)]
        finished = [result for result in results if result and result["status"] == "finished"]
        if len(finished) == len(results):
            changes = {find_changes(result, describe_origin(program.config)) for result in finished} - {""}
            since = f" before this: {'; '.join(sorted(changes))}" if changes else ""
            where = ", ".join(map(str, workdirs))
            print(f"{where}: finished{since}; nothing to do (remove the folder to train it again)", file=sys.stderr)
            yield lambda: finished
            return
        for line in filter(None, (said, introduce(program, workdirs))):
            print(line, file=sys.stderr)
        if verbose:
            print(format_groups(program.groups, [config.optim.recurrent_lr for config in program.configs]), file=sys.stderr)
        checkpoints = stack.enter_context(Checkpoints(checkpoint_folder, keep=program.config.checkpoint.keep))
        members = open_members(program.configs, folders, checkpoint_folder)
        for member, result in zip(members, results, strict=True):
            member.kept = result if result in finished else None
            for sink in member.sinks:
                stack.callback(sink.close)
        with interruptible() as signals, said_if_exhausted():
            yield Loop(program, members, checkpoints, signals, verbose=verbose).run


class Loop:
    """Runs in progress: what the host does between one compiled call and the next."""

    def __init__(
        self,
        program: Program,
        members: list[Member],
        checkpoints: Checkpoints,
        signals: Sequence[int] = (),
        *,
        verbose: bool = False,
    ) -> None:
        """Arguments as in `open_loop`; ``signals`` fills with those that ask for an end."""
        self.program = program
        self.config = program.config
        self.members = members
        self.checkpoints = checkpoints
        self.signals = signals
        self.verbose = verbose
        self.progress = Progress(program.total)
        self.elapsed_before = 0.0
        self.began = time.monotonic()
        self.sums: Sums | None = None
        self.unwritten: tuple[int, Sums] | None = None
        self.logged, self.logged_at = 0, 0.0
        self.best: Tree = None
        self.origin = {name: value for name, value in describe_origin(members[0].config).items() if name != "finished_at"}
        self.profile = Profile(program.config.log.profile, members[0].folder.path / "profile")

    @property
    def elapsed(self) -> float:
        """Seconds of work, over all resumptions."""
        return self.elapsed_before + time.monotonic() - self.began

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best parameters."""
        return self.config.eval.best_metric

    def run(self) -> list[Result]:
        """Trains to the end and returns each member's result: a call is looked at only once the next one is under way."""
        state, step = self._start()
        self.progress = Progress(self.program.total, start=step)
        self.progress.say("compiling")
        try:
            alive = jnp.copy(state.alive)
            while step < self.program.total and not self._all_over():
                self.profile.reach(step, state, self.progress.say)
                count, before = self.program.steps_from(step), step
                state, sums = self.program.advance(state, count, start=step)
                step += count
                self._end_dead(alive, state)
                self._write_training()
                self.sums = add_sums(self.sums or {}, sums)
                # a copy: the state itself is given away to the next call
                alive = jnp.copy(state.alive)
                self.progress.update(before)
                state = self._do_what_is_due(state, step)
            self.profile.reach(step, state, self.progress.say)
            self.progress.update(step)
            if len(self.members) == 1:
                state, step = _reviving(state, step, self.members[0].ending)
            self._save(state, step)
            if self.verbose:
                self.progress.say("testing")
            return self._finish(state, step)
        finally:
            self.profile.close()
            self.progress.close()

    def _all_over(self) -> bool:
        return all(member.over for member in self.members)

    def _start(self) -> tuple[TrainState, int]:
        """Returns the state and its step: of the newest checkpoint, or new."""
        shapes = self.program.state_shapes
        target = {"state": shapes, **({"best": shapes.variables} if self.metric else {})}
        restored = self.checkpoints.restore_newest(target, self._check)
        if restored is None:
            for member in self.members:
                member.restore_lines(b"")
            return self.program.init(), 0
        kept, info = restored
        state, self.best, step = kept["state"], kept.get("best"), info["step"]
        self.elapsed_before, self.logged, self.logged_at = info["elapsed_s"], info["logged"], info["logged_at_s"]
        if info["sums"] is not None:
            self.sums = {name: (jnp.float32(total), jnp.float32(weight)) for name, (total, weight) in info["sums"].items()}
        for member, saved in zip(self.members, info["members"], strict=True):
            member.resume(saved)
        if len(self.members) == 1 and bool(state.alive):
            self.members[0].ending = None
        print(f"resuming {self._place()} at step {step}", file=sys.stderr)
        if changes := find_changes(info.get("origin", {}), self.origin):
            print(f"changed since then: {changes}; to train with them from the start, remove the folder", file=sys.stderr)
        return state, step

    def _check(self, info: dict[str, Any]) -> None:
        """Refuses a checkpoint of other settings, and calls one damaged whose lines of metrics are."""
        check_settings(info.get("origin", {}), self.origin, self._place())
        for member, saved in zip(self.members, info["members"], strict=True):
            member.find_lines(saved)

    def _do_what_is_due(self, state: TrainState, step: int) -> TrainState:
        """Logs, validates and saves where a step asks for it, and leaves where a signal does."""
        total = self.program.total
        due = {section: step % n == 0 or step == total for section, n in self.program.every.items()}
        stop = bool(self.signals)  # asked once: a signal that comes later waits for the next call
        if due["log"]:
            self.unwritten, self.sums = (step, self.sums or {}), None
        if due["eval"] or due["checkpoint"] or stop:
            self._end_dead(state.alive, state)
            self._write_training()
        if self._all_over():
            return state
        if due["eval"]:
            state = self._validate(state, step)
        if due["checkpoint"] or stop:
            self._save(state, step)
        if stop and step < total:
            self._leave(step)
        return state

    def _save(self, state: TrainState, step: int) -> None:
        """Saves the state, with how many lines of metrics there are and the sums since the last one.

        So the next line is whole after a resume too, and a member's lines are those of this program, whatever its folder has
        been used for in between.
        """
        for member in self.members:
            member.folder.check_held()
        info = {
            "step": step,
            "elapsed_s": self.elapsed,
            "logged": self.logged,
            "logged_at_s": self.logged_at,
            "sums": jax.tree.map(lambda x: np.asarray(x).tolist(), self.sums),
            "members": [member.progress() for member in self.members],
            "origin": self.origin,
        }
        best = {"best": state.variables if self.best is None else self.best} if self.metric else {}
        self.checkpoints.save(step, {"state": state, **best}, info)

    def _write_training(self) -> None:
        """Writes the training metrics that were due one call ago, and so are ready without waiting."""
        if self.unwritten is None:
            return
        (step, sums), self.unwritten = self.unwritten, None
        now = self.elapsed
        rate = (step - self.logged) / max(now - self.logged_at, 1e-9)
        self.logged, self.logged_at = step, now
        means = member_means(self.program.task, sums, len(self.members))
        going = [(member, values) for member, values in zip(self.members, means, strict=True) if not member.over]
        for member, values in going:
            member.write(step, "train", self.elapsed, {**values, "steps_per_s": rate})
        shown = [name for name in self.program.task.METRICS if name in means[0]][:2]
        self.progress.show({name: [values[name] for _, values in going] for name in shown})

    def _validate(self, state: TrainState, step: int) -> TrainState:
        """Writes the validation metrics, keeps each member's best parameters, and ends members that have stopped improving."""
        measured = [m.metrics for m in self.program.evaluate(state.params, state.batch_stats, "validation")]
        self.progress.forget_once()
        if self.metric:
            lower = self.program.task.METRICS[self.metric.partition("/")[0]] == "lower"
            _, slash, bucket = self.metric.partition("/")
            better = [
                not member.over
                and member.compare(values[self.metric], values[f"loss{slash}{bucket}"], step, lower_is_better=lower)
                for member, values in zip(self.members, measured, strict=True)
            ]
            new = state.variables
            self.best = choose(self._mask(better), new, new if self.best is None else self.best)
        going = [(member, values) for member, values in zip(self.members, measured, strict=True) if not member.over]
        for member, values in going:
            member.write(step, "validation", self.elapsed, values)
        if self.verbose:
            shown = {name: [values[name] for _, values in going] for name in measured[0] if "/" not in name}
            line = "  ".join(f"{name} {format_spread(values)}" for name, values in shown.items())
            self.progress.say(f"step {step}  validation  {line}")
        return self._end_patient(state, step)

    def _end_patient(self, state: TrainState, step: int) -> TrainState:
        """Ends the members that have not become better for as long as ``eval.patience`` says."""
        patience = self.config.eval.patience
        stopped = [bool(patience and m.best and not m.over and m.best.age >= patience) for m in self.members]
        for i, member in enumerate(self.members):
            if stopped[i]:
                member.ending = Ending("finished", step, f"no better {self.metric} in {patience} validations")
                self.progress.say(f"{self._name(i)}stopped at step {step}: {member.ending.reason}")
        return state._replace(alive=state.alive & ~self._mask(stopped)) if any(stopped) else state

    def _end_dead(self, alive: jax.Array, state: TrainState) -> None:
        """Notes which members' numbers are no longer finite, and where; their states are the last good ones."""
        fine = np.atleast_1d(np.asarray(alive))
        for i, member in enumerate(self.members):
            if fine[i] or member.over:
                continue
            own = take_member(state, i, len(self.members))
            step = int(own.step)
            loss_finite, paths = self.program.find_nonfinite(i, own)
            groups = [g for g in self.program.groups if any(path in paths for path in g.paths)]
            named = "; ".join(f"group {g.source}: {g.pattern} ({next(p for p in g.paths if p in paths)})" for g in groups)
            elsewhere = "the update; loss and gradients were finite" if loss_finite else "the loss; every gradient was finite"
            member.ending = Ending("failed", step, f"step {step + 1}: not finite in {named or elsewhere}")
            if len(self.members) > 1:
                self.progress.say(f"{self._name(i)}failed at {member.ending.reason}; the others go on")

    def _leave(self, step: int) -> None:
        self.checkpoints.wait()
        signum = self.signals[0]
        name = signal.Signals(signum).name
        raise Interrupted(signum, f"{name}: saved step {step} of {self._place()}; the same command resumes there")

    def _finish(self, state: TrainState, step: int) -> list[Result]:
        """Tests every member and writes its result; where there are several, each also gets its part of the checkpoint."""
        self.checkpoints.wait()
        tested = self.program.evaluate(state.params, state.batch_stats, "test")
        best_tested = tested if self.best is None else self.program.evaluate(**self.best, stream="test")
        if self.signals:
            self._leave(step)
        results: list[Result] = []
        for i, member in enumerate(self.members):
            if not member.kept:
                ending = member.ending or Ending("finished", step)
                if ending.status == "finished":
                    member.write(ending.steps, "test", self.elapsed, tested[i].metrics)
                if len(self.members) > 1:
                    self._save_part(i, state, ending.steps)
                own = take_member(state, i, len(self.members))
                member.kept = self._result(member, ending, own, tested[i], best_tested[i])
                member.folder.write_result(member.kept)
            results.append(member.kept)
        return results

    def _result(self, member: Member, ending: Ending, own: TrainState, tested: Measured, best_tested: Measured) -> Result:
        result: Any = {
            **ending._asdict(),
            "task": self.config.task.name,
            "layer": self.config.model.layer.name,
            "seed": member.config.seed,
            "parameter_count": sum(leaf.size for leaf in jax.tree.leaves(own.params)),
            "params_sha256": hash_params(own.params),
            "wall_time_s": round(self.elapsed, 3),
            "trained_together": len(self.members),
            "lines_sha256": hash_lines(member.folder.parse_metrics()),
            **describe_origin(member.config),
        }
        if ending.status == "finished":
            best = member.best and {"step": member.best.step, **best_tested._asdict()}
            result |= {**tested._asdict(), "best": best}
        result["numbers_sha256"] = hash_numbers(result)
        return result

    def _save_part(self, i: int, state: TrainState, step: int) -> None:
        """Gives a member a checkpoint of its own, as if it had been trained alone."""
        member, count = self.members[i], len(self.members)
        shutil.rmtree(member.folder.checkpoint_folder, ignore_errors=True)
        with Checkpoints(member.folder.checkpoint_folder) as checkpoints:
            alone = Loop(self.program, [member.with_journal(checkpoints.folder)], checkpoints)
            alone.elapsed_before, alone.best = self.elapsed, None if self.best is None else take_member(self.best, i, count)
            alone._save(*_reviving(take_member(state, i, count), step, member.ending))

    def _mask(self, chosen: Sequence[bool]) -> jax.Array:
        return jnp.asarray(chosen[0] if len(chosen) == 1 else chosen)

    def _name(self, i: int) -> str:
        return f"{self.members[i].folder.path}: " if len(self.members) > 1 else ""

    def _place(self) -> str:
        first = self.members[0].folder.path
        return str(first) if len(self.members) == 1 else f"{len(self.members)} runs in {first.parent}"


def _reviving(state: TrainState, step: int, ending: Ending | None) -> tuple[TrainState, int]:
    """A failed run's last checkpoint is its last good state, from which it can be tried again."""
    if ending is None or ending.status != "failed":
        return state, step
    return state._replace(alive=jnp.ones_like(state.alive)), ending.steps
