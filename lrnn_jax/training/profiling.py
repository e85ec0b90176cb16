"""A trace of a few steps by JAX's profiler, for TensorBoard, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def profiled_steps(text: str) -> tuple[int, ...]:
    """Returns the first step of ``log.profile`` and the one after the last, or nothing where it is empty."""
    return tuple(map(int, text.split(":"))) if text else ()


class Profile:
    """Starts and ends the trace of ``log.profile`` where a run reaches its steps."""

    def __init__(self, text: str, folder: Path) -> None:
        """Takes the field and the folder that the trace goes into."""
        self._steps, self._folder, self._begun = profiled_steps(text), folder, False

    def reach(self, step: int, state: Any, say: Callable[[str], object]) -> None:
        """Says that ``step`` steps are asked for, of which ``state`` is the result; the trace holds whole steps."""
        if not self._steps:
            return
        first, last = self._steps
        if first <= step < last and not self._begun:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._begun = True
        elif step >= last and self._begun:
            jax.block_until_ready(state)
            self.close()
            say(f"profile of steps {first} to {last}: {self._folder}")

    def close(self) -> None:
        """Ends a trace that has begun."""
        if self._begun:
            jax.profiler.stop_trace()
            self._begun, self._steps = False, ()
