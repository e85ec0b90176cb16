"""What is to be measured and what was: the points of a grid, and a row per program at each of them."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from lrnn_jax.bench.measuring import Timed

PASSES = ("forward", "gradients")
DTYPES = ("float32", "bfloat16", "float16")


class Point(NamedTuple):
    """What one group of rivals is measured at.

    Attributes:
      what: name of the family, of the layer, or of the config.
      batch: B.
      length: T.
      width: channels, or model width D.
      block_size: M, the order, or the size of a head; None where there is none.
      dtype: of the inputs.
      passes: "forward", "gradients" (outputs and all gradients), "step" or "decode".
    """

    what: str
    batch: int
    length: int
    width: int
    block_size: int | None
    dtype: str
    passes: str

    @property
    def positions(self) -> int:
        """Positions of all rows."""
        return self.batch * self.length


class Row(NamedTuple):
    """One program at one point.

    Attributes:
      point: where.
      name: of the method or of the peer.
      kind: "auto" (what `auto` takes), "method" (another of ours), "peer", or "bound" (no rival: a part of the work).
      timed: what was measured.
    """

    point: Point
    name: str
    kind: str
    timed: Timed


class Grid(NamedTuple):
    """Every combination of these is a point; see `Point`. An empty ``block_sizes`` takes each name's own."""

    names: tuple[str, ...]
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    block_sizes: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    passes: tuple[str, ...] = PASSES
    methods: tuple[str, ...] = ()
    rounds: int = 7

    def points(self, own_block: dict[str, int | None]) -> Iterator[Point]:
        """Yields the points once each; ``own_block`` has every name's own block size, None where it has none."""
        sizes = {name: (None,) if own_block[name] is None else self.block_sizes or (own_block[name],) for name in self.names}
        for name in self.names:
            for size, width, batch, length, dtype, passes in itertools.product(
                sizes[name], self.widths, self.batches, self.lengths, self.dtypes, self.passes
            ):
                yield Point(name, batch, length, width, size, dtype, passes)
