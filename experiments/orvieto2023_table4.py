"""Orvieto et al. 2023, Table 4: training speed over the Long Range Arena, and the memory and hours of a whole training."""

from typing import Any

from lrnn_jax.tables.plot_style import WIDTH
from lrnn_jax.tables.studies import Rows, Study

TASKS = {
    "sCIFAR": ("configs/image_classification.py",),
    "ListOps": ("configs/listops.py",),
    "Text": ("configs/text_classification.py",),
    "Retrieval": ("configs/retrieval.py",),
    "Pathfinder": ("configs/pathfinder.py", "32"),
    "Path-X": ("configs/pathfinder.py", "128"),
}
# steps per second on one A100, in the order of the tasks
PUBLISHED = {
    "rnn/tanh": (2.0, 1.1, 0.5, 0.5, 2.1, 0.14),
    "lru/lru": (15.9, 2.1, 14.7, 5.7, 15.5, 2.4),
    "s4d": (13.5, 2.2, 10.6, 3.0, 24.5, 2.6),
    "s5": (15.9, 2.2, 14.4, 5.7, 15.6, 2.3),
}


def study() -> Study:
    """Returns the table."""
    paper = {"setting": "orvieto2023", "tasks": TASKS, "layers": tuple(PUBLISHED)}
    return Study(
        title="Orvieto et al. 2023, Table 4: speed and memory of training over the Long Range Arena",
        source="Table 4: steps per second on one A100, batches of Table 9; S4D has 64 states per channel here.",
        claim="Claim of the paper: the LRU trains as fast as S4D and S5, and several times faster than a dense tanh RNN.",
        compute="lrnn_jax.bench.arena:study_training",
        settings={
            "smoke": {"setting": "smoke", "tasks": {"Text": TASKS["Text"]}, "layers": ("rnn/tanh", "lru/lru"), "rounds": 1},
            "cpu": {
                "setting": "cpu",
                "tasks": {name: TASKS[name] for name in ("sCIFAR", "ListOps", "Text", "Retrieval", "Pathfinder")},
                "layers": tuple(PUBLISHED),
                "rounds": 5,
            },
            "orvieto2023": {**paper, "rounds": 5},
            "memory": {**paper, "rounds": 0, "scan": "associative"},
        },
        figure=draw,
        summary=summarise,
        notes=(
            "Examples are random, all of full length: nothing is read from files.",
            "At setting memory nothing runs: the steps of setting orvieto2023 are compiled with the scans of an accelerator, "
            "and memory is XLA's account of them on this machine, which a GPU's may differ from.",
            "Hours are those of all of Table 9's iterations at the steps per second that the paper had on its A100.",
        ),
    )


def summarise(rows: Rows) -> Rows:
    """Returns the rows beside the paper's numbers where the batches and lengths are the paper's."""
    found = []
    for row in rows:
        shown = dict(row)
        if row["task"] in TASKS and row["layer"] in PUBLISHED and is_paper(row):
            steps = PUBLISHED[row["layer"]][list(TASKS).index(row["task"])]
            shown |= {"A100 steps/s (Table 4)": steps, "A100 hours": row["iterations"] / steps / 3600}
        found.append(shown)
    return found


def is_paper(row: Any) -> bool:
    """Returns whether a row's training is as long as Table 9 says, which no other setting's is."""
    iterations = {"sCIFAR": 180, "ListOps": 80, "Text": 50, "Retrieval": 100, "Pathfinder": 500, "Path-X": 250}
    return bool(row["iterations"] == 1000 * iterations[row["task"]])


def draw(figure: Any, rows: Rows) -> None:
    """Draws bars per task and layer: steps per second, or memory where nothing ran."""
    tasks, layers = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "layer"))
    measured = any(row["steps/s"] is not None for row in rows)
    figure.set_size_inches(WIDTH, 4.0)
    axes = figure.subplots()
    for number, layer in enumerate(layers):
        own = {row["task"]: row for row in rows if row["layer"] == layer}
        places = [place + (number - (len(layers) - 1) / 2) * 0.2 for place in range(len(tasks))]
        axes.bar(places, [own[task]["steps/s" if measured else "GiB"] or 0 for task in tasks], 0.18, label=layer)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylabel("training steps per second" if measured else "memory of a training step, GiB")
    if measured:
        axes.set_yscale("log")
        for choose in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            choose("{x:g}")
    figure.legend(loc="outside lower center", ncols=len(layers), title="layer")
