"""Which algorithm runs a recurrence: the names, what each of them serves, and what ``auto`` means on each platform."""

from collections.abc import Mapping
from typing import NamedTuple

import jax


class Serves(NamedTuple):
    """What a method can take beside its inputs.

    Args:
      state: a state before the first position.
      reset: positions where the state starts anew inside a row.
    """

    state: bool = True
    reset: bool = True


def choose_method(
    method: str,
    available: Mapping[str, Serves],
    *,
    accelerator: str,
    cpu: str = "sequential",
    state: bool = False,
    reset: bool = False,
    steps: int = 1,
) -> str:
    """Resolves ``auto`` and refuses a method that does not exist or cannot serve the call.

    On a CPU the sequential loop wins at nearly every measured shape; ``cpu`` names what wins where it does not. On a GPU or TPU
    a loop pays one launch per step, so there ``accelerator`` names the parallel method to take. Where that method cannot serve
    the call, ``auto`` takes the first of ``available`` that can.

    Args:
      method: ``"auto"`` or one of ``available``.
      available: the methods that the scan or layer implements, each with what it serves.
      accelerator: what ``auto`` takes on every platform but the CPU.
      cpu: what ``auto`` takes there.
      state: the call passes a state.
      reset: the call passes resets.
      steps: positions of the call. Over none at all every method is the loop, which does nothing.

    Raises:
      ValueError: there is no such method, or it cannot take the call's state or resets.

    Example: ``choose_method("auto", {"sequential": Serves()}, accelerator="sequential")`` returns ``"sequential"``.
    """
    needs = Serves(state, reset)
    serving = [name for name, serves in available.items() if not _missing(needs, serves)]
    if method == "auto" and serving:
        preferred = cpu if jax.default_backend() == "cpu" else accelerator
        method = preferred if preferred in serving else serving[0]
    if method not in ("auto", *available):
        raise ValueError(f"method {method!r} is not one of {', '.join(('auto', *available))}")
    if method not in serving:
        missing = " and no ".join(_missing(needs, available.get(method, Serves(False, False))))
        instead = f"; use one of {', '.join(('auto', *serving))}" if serving else ", nor does any other"
        raise ValueError(f"method {method!r} takes no {missing}{instead}")
    return method if steps else "sequential"


def _missing(needs: Serves, serves: Serves) -> list[str]:
    return [what for what in Serves._fields if getattr(needs, what) and not getattr(serves, what)]
