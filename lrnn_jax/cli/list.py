"""The command ``lrnn list``."""

import ast
import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from absl import flags

from lrnn_jax.cli.text import align
from lrnn_jax.errors import UserError, suggest


def _list_layers() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import LAYERS, load_layer

    rows: list[tuple[str, ...]] = [("layer", "methods", "source")]
    return rows + [(name, ", ".join(load_layer(name).METHODS), load_layer(name).SOURCE) for name in LAYERS]


def list_layers_with_sizes(width: int) -> list[tuple[str, ...]]:
    """Returns parameters and floats of one sequence's state by the closed formulas with default fields, and the variants."""
    from lrnn_jax.registry import LAYERS, load_layer

    rows: list[tuple[str, ...]] = [("layer", f"parameters (D={width})", "", "state", "", "methods", "variants", "source")]
    for name in LAYERS:
        cls = load_layer(name)
        layer = cls(width=width, parent=None)
        cls.check({field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)})
        sizes: list[str] = []
        for what in ("parameter_count", "state_count"):
            formula = _as_polynomial(functools.partial(_size, cls, what), width)
            if not formula and what == "parameter_count":
                formula = cls.PARAMETER_FORMULA
            sizes += f"{_size(cls, what, width):,}", f"= {formula}" if formula else ""
        rows.append((name, *sizes, ", ".join(cls.METHODS), ", ".join(cls.VARIANTS), cls.SOURCE))
    return rows


def _size(cls: Any, what: str, width: int) -> int:
    return getattr(cls(width=width, parent=None), what)()


def _as_polynomial(count: Callable[[int], int], width: int) -> str:
    """Returns ``count(D)`` written out, or nothing where it is no polynomial of degree 2 (ranks that are rounded).

    It is that of the multiples of 64, if the width's count is on it too.
    """
    step = 64
    ys = [count(step * i) for i in range(1, 6)]
    square = Fraction(ys[2] - 2 * ys[1] + ys[0], 2 * step**2)
    linear = Fraction(ys[1] - ys[0], step) - 3 * step * square
    constant = ys[0] - linear * step - square * step**2
    known = [*((step * i, y) for i, y in enumerate(ys, 1)), (width, count(width))]
    if any(y != square * d**2 + linear * d + constant for d, y in known):
        return ""
    powers = {"D^2": square, "D": linear, "": constant}
    terms = [(f"{float(factor):.10g}", power) for power, factor in powers.items() if factor]
    terms_written = [power if power and factor == "1" else f"{factor} {power}".rstrip() for factor, power in terms]
    return " + ".join(terms_written)


def _list_tasks() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import TASKS, load_task

    rows: list[tuple[str, ...]] = [("task", "lengths", "what")]
    for name in TASKS:
        task = load_task(name)
        lengths = f"{task.EVAL_LENGTHS[0][0]}-{task.EVAL_LENGTHS[-1][1]}"
        rows.append((name, lengths, (task.__doc__ or "").splitlines()[0]))
    return rows


def _list_configs() -> list[tuple[str, ...]]:
    from lrnn_jax.config.files import find_config, load_get_config

    rows: list[tuple[str, ...]] = [("config", "settings", "what")]
    for path, what in _list_files("configs", suffix=".py"):
        settings = getattr(load_get_config(find_config(path)), "settings", {})
        rows.append((path, ", ".join(settings), what))
    return rows


def _list_tables() -> list[tuple[str, ...]]:
    return [("table", "what"), *_list_files("experiments", suffix="")]


def _list_files(folder: str, *, suffix: str) -> list[tuple[str, ...]]:
    from lrnn_jax.config.files import data_folder

    prefix = f"{folder}/" if suffix else ""
    rows: list[tuple[str, ...]] = []
    for file in sorted(data_folder(folder).glob("*.py")):
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        rows.append((f"{prefix}{file.stem}{suffix}", doc.splitlines()[0] if doc else ""))
    return rows


LISTS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "layers": _list_layers,
    "tasks": _list_tasks,
    "configs": _list_configs,
    "tables": _list_tables,
}


def define_list(values: flags.FlagValues) -> None:
    """Adds the command\'s flags."""
    flags.DEFINE_boolean("verbose", False, "layers: also the sizes of parameters and state, and the variants", values)
    flags.DEFINE_integer("width", 128, "layers: the model width D of those sizes", 1, flag_values=values)


def run_list(values: flags.FlagValues, positional: list[str]) -> int:
    """Prints layers, tasks, configs or tables."""
    if len(positional) != 1:
        raise UserError(f"lrnn list needs one of {', '.join(LISTS)}")
    what = positional[0]
    if what not in LISTS:
        raise UserError(f"cannot list {what!r}{suggest(what, LISTS)} (one of {', '.join(LISTS)})")
    if values.verbose and what != "layers":
        raise UserError(f"--verbose is for layers; `lrnn list {what}` has no more to say")
    if values["width"].present and not values.verbose:
        raise UserError("--width is for the sizes that `lrnn list layers --verbose` shows; leave it out, or add --verbose")
    print(align(list_layers_with_sizes(values.width) if values.verbose else LISTS[what]()))
    return 0
