"""Where metrics go besides ``metrics.jsonl``: the progress line, wandb, TensorBoard."""

import hashlib
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import ConfigDict

from lrnn_jax.config.identity import config_hash
from lrnn_jax.errors import UserError


class Sink(Protocol):
    """A service that metrics are copied to."""

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Forgets what it holds beyond ``lines`` of ``metrics.jsonl``; called once, before the first `write`."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Copies one line of metrics."""

    def close(self) -> None:
        """Flushes."""


def open_sinks(config: ConfigDict, workdir: Path) -> list[Sink]:
    """Opens the services that ``config.log`` asks for; none by default.

    Raises:
      UserError: one of them is not installed or cannot be reached.
    """
    sinks: list[Sink] = []
    if config.log.wandb != "off":
        sinks.append(_Wandb(config, workdir))
    if config.log.tensorboard:
        sinks.append(_TensorBoard(workdir))
    return sinks


class _Wandb:
    def __init__(self, config: ConfigDict, workdir: Path) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=config.log.wandb_project,
                name=workdir.name,
                id=f"{config_hash(config)}-{hashlib.sha256(str(workdir.absolute()).encode()).hexdigest()[:8]}",
                resume="allow",
                reinit="create_new",  # the members of one program each have their own
                mode=config.log.wandb,
                dir=str(workdir),
                config=config.to_dict(),
                settings=wandb.Settings(silent=True),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"log.wandb={config.log.wandb!r}: {str(error).splitlines()[0]} (offline needs no account)"
            ) from error

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Wandb keeps what it has of a step, and the lines that come again are the same."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    def __init__(self, workdir: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError("log.tensorboard=True needs the extra: pip install -e '.[tensorboard]'") from error
        self._folder, self._make = workdir / "tensorboard", SummaryWriter
        self._writer: Any = None

    def restore(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Event files only grow, so that points after the checkpoint would stay in them: they are written anew."""
        for file in self._folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = self._make(str(self._folder))
        began = time.time() - lines[-1]["elapsed_s"] if lines else 0.0
        for line in lines:
            for name in line.keys() - {"step", "split", "elapsed_s"}:
                value = math.nan if line[name] is None else line[name]
                self._writer.add_scalar(f"{line['split']}/{name}", value, line["step"], walltime=began + line["elapsed_s"])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Progress:
    """Steps, steps/s, time left and the latest metrics: one live line on a terminal, else a line every few seconds."""

    def __init__(self, total: int, *, start: int = 0, seconds_between_lines: float = 10.0) -> None:
        """Starts at step ``start`` of ``total``; writes to standard error."""
        self._bar = None
        self._total, self._start = total, start
        # when the last calls had ended, and at which step: the first one was compiled, and says nothing of the others
        self._ends: deque[tuple[float, int]] = deque(maxlen=32)
        self._seconds = seconds_between_lines
        self._last_line = time.monotonic()
        self._metrics, self._validated = "", False
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}"
            self._bar = tqdm(total=total, initial=start, bar_format=form, dynamic_ncols=True)

    def update(self, step: int) -> None:
        """Says that ``step`` steps are done."""
        now = time.monotonic()
        if step > self._start:
            self._ends.append((now, step))
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rate()}{self._metrics}".strip(), refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._last_line >= self._seconds and step > self._start:
            self._last_line = now
            self.say(f"step {step}/{self._total}{self._rate()}{self._metrics}")

    def forget_once(self) -> None:
        """Says that a validation is over: the first one was compiled, and the time left does not count that."""
        if not self._validated:
            self._validated = True
            self._ends.clear()

    def _rate(self) -> str:
        """Steps per second over the last calls, with what was done between them, and the time left at that rate."""
        if len(self._ends) < 2:
            return ""
        (began, first), (ended, last) = self._ends[0], self._ends[-1]
        rate = (last - first) / max(ended - began, 1e-9)
        return f"  {rate:.1f} steps/s  {clock((self._total - last) / rate)} left" if rate else ""

    def show(self, values: Mapping[str, Sequence[float]]) -> None:
        """Puts metrics on the line, of one run or of several."""
        text = "  ".join(f"{name} {format_spread(numbers)}" for name, numbers in values.items())
        self._metrics = f"  {text}"

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()


def format_spread(numbers: Sequence[float]) -> str:
    """Returns one number, or the mean and range of several."""
    if len(numbers) < 2:
        return "".join(f"{number:.4f}" for number in numbers)
    return f"{sum(numbers) / len(numbers):.4f} ({min(numbers):.3f} to {max(numbers):.3f})"


def clock(seconds: float) -> str:
    """Returns a time as minutes and seconds, or as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
