"""One run among those of a program, as the host knows it: its folder, its best validation, how it ended."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.journal import Journal
from lrnn_jax.runs.results import Result
from lrnn_jax.training.loggers import Sink, open_sinks


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
      status: "finished" or "failed".
      steps: optimiser steps that made its parameters.
      reason: why it ended before its time; None where it did not.
    """

    status: str
    steps: int
    reason: str | None = None


class Best(NamedTuple):
    """A run's best validation so far.

    Attributes:
      step: when it was.
      value: of the metric that chooses.
      age: validations since ``value`` was first reached.
      loss: the validation loss, by which equal values are told apart; infinite in checkpoints that are older than it.
    """

    step: int
    value: float
    age: int = 0
    loss: float = math.inf


@dataclasses.dataclass
class Member:
    """What the host knows of one run.

    Attributes:
      config: its config.
      folder: its folder.
      sinks: where its metrics go besides the folder.
      journal: beside the checkpoints that it is part of.
      best: its best validation so far.
      ending: set once it goes no further.
      kept: its result, where it was finished on its own after the program that it is part of had been interrupted.
    """

    config: ConfigDict
    folder: RunFolder
    sinks: list[Sink]
    journal: Journal
    best: Best | None = None
    ending: Ending | None = None
    kept: Result | None = None

    def with_journal(self, checkpoint_folder: Path) -> "Member":
        """Returns this member with a new journal, in a folder of checkpoints that is its own."""
        return dataclasses.replace(self, journal=_name_journal(checkpoint_folder, 0))

    @property
    def over(self) -> bool:
        """Whether nothing more is to be written of it."""
        return bool(self.ending or self.kept)

    def write(self, step: int, split: str, elapsed: float, values: Mapping[str, float]) -> None:
        """Writes one line of metrics, to the folder and to the sinks."""
        self.folder.append_metrics({"step": step, "split": split, "elapsed_s": elapsed, **values})
        for sink in self.sinks:
            sink.write(step, {f"{split}/{name}": value for name, value in values.items()})

    def compare(self, value: float, loss: float, step: int, *, lower_is_better: bool) -> bool:
        """Says whether a validation is the best so far, and notes it. Of equal ones the best has the lowest loss."""
        old = self.best.value if self.best else math.inf if lower_is_better else -math.inf
        if value < old if lower_is_better else value > old:
            self.best = Best(step, value, loss=loss)
            return True
        if not self.best:
            return False
        # patience waits for a better value: a loss that goes on falling does not prolong a run
        self.best = self.best._replace(age=self.best.age + 1)
        if value == old and loss < self.best.loss:
            self.best = self.best._replace(step=step, loss=loss)
            return True
        return False

    def progress(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of it, as JSON values."""
        best, ending = (part and part._asdict() for part in (self.best, self.ending))
        # a member that was finished on its own has lines of its own since
        lines = self.journal.mark() if self.kept else self.journal.follow(self.folder.metrics_file)
        return {"best": best, "ended": ending, "metrics": lines}

    def find_lines(self, saved: Mapping[str, Any]) -> bytes:
        """Returns the lines of metrics that `progress` told of; none where the member needs them no more.

        Raises:
          ValueError: they are damaged wherever they were.
        """
        lines = saved["metrics"]
        if isinstance(lines, list):  # checkpoints held the lines themselves once
            return "".join(f"{line}\n" for line in lines).encode()
        with suppress(ValueError) if self.kept else nullcontext():  # it has been finished on its own
            return self.journal.find(lines, self.folder.metrics_file)
        return b""

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Takes up what `progress` returned; metrics become what they were then."""
        self.best = Best(**saved["best"]) if saved["best"] else None
        self.ending = Ending(**saved["ended"]) if saved["ended"] else None
        self.restore_lines(self.find_lines(saved))

    def restore_lines(self, lines: bytes) -> None:
        """Makes the lines of metrics these, in the folder and in the sinks, unless the member has been finished on its own."""
        self.journal.restore(lines)
        if self.kept:
            return
        self.folder.restore_metrics(lines)
        for sink in self.sinks:
            sink.restore(self.folder.parse_metrics())


def open_members(configs: Sequence[ConfigDict], folders: Sequence[RunFolder], checkpoint_folder: Path) -> list[Member]:
    """Returns the members of a program, with what their configs log to and a journal each beside the program's checkpoints.

    Raises:
      UserError: as `open_sinks`.
    """
    return [
        Member(config, folder, open_sinks(config, folder.path), _name_journal(checkpoint_folder, i))
        for i, (config, folder) in enumerate(zip(configs, folders, strict=True))
    ]


def _name_journal(checkpoint_folder: Path, member: int) -> Journal:
    return Journal(checkpoint_folder / f"metrics-{member}.jsonl")
