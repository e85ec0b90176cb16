"""What ``lrnn list`` shows."""

import ast
import dataclasses
from collections.abc import Callable


def _list_layers() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import LAYERS, load_layer

    rows: list[tuple[str, ...]] = [("layer", "methods", "source")]
    return rows + [(name, ", ".join(load_layer(name).METHODS), load_layer(name).SOURCE) for name in LAYERS]


def list_layers_with_sizes(width: int) -> list[tuple[str, ...]]:
    """Returns parameters and floats of one sequence's state by the layers' closed formulas, with their default fields."""
    from lrnn_jax.registry import LAYERS, load_layer

    rows: list[tuple[str, ...]] = [("layer", f"parameters (D={width})", "state", "methods", "source")]
    for name in LAYERS:
        cls = load_layer(name)
        layer = cls(width=width, parent=None)
        cls.check({field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)})
        rows.append((name, f"{layer.parameter_count():,}", f"{layer.state_count():,}", ", ".join(cls.METHODS), cls.SOURCE))
    return rows


def _list_tasks() -> list[tuple[str, ...]]:
    from lrnn_jax.registry import TASKS, load_task

    rows: list[tuple[str, ...]] = [("task", "lengths", "what")]
    for name in TASKS:
        task = load_task(name)
        lengths = f"{task.EVAL_LENGTHS[0][0]}-{task.EVAL_LENGTHS[-1][1]}"
        rows.append((name, lengths, (task.__doc__ or "").splitlines()[0]))
    return rows


def _list_configs() -> list[tuple[str, ...]]:
    return [("config", "what"), *_list_files("configs", suffix=".py")]


def _list_tables() -> list[tuple[str, ...]]:
    return [("table", "what"), *_list_files("experiments", suffix="")]


def _list_files(folder: str, *, suffix: str) -> list[tuple[str, ...]]:
    from lrnn_jax.config_files import data_folder

    prefix = f"{folder}/" if suffix else ""
    rows: list[tuple[str, ...]] = []
    for file in sorted(data_folder(folder).glob("*.py")):
        doc = ast.get_docstring(ast.parse(file.read_text())) or ""
        rows.append((f"{prefix}{file.stem}{suffix}", doc.splitlines()[0] if doc else ""))
    return rows


LISTS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "layers": _list_layers,
    "tasks": _list_tasks,
    "configs": _list_configs,
    "tables": _list_tables,
}
