"""Sizes of BD-LRU and H-LRU at a given number of parameters. It imports no jax, so that configs and tables may use it."""

from collections.abc import Callable

from lrnn_jax.errors import UserError


def count_blocks(width: int, blocks: int, block_size: int) -> int:
    """Returns the parameters of a selective BD-LRU: ``H M ((D + 1)(M + 1) + 2 D)``. Source: Dubinin et al. 2026."""
    return blocks * block_size * ((width + 1) * (block_size + 1) + 2 * width)


def count_channels(width: int, channels: int, order: int) -> int:
    """Returns the parameters of a selective H-LRU: ``H (M + 1)(2 D + 1)``. Source: Dubinin et al. 2026."""
    return channels * (order + 1) * (2 * width + 1)


def fit_blocks(width: int, block_size: int, parameters: int) -> int:
    """Returns the number H of blocks with which a selective BD-LRU comes nearest to a number of parameters.

    Args:
      width: model width D.
      block_size: M.
      parameters: of one layer, without what surrounds it.

    Raises:
      UserError: a size below 1, or fewer parameters than one block has.

    Example: ``fit_blocks(768, 4, 6_500_000)`` is 302, as in the paper's language models.
    """
    return _fit("block", count_blocks, width, "block_size", block_size, parameters)


def fit_channels(width: int, order: int, parameters: int) -> int:
    """Returns the number H of channels with which a selective H-LRU comes nearest to a number of parameters.

    Args:
      width: model width D.
      order: M.
      parameters: of one layer, without what surrounds it.

    Raises:
      UserError: a size below 1, or fewer parameters than one channel has.

    Example: ``fit_channels(128, 5, 789_504)`` is 512, one of the sizes of the paper's tables.
    """
    return _fit("channel", count_channels, width, "order", order, parameters)


def _fit(part: str, count: Callable[[int, int, int], int], width: int, name: str, size: int, parameters: int) -> int:
    for field, value in (("width", width), (name, size)):
        if value < 1:
            raise UserError(f"{field}={value} must be at least 1")
    one = count(width, 1, size)
    if parameters < one:
        raise UserError(
            f"parameters={parameters} must be at least {one}, those of one {part} with {name}={size}, width={width}"
        )
    return round(parameters / one)
