"""Item `methods`: every way of running every scan, forward and with all gradients, beside what the card can copy."""

import functools
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lrnn_jax.bench.cases import Case, Sizes, make_cases
from lrnn_jax.bench.peers import scan_real
from lrnn_jax.bench.scanning import draw_arguments, make_cotangents, pull_back
from scripts.gpu.pieces import Compiled, Piece, Row, attempt

Tree = Any

SIZES = Sizes(width=1024, heads=16, key=64, value=64, states=16, matrix=32, window=512)
TINY = Sizes(width=8, heads=2, key=4, value=4, states=2, matrix=3, window=4)
# Rows times positions, the same for all lengths: 64 rows of 256, 8 of 2048, one of 16384.
POSITIONS, TINY_POSITIONS = 16384, 64
# Useful things first, for time may run out.
ORDER = [(2048, "float32"), (2048, "bfloat16"), (256, "float32"), (16384, "float32"), (256, "bfloat16"), (16384, "bfloat16")]
TINY_ORDER = [(16, "bfloat16")]
PLAIN = "plain associative_scan"
ROUNDS, ROUNDS_S = 5, 2.5
# A call must be this long to be timed alone; shorter ones are timed several at once.
SHORTEST_S = 5e-3
MOST_BYTES, LONGEST_S = 40e9, 2.0

# Seconds per call by family, length, dtype, method and kind, as measured in this process.
_measured: dict[tuple[Any, ...], float] = {}


def list_pieces(tiny: bool) -> list[Piece]:
    """Returns the copy, and one piece per length, dtype and family; within one, all methods take turns."""
    cases = make_cases(TINY if tiny else SIZES)
    pieces = [Piece("copy", functools.partial(report_copy, tiny))]
    for length, dtype in TINY_ORDER if tiny else ORDER:
        for name, case in cases.items():
            key = (name, case, length, dtype, tiny)
            run, lower = functools.partial(time_case, *key), functools.partial(lower_case, *key)
            pieces.append(Piece(f"{name} {length} {dtype}", run, lower, seconds=8.0))
    return pieces


@functools.cache
def copy_bandwidth(tiny: bool) -> float:
    """Returns bytes read and written per second by negating 1 GiB of float32."""
    x = jnp.ones((1 << (20 if tiny else 28),), jnp.float32)
    negate = jax.jit(jnp.negative)
    negate(x).block_until_ready()
    return 2 * x.nbytes / statistics.median(_time(negate, (x,), 4) for _ in range(7))


def report_copy(tiny: bool, _: Compiled) -> list[Row]:
    """One row: the measured bandwidth."""
    return [{"family": "copy of 1 GiB" if not tiny else "copy of 4 MiB", "GB/s": copy_bandwidth(tiny) / 1e9}]


def scan_plainly(constants: Tree, xs: Tree, h0: None, reset: None, method: str) -> tuple[Tree, Tree]:
    """The diagonal recurrence by `lax.associative_scan` as it is, gradients by JAX."""
    h = scan_real(constants, xs)
    return h, h[:, -1]


