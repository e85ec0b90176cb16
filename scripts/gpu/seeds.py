"""Item `seeds`: training steps per second of many seeds of parity in one program."""

import functools

from scripts.bench_seeds import milliseconds_per_step
from scripts.gpu.pieces import Compiled, Piece, Row


def list_pieces(tiny: bool) -> list[Piece]:
    """Returns one piece per number of members."""
    spec = "configs/parity.py:diagonal,smoke" if tiny else "configs/parity.py"
    sizes = (1, 2) if tiny else (1, 8, 32, 128)
    return [Piece(f"{members} members", functools.partial(time_members, spec, members), seconds=25.0) for members in sizes]


def time_members(spec: str, members: int, _: Compiled) -> list[Row]:
    """One row: a step of all members, and how many times faster that is than as many steps of a single one."""
    ms = single_step(spec) if members == 1 else milliseconds_per_step(spec, members)
    row = {"config": spec, "members": members, "ms per step": ms, "member steps per second": 1e3 * members / ms}
    return [{**row, "times faster": members * single_step(spec) / ms}]


@functools.cache
def single_step(spec: str) -> float:
    """Returns the milliseconds of a single run's step, measured once per process."""
    return milliseconds_per_step(spec, 1)
