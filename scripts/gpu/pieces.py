"""What an item of `scripts/measure_gpu.py` is made of: small pieces, each with the programs that it needs."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax

Row = dict[str, Any]
# Name to a future of the compiled program: its `result` raises what the compiler raised.
Compiled = Mapping[str, "Future[jax.stages.Compiled]"]


class Piece(NamedTuple):
    """One small measurement, whose rows are written as soon as it has ended.

    Attributes:
      name: unique within the item.
      run: measures, with the compiled programs; returns the rows of a table.
      programs: lowers what must be compiled; several pieces are compiled side by side.
      seconds: about how long it takes on a GPU, compilation included.
    """

    name: str
    run: Callable[[Compiled], list[Row]]
    programs: Callable[[], Mapping[str, jax.stages.Lowered]] = dict
    seconds: float = 10.0


def attempt(measure: Callable[[], Row]) -> Row:
    """Returns what ``measure`` returns, or how it failed: one failure does not end the rest."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - a compiler or a device may fail in any way, and that is the result
        return {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]}