def draw_case(case: Case, length: int, dtype: str, tiny: bool) -> tuple[tuple[Tree, Tree], Tree]:
    """Returns (constants, xs) in ``dtype`` and float32 cotangents of the outputs and the last state."""
    arrays = draw_arguments(case, (TINY_POSITIONS if tiny else POSITIONS) // length, length, dtype)
    return arrays, make_cotangents(functools.partial(case.scan, h0=None, reset=None, method="sequential"), *arrays)


def lower_case(name: str, case: Case, length: int, dtype: str, tiny: bool) -> Mapping[str, Any]:
    """Two programs for each method: outputs, and outputs with the gradients of all inputs."""
    arrays, cotangents = draw_case(case, length, dtype, tiny)
    lowered = {}
    for method, kind in _list_programs(name, case):
        if _predict(name, length, dtype, method, kind) > LONGEST_S:
            continue
        scan = scan_plainly if method == PLAIN else case.scan
        forward = functools.partial(scan, h0=None, reset=None, method=method)
        if kind == "forward":
            lowered[f"{method} {kind}"] = jax.jit(forward).lower(*arrays)
        else:
            lowered[f"{method} {kind}"] = jax.jit(functools.partial(pull_back, forward)).lower(*arrays, cotangents)
    return lowered


def time_case(name: str, case: Case, length: int, dtype: str, tiny: bool, compiled: Compiled) -> list[Row]:
    """One row per method: medians of milliseconds per call, and bytes of arguments and results over the card's bandwidth."""
    arrays, cotangents = jax.device_put(draw_case(case, length, dtype, tiny))
    ready: dict[tuple[str, str], tuple[Any, Tree, int]] = {}
    rows: dict[str, Row] = {}
    for method, kind in _list_programs(name, case):
        row = rows.setdefault(method, {"family": name, "T": length, "rows": jax.tree.leaves(arrays[1])[0].shape[0]})
        row |= {"dtype": dtype, "method": method}
        if f"{method} {kind}" not in compiled:
            seconds = _predict(name, length, dtype, method, kind)
            row[f"{kind} ms"] = f"not run: T=2048 predicts {seconds:.1f} s"
            continue
        arguments = (*arrays, cotangents) if kind == "gradients" else arrays
        result = attempt(functools.partial(_warm_up, kind, compiled[f"{method} {kind}"], arguments))
        if "calls" in result:
            ready[method, kind] = result.pop("program"), arguments, result.pop("calls")
        row |= result
    times: dict[tuple[str, str], list[float]] = {key: [] for key in ready}
    began = time.perf_counter()
    while ready and len(times[next(iter(ready))]) < ROUNDS and time.perf_counter() - began < ROUNDS_S:
        for key, (program, arguments, calls) in ready.items():
            times[key].append(_time(program, arguments, calls))
    for (method, kind), values in times.items():
        seconds = statistics.median(values)
        _measured[name, length, dtype, method, kind] = seconds
        account = ready[method, kind][0].memory_analysis()
        moved = account.argument_size_in_bytes + account.output_size_in_bytes
        rows[method] |= {f"{kind} ms": seconds * 1e3, f"{kind} of copy": moved / seconds / copy_bandwidth(tiny)}
    return list(rows.values())


def _list_programs(name: str, case: Case) -> list[tuple[str, str]]:
    methods = [*case.methods, *([PLAIN] if name == "diagonal" else [])]
    return [(method, kind) for method in methods for kind in ("forward", "gradients")]


def _predict(name: str, length: int, dtype: str, method: str, kind: str) -> float:
    """Seconds of a loop over 16384 positions, by its time for 2048: launches take the time. 0 where nothing is known."""
    if length != 16384 or method != "sequential":
        return 0.0
    known = [_measured.get((name, 2048, other, method, kind), 0.0) for other in (dtype, "float32")]
    return 8 * (known[0] or known[1])


def _warm_up(kind: str, program: Any, arguments: Tree) -> Row:
    """Calls a program twice, so that what it does once is done, unless it needs too much memory."""
    program = program.result()
    account = program.memory_analysis()
    needed = account.argument_size_in_bytes + account.output_size_in_bytes + account.temp_size_in_bytes
    if needed > MOST_BYTES:
        return {f"{kind} ms": f"not run: needs {needed / 1e9:.0f} GB"}
    _time(program, arguments, 1)
    calls = max(1, min(20, int(SHORTEST_S / _time(program, arguments, 1))))
    return {"program": program, "calls": calls, f"{kind} temporary MiB": account.temp_size_in_bytes / 2**20}


def _time(function: Any, arguments: Tree, calls: int) -> float:
    """Returns the seconds of one of several calls."""
    began = time.perf_counter()
    for _ in range(calls):
        result = function(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / calls
