"""One run among those of a program, as the host knows it: its folder, its best validation, how it ended."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.results import Result
from lrnn_jax.training.loggers import Sink


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
      best: its best validation so far.
      ending: set once it goes no further.
      kept: its result, where it was finished on its own after the program that it is part of had been interrupted.
    """

    config: ConfigDict
    folder: RunFolder
    sinks: list[Sink]
    best: Best | None = None
    ending: Ending | None = None
    kept: Result | None = None

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
        return {"best": best, "ended": ending, "metrics": self.folder.read_metrics()}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Takes up what `progress` returned; metrics become what they were then."""
        self.best = Best(**saved["best"]) if saved["best"] else None
        self.ending = Ending(**saved["ended"]) if saved["ended"] else None
        self.restore_lines(saved["metrics"])

    def restore_lines(self, lines: list[str]) -> None:
        """Makes the lines of metrics these, in the folder and in the sinks, unless the member has been finished on its own."""
        if self.kept:
            return
        self.folder.restore_metrics(lines)
        for sink in self.sinks:
            sink.restore(self.folder.parse_metrics())
