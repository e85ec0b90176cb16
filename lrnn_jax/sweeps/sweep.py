"""From ``def sweep()`` in a config file to resolved configs, and what running them would take."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.files import load_config, load_sweep
from lrnn_jax.config.identity import config_hash, structure, structure_key
from lrnn_jax.errors import UserError
from lrnn_jax.sweeps.combinators import plain
from lrnn_jax.sweeps.executors import is_due
from lrnn_jax.sweeps.packs import arrange
from lrnn_jax.training.program import Program, compile_part, compile_steps


def resolve_sweep(spec: str, name: str, overrides: Mapping[str, Any]) -> list[ConfigDict]:
    """Returns one config per point of a sweep.

    Args:
      spec: ``FILE[:ARG]``.
      name: of the sweep; empty for ``def sweep()``.
      overrides: fields by dotted path, set before the point's own.

    Raises:
      UserError: no such sweep, a field that does not exist or has another type, or a config that cannot run.
    """
    path, _, arg = spec.partition(":")
    configs = []
    for point in load_sweep(path, name):
        fields = {field: plain(value) for field, value in point.items()}
        words = [word for word in (arg, str(fields.pop("arg", ""))) if word]
        config = load_config(f"{path}:{','.join(words)}", {**overrides, **fields})
        if config.seeds != 1:
            raise UserError(f"seeds={config.seeds} in a sweep: let the sweep run over the field 'seed'")
        validate_config(config)
        configs.append(config)
    return configs


class PlannedProgram(NamedTuple):
    """What one compiled program would take.

    Attributes:
      members: its runs.
      seconds: compilation, training, validations and test.
      bytes: memory of its largest compiled call.
    """

    members: list[ConfigDict]
    seconds: float
    bytes: int


def plan(configs: Sequence[ConfigDict], store: Path, *, executor: str, retry_failed: bool = False) -> list[PlannedProgram]:
    """Compiles what would run, measures one dispatch and one evaluation of each program, and keeps nothing.

    Args:
      configs: resolved configs.
      store: runs that are finished there are left out.
      executor: as in `lrnn_jax.sweeps.executors.execute`.
      retry_failed: as there.
    """
    distinct = list({config_hash(config): config for config in configs}.values())
    todo = [config for config in distinct if is_due(config, store, retry_failed)]
    parts = list(arrange(todo, distinct, store, executor=executor))
    costs: dict[str, tuple[float, float, int]] = {}
    planned = []
    keys = [f"{program.members} {structure_key(program.config)}" for program in parts]
    count = len(set(keys))
    began = time.perf_counter()
    for key, program in zip(keys, parts, strict=True):
        compiled = key in costs and executor == "local"
        if key not in costs:
            done = len(costs)
            named = f"{program.config.task.name} with {program.config.model.layer.name}"
            left = f", about {_minutes((time.perf_counter() - began) / done * (count - done))} left" if done else ""
            print(f"compiling and measuring program {done + 1} of {count}: {named}{left}", file=sys.stderr)
            # what was compiled to see whether it fits is part of the cost
            compile_steps.cache_clear()
            compile_part.cache_clear()
            costs[key] = _measure(program)
        compile_s, run_s, size = costs[key]
        planned.append(PlannedProgram(program.configs, run_s if compiled else run_s + compile_s, size))
    return planned


def count_repeated(configs: Sequence[ConfigDict]) -> int:
    """Returns how many configs are equal to an earlier one, and so are no runs of their own."""
    return len(configs) - len({config_hash(config) for config in configs})


def format_plan(planned: Sequence[PlannedProgram], total: int, repeated: int = 0) -> str:
    """Returns the plan as a table for people.

    Args:
      planned: what `plan` returned.
      total: how many runs the sweep has.
      repeated: how many of them are equal to others, as `count_repeated` says.
    """
    said = f" ({repeated} of them equal to others)" if repeated else ""
    if not planned:
        return f"all {total} runs{said} are finished; nothing to do"
    lines = [f"{'program':<9}{'runs':>5}{'time':>10}{'memory':>12}  first run"]
    for i, program in enumerate(planned):
        config = program.members[0]
        lines.append(
            f"{i + 1:<9}{len(program.members):>5}{_minutes(program.seconds):>10}{program.bytes / 2**20:>8.0f} MiB  "
            f"{config_hash(config)} {config.task.name} {config.model.layer.name} lr={config.optim.lr:g}"
        )
    runs = sum(len(program.members) for program in planned)
    seconds = sum(program.seconds for program in planned)
    lines.append(
        f"{runs} of {total} runs{said} to train, about {_minutes(seconds)} one program after another; nothing was trained"
    )
    return "\n".join(lines)


def describe_structure(configs: Sequence[ConfigDict]) -> str:
    """Says which swept fields shape the program, so that their values cannot share one; empty where none does."""
    fields = [structure(config) for config in configs]
    differing = sorted({path for f in fields for path in f if len({json.dumps(g.get(path)) for g in fields}) > 1})
    count = len({structure_key(config) for config in configs})
    return f"{count} programs, since they shape the program: {', '.join(differing)}" if differing else ""


def take_part(configs: Sequence[ConfigDict], part: str) -> list[ConfigDict]:
    """Returns the i-th of n parts of a sweep, for "i/n" with i from 1; neighbours stay together, for they may share a program.

    Raises:
      UserError: not i/n with 1 <= i <= n.
    """
    first, _, count = part.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UserError(f"--part={part!r} must be I/N with 1 <= I <= N")
    i, n = int(first), int(count)
    return list(configs)[len(configs) * (i - 1) // n : len(configs) * i // n]


def _measure(program: Program) -> tuple[float, float, int]:
    """Returns seconds to compile, seconds to run, and bytes."""
    began = time.perf_counter()
    size = program.memory()
    state = program.init()
    program.evaluate(state.params, state.batch_stats, "validation")
    size_of_call = program.config.train.steps_per_dispatch
    state, _ = program.advance(state, size_of_call, start=0)
    jax.block_until_ready(state)
    compiled = time.perf_counter() - began
    began = time.perf_counter()
    dispatches = 0
    while dispatches < 2 or time.perf_counter() - began < 1.0:
        start = (dispatches + 1) * size_of_call
        state, _ = program.advance(state, size_of_call, start=start)
        jax.block_until_ready(state)
        dispatches += 1
    per_step = (time.perf_counter() - began) / (dispatches * size_of_call)
    began = time.perf_counter()
    program.evaluate(state.params, state.batch_stats, "validation")
    evaluation = time.perf_counter() - began
    evaluations = program.total // program.every["eval"] + (2 if program.config.eval.best_metric else 1)
    return compiled, per_step * program.total + evaluation * evaluations, size


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
