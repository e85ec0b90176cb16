"""Which algorithm runs a recurrence: the names, and what ``auto`` means on each platform."""

from collections.abc import Sequence

import jax


def choose_method(method: str, available: Sequence[str], *, accelerator: str, cpu: str = "sequential") -> str:
    """Resolves ``auto`` and refuses a method that the caller does not have.

    On a CPU the sequential loop wins at nearly every measured shape; ``cpu`` names what wins where it does not. On a GPU or TPU
    a loop pays one launch per step, so there ``accelerator`` names the parallel method to take.

    Args:
      method: ``"auto"`` or one of ``available``.
      available: the methods that the scan or layer implements.
      accelerator: what ``auto`` takes on every platform but the CPU.
      cpu: what ``auto`` takes there.

    Raises:
      ValueError: the method is not available here.
    """
    if method == "auto":
        return cpu if jax.default_backend() == "cpu" else accelerator
    if method not in available:
        raise ValueError(f"method {method!r} is not one of {', '.join(('auto', *available))}")
    return method
