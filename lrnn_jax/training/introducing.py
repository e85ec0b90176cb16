"""The first lines of a run: what is trained, where, on what, and for how long."""

from collections.abc import Sequence
from pathlib import Path

import jax

from lrnn_jax.runs.origin import describe_device
from lrnn_jax.training.program import Program


def introduce(program: Program, workdirs: Sequence[Path]) -> str:
    """Returns two lines on a program's runs: task, layer, seeds and folder; device, parameters and steps."""
    config, many = program.config, program.members > 1
    seeds = list(dict.fromkeys(str(config.seed) for config in program.configs))
    shown = ", ".join(seeds[:8] + (["..."] if len(seeds) > 8 else []))
    size = sum(leaf.size for leaf in jax.tree.leaves(program.state_shapes.params)) // program.members
    every = ", ".join(f"{name} every {program.every[name]}" for name in ("eval", "checkpoint"))
    return (
        f"training {f'{program.members} runs of ' if many else ''}{config.task.name} with {config.model.layer.name}, "
        f"seed{'s' if len(seeds) > 1 else ''} {shown}, in {workdirs[0].parent if many else workdirs[0]}\n"
        f"on {describe_device()}: {size:,} parameters{' each' if many else ''}, {program.total} steps "
        f"of {config.train.batch_size} examples of up to {config.train.length[1]} positions, {every} steps"
    )
