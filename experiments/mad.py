"""The MAD benchmark (Poli et al. 2024): six synthetic tasks, each at a baseline and with one variable changed at a time."""

from typing import Any

from lrnn_jax.config.files import data_folder, load_sweep
from lrnn_jax.tables.declaring import Column, Row, Selection, Table, newcomer

TASKS = (
    "compression",
    "fuzzy_in_context_recall",
    "in_context_recall",
    "memorization",
    "noisy_in_context_recall",
    "selective_copying",
)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BD-LRU m=4": ("bd_lru", {"model.layer.block_size": 4, "model.layer.blocks": 32}),
    "H-LRU m=4": ("h_lru", {"model.layer.order": 4, "model.layer.channels": 64}),
    "DeltaNet [-1, 1]": ("deltanet/negative", {}),
    "Gated DeltaNet [-1, 1]": ("gated_deltanet/negative", {}),
    "Mamba2": ("mamba2/positive", {}),
    "LSTM": ("lstm", {}),
}


def difficulties(task: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the name and the config fields of a task's baseline, which changes none, and of each change of one variable."""
    points = load_sweep(str(data_folder("configs") / f"{task}.py"), "difficulties")
    return [(_describe(point), point) for point in points]


def _describe(point: dict[str, Any]) -> str:
    for field, value in point.items():
        if field.startswith("task."):
            return f"{field.removeprefix('task.')} {value}"
    return f"length {point['train.length'][0]}" if point else "baseline"


def table(layer: str = "") -> Table:
    """Returns the benchmark, with a row for ``layer`` if one is given."""
    columns = tuple(
        Column(
            f"{task}, {name}",
            f"configs/{task}.py",
            fields=fields,
            settings=() if name == "baseline" else ("mad",),
            group=task,
        )
        for task in TASKS
        for name, fields in difficulties(task)
    )
    rates = load_sweep(str(data_folder("configs") / "in_context_recall.py"), "mad")
    return Table(
        title="MAD (Poli et al. 2024): macro accuracy of six tasks",
        source="no published number stands here.",
        claim=(
            "A layer's MAD score is the mean over the tasks, and a task's the mean over its columns. "
            "At setting mad each column is the best of three learning rates and two weight decays."
        ),
        metric="macro_accuracy",
        columns=columns,
        rows=(*(Row(name, own, fields=fields) for name, (own, fields) in MODELS.items()), *newcomer(layer)),
        seeds=3,
        settings=("smoke", "cpu", "mad"),
        paper="mad",
        selection=Selection(grids={"mad": rates}),
        total=True,
        over_sizes=True,
        legend="layer",
        notes=("At settings cpu and smoke there are the six baselines alone, smaller than the benchmark's.",),
    )
