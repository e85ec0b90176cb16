"""How a compiled program is timed: in turns with its rivals, and always right after a call of itself."""

import functools
import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.training.memory import free_memory
from lrnn_jax.training.program import bytes_needed

Tree = Any

# A call must be this long to be timed alone; shorter ones are timed several at once.
SHORTEST_S, MOST_CALLS = 2e-3, 50
# Nothing is timed in further rounds after so many seconds of timed calls: the median of a few is enough of what is that slow.
ENOUGH_S = 10.0
COMPILED_ONLY = "compiled only"
TRIAD_FLOATS, TRIAD_ROUNDS = 2**25, 7


class Timed(NamedTuple):
    """What was measured of a program. Times are None where it was compiled only, see ``failed``.

    Attributes:
      seconds: median of the rounds, of one call.
      lowest: of the rounds.
      temporary: bytes of XLA's temporary memory at their peak.
      compile_s: seconds to trace, lower and compile.
      moved: bytes of arguments and results, each counted once.
      failed: why there are no times; empty where there are.
    """

    seconds: float | None
    lowest: float | None
    temporary: int | None = None
    compile_s: float | None = None
    moved: int | None = None
    failed: str = ""


class Candidate(NamedTuple):
    """A program and what to call it with.

    Attributes:
      call: the compiled program.
      arguments: its arguments.
      compile_s: seconds to trace, lower and compile it.
      repeats: what one call does so many times, such as training steps; times are those of one.
      program: a hash of what was compiled: two candidates with the same are one.
    """

    call: Any
    arguments: tuple[Tree, ...]
    compile_s: float
    repeats: int = 1
    program: str = ""


def prepare(function: Callable[..., Any], arguments: tuple[Tree, ...], *, repeats: int = 1) -> Candidate:
    """Compiles a function for these arguments."""
    began = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    return Candidate(compiled, arguments, seconds, repeats, hash_program(lowered))


def hash_program(lowered: Any) -> str:
    """Returns a hash of a lowered program's text."""
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def take_turns(candidates: Mapping[str, Candidate], rounds: int) -> dict[str, Timed]:
    """Times every candidate once a round, right after an untimed call of itself.

    Without that call the one after a rival with large temporaries pays for the pages that the system took back.

    Args:
      candidates: by name. Those that need more memory than there is are left out, and so is one whose call fails.
      rounds: how often at most (see `ENOUGH_S`); 0 leaves it at compiling.
    """
    failed = {name: _too_large(candidate) for name, candidate in candidates.items()}
    calls: dict[str, int] = {}
    for name, candidate in candidates.items():
        if rounds and not failed[name]:
            try:
                _time(candidate, 1)
                calls[name] = int(min(MOST_CALLS, max(1, SHORTEST_S // _time(candidate, 1))))
            except Exception as error:  # noqa: BLE001 - whatever a device refuses, the others are still to be measured
                failed[name] = first_line(error)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, count in calls.items():
            if sum(times[name]) * candidates[name].repeats > ENOUGH_S:
                continue
            _time(candidates[name], 1)
            times[name].append(_time(candidates[name], count) / candidates[name].repeats)
    return {
        name: describe(candidate, times.get(name) or [], failed[name] or ("" if rounds else COMPILED_ONLY))
        for name, candidate in candidates.items()
    }


def describe(candidate: Candidate, times: Sequence[float], failed: str = "") -> Timed:
    """Joins a program's times with XLA's account of it."""
    account = candidate.call.memory_analysis()
    return Timed(
        statistics.median(times) if times else None,
        min(times) if times else None,
        account.temp_size_in_bytes,
        candidate.compile_s,
        account.argument_size_in_bytes + account.output_size_in_bytes,
        failed,
    )


@functools.cache
def triad_bandwidth() -> float:
    """Returns the bytes per second of ``a + 3 b`` over 128 MiB each, with a fresh result, reads and writes counted once."""
    a, b = (jnp.full((TRIAD_FLOATS,), value, jnp.float32) for value in (1.0, 2.0))
    triad = prepare(lambda a, b: a + 3.0 * b, (a, b))
    seconds = take_turns({"triad": triad}, TRIAD_ROUNDS)["triad"].seconds
    assert seconds is not None
    return 3 * a.nbytes / seconds


def largest_error(actual: Tree, expected: Tree) -> float:
    """Returns the largest error of any array, relative to its largest entry."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    arrays = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs]
    return float(np.max([np.abs(x - y).max(initial=0) / max(np.abs(y).max(initial=0), 1e-30) for x, y in arrays]))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error with its kind, not too long for a table."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:200]


def say(text: str) -> None:
    """Prints a line of progress."""
    print(text, file=sys.stderr, flush=True)


def _too_large(candidate: Candidate) -> str:
    needed = bytes_needed(candidate.call)
    return f"not run: needs {needed / 2**30:.0f} GiB" if needed > free_memory() else ""


def _time(candidate: Candidate, calls: int) -> float:
    """Returns the seconds of one of several calls."""
    began = time.perf_counter()
    for _ in range(calls):
        result = candidate.call(*candidate.arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / calls
