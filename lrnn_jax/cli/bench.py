"""The command ``lrnn bench``."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lrnn_jax.cli.flags import define_path
from lrnn_jax.errors import UserError, suggest

if TYPE_CHECKING:
    from lrnn_jax.bench.grids import Grid

# What is measured, and at which sizes: the flag that names it, batch, length and width.
KINDS: dict[str, tuple[str, int, int, int]] = {
    "scan": ("family", 4, 2048, 256),
    "layer": ("layer", 8, 2048, 256),
    "train": ("layer", 64, 64, 64),
    "decode": ("layer", 1, 256, 256),
}
_ONLY = {"family": ("scan",), "layer": ("layer", "train", "decode"), "config": ("train",)}
_ONLY |= {"method": ("scan", "layer"), "passes": ("scan", "layer")}


def define_bench(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    sizes = {name: "; ".join(f"{kind}: {size[i]}" for kind, size in KINDS.items()) for i, name in enumerate(_SIZES, 1)}
    flags.DEFINE_list("family", None, "scan: families of recurrences, separated by commas (default: all)", values)
    flags.DEFINE_list("layer", None, "layer, train, decode: names of layers (default: all)", values)
    flags.DEFINE_list("method", None, "scan, layer: ways of running (default: all)", values)
    flags.DEFINE_list("batch", None, f"rows B ({sizes['batch']})", values)
    flags.DEFINE_list("length", None, f"positions T, or tokens to decode ({sizes['length']})", values)
    flags.DEFINE_list("width", None, f"channels, or model width D ({sizes['width']})", values)
    flags.DEFINE_list("block_size", None, "m, order or size of a head, of a width's features (default: each one's own)", values)
    flags.DEFINE_list("dtype", None, "float32, bfloat16, float16 (default: float32)", values)
    flags.DEFINE_list("passes", None, "scan, layer: forward, gradients (default: both)", values)
    flags.DEFINE_integer("rounds", 7, "how often each program is timed; 0 compiles only", 0, flag_values=values)
    flags.DEFINE_multi_string("config", [], "train: measures the training of FILE[:ARG] instead; may be repeated", values)
    define_path("out", None, "folder for a Markdown table, a CSV and a plot", values)


_SIZES = ("batch", "length", "width")


def run_bench(values: flags.FlagValues, positional: list[str]) -> int:
    """Measures point after point, then prints the table."""
    kind = _find_kind(positional)
    _refuse_foreign_flags(kind, values)
    grid = _read_grid(kind, values)
    import jax

    from lrnn_jax.bench.measuring import say, triad_bandwidth
    from lrnn_jax.bench.rendering import Report, describe_point, render_markdown, write_report
    from lrnn_jax.runs.origin import describe_device

    rows: list[Any] = []
    measured = _measure(kind, grid, values.config)
    report = Report(kind, rows, triad_bandwidth(), f"{describe_device()}, jax {jax.__version__}", values.rounds)
    try:
        for found in measured:
            rows += found
            times = ", ".join(f"{row.name} {_milliseconds(row)}" for row in found)
            say(f"{describe_point(found[0].point)}: {times}")
    finally:
        # what was measured before an interruption is not lost
        if rows and values.out:
            write_report(report, Path(values.out))
    print(render_markdown(report), end="")
    return 0


def _milliseconds(row: Any) -> str:
    return f"{row.timed.seconds * 1e3:.3g} ms" if row.timed.seconds else row.timed.failed


def _measure(kind: str, grid: "Grid", configs: list[str]) -> Iterable[Any]:
    if kind == "scan":
        from lrnn_jax.bench.scanning import bench_scans

        return bench_scans(grid)
    if configs:
        from lrnn_jax.bench.steps import bench_configs

        return bench_configs(configs, grid.rounds)
    if kind == "train":
        from lrnn_jax.bench.steps import bench_training

        return bench_training(grid)
    from lrnn_jax.bench.layering import bench_decoding, bench_layers

    return bench_layers(grid) if kind == "layer" else bench_decoding(grid)


def _find_kind(positional: list[str]) -> str:
    if len(positional) != 1:
        raise UserError(f"lrnn bench needs one of {', '.join(KINDS)}" + (f", not {len(positional)}" if positional else ""))
    (kind,) = positional
    if kind not in KINDS:
        raise UserError(f"cannot measure {kind!r}{suggest(kind, KINDS)} (one of {', '.join(KINDS)})")
    return kind


def _refuse_foreign_flags(kind: str, values: flags.FlagValues) -> None:
    for name, kinds in _ONLY.items():
        if values[name].value and kind not in kinds:
            raise UserError(f"lrnn bench {kind} takes no --{name}; {', '.join(kinds)} {'do' if len(kinds) > 1 else 'does'}")
    if values.config:
        for name in ("layer", *_SIZES, "block_size", "dtype"):
            if values[name].value:
                raise UserError(f"--{name}: what a --config trains stands in it; use one or the other")


def _read_grid(kind: str, values: flags.FlagValues) -> "Grid":
    from lrnn_jax.bench.grids import DTYPES, PASSES, Grid

    naming, *sizes = KINDS[kind]
    passes = {"train": ("step",), "decode": ("decode",)}.get(kind)
    return Grid(
        names=_read_names(naming, values[naming].value),
        **{
            f"{name}s" if name != "batch" else "batches": _read_sizes(values, name, size)
            for name, size in zip(_SIZES, sizes, strict=True)
        },
        block_sizes=_read_sizes(values, "block_size"),
        dtypes=_choose("dtype", values.dtype or ["float32"], DTYPES),
        passes=passes or _choose("passes", values.passes or PASSES, PASSES),
        methods=tuple(values.method or ()),
        rounds=values.rounds,
    )


def _read_names(naming: str, given: list[str] | None) -> tuple[str, ...]:
    if naming == "family":
        from lrnn_jax.bench.scanning import BLOCKS

        return _choose("family", given or BLOCKS, BLOCKS)
    from lrnn_jax.registry import LAYERS, load_layer

    for name in given or ():
        load_layer(name)
    return tuple(given or LAYERS)


def _read_sizes(values: flags.FlagValues, name: str, default: int | None = None) -> tuple[int, ...]:
    words = values[name].value or ([] if default is None else [default])
    try:
        numbers = tuple(int(word) for word in words)
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise UserError(f"--{name}={','.join(map(str, words))} must hold integers of 1 or more, separated by commas")
    return numbers


def _choose(flag: str, given: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    for word in given:
        if word not in names:
            raise UserError(f"--{flag}={word!r} is not one of {', '.join(names)}{suggest(word, names)}")
    return tuple(given)
