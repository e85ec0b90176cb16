"""A task's batches against what it says of itself: a mistake in a task is one line, before the training is compiled."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, EvaluationSet, Length, SyntheticTask, Task

# Examples of the batches whose numbers are looked at, at most.
EXAMPLES = 64


def check_batches(name: str, task: Task, length: Length, sets: Sequence[EvaluationSet], batch_size: int) -> None:
    """Refuses a synthetic task whose batches are not as its ``example_spec``, ``vocab_size`` and ``outputs`` say.

    Every task's shapes and dtypes are looked at. So are the numbers, which cost a compilation, of a task from outside this
    package, whose name has a colon. What fails inside the task's own code is left as it is.

    Args:
      name: what the config calls it.
      task: of any kind; one that reads files is not looked at.
      length: (shortest, longest) sequence of the training.
      sets: of the evaluation; the longest is looked at.
      batch_size: examples that a run holds at a time; no more are made.

    Raises:
      UserError: names the task, and what differs.
    """
    if not isinstance(task, SyntheticTask):
        return
    longest = max(sets, key=lambda each: each.length[1])
    _check_shapes(name, task, tuple(length), longest)
    if ":" in name:
        _check_numbers(name, task, tuple(length), longest, min(EXAMPLES, batch_size))


@functools.lru_cache(maxsize=256)
def _check_shapes(name: str, task: SyntheticTask, length: Length, longest: EvaluationSet) -> None:
    """Traces one batch of each kind that a run makes; a task is a value, so one that has passed is not asked again."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    spec = task.example_spec(length[1])
    if spec.tokens != bool(task.vocab_size):
        said = _say(spec.inputs.shape, spec.inputs.dtype)
        raise UserError(
            f"task {name!r}: vocab_size={task.vocab_size} does not fit inputs {said}, as example_spec says: 0 is for features"
        )
    _check_signature(name, task)
    for what, steps, make in _kinds(task, length, longest, 2):
        found = jax.eval_shape(make, key)
        if problem := _compare(task, found, steps, 2):
            raise UserError(f"task {name!r}: {what} {problem}")


def _kinds(
    task: SyntheticTask, length: Length, longest: EvaluationSet, size: int
) -> list[tuple[str, int, Callable[[Any], Batch]]]:
    """What makes batches, each with its name and the positions of its rows."""
    kinds: list[tuple[str, int, Callable[[Any], Batch]]] = [
        ("batch", length[1], lambda key: task.batch(key, size, length, "train"))
    ]
    # by default the training takes what `batch` makes
    if task.train_examples or type(task).train_batch is not SyntheticTask.train_batch:
        kinds.append(("train_batch", length[1], lambda key: task.train_batch(key, jnp.int32(0), size, length)))
    evaluation = (
        "evaluation_batch",
        longest.length[1],
        lambda key: task.evaluation_batch(key, jnp.int32(0), size, longest, "test"),
    )
    return [*kinds, evaluation]


def _check_signature(name: str, task: SyntheticTask) -> None:
    signature = inspect.signature(task.batch)
    try:
        signature.bind("key", 1, (1, 1), "train")
    except TypeError as error:
        raise UserError(f"task {name!r}: batch{signature} must be batch(key, size, length, split='train'): {error}") from error


def _compare(task: SyntheticTask, found: Any, steps: int, size: int) -> str:
    """Returns what is wrong with the shapes and kinds of a batch of ``size`` examples, or nothing."""
    if not isinstance(found, Batch):
        return f"returns {type(found).__name__}, and not lrnn_jax.tasks.base.Batch"
    spec = task.example_spec(steps)
    rows = (spec.rows,) if spec.inputs.ndim > (1 if spec.tokens else 2) else ()
    weights = (size, *(spec.targets.shape[:1] if task.per_position else ()))
    floats, integers = jnp.float32, jnp.int32
    wanted = {
        "inputs": ((size, *spec.inputs.shape), spec.inputs.dtype, f"as example_spec({steps}) says"),
        "targets": ((size, *spec.targets.shape), spec.targets.dtype, f"as example_spec({steps}) says"),
        "weights": (weights, floats, "one for each target"),
        "lengths": ((size, *rows), integers, "one for each row"),
    }
    if found.reset is not None:
        wanted["reset"] = ((size, *rows, spec.steps), jnp.dtype(bool), "one for each position")
    for field, (shape, dtype, why) in wanted.items():
        array = getattr(found, field)
        if array is None:
            return f"returns no {field}"
        if array.shape != shape or _kind(array.dtype) != _kind(dtype):
            found_is = _say(array.shape, array.dtype)
            return f"of {size} examples returns {field} {found_is}, which must be {_say(shape, dtype)}, {why}"
    return ""


def _kind(dtype: Any) -> Any:
    """Integers of any width are one kind, floats another: a task may make more or fewer bits."""
    return next((kind for kind in (jnp.integer, jnp.floating) if jnp.issubdtype(dtype, kind)), dtype)


def _say(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{jnp.dtype(dtype).name}[{' '.join(map(str, shape))}]"


@functools.lru_cache(maxsize=256)
def _check_numbers(name: str, task: SyntheticTask, length: Length, longest: EvaluationSet, examples: int) -> None:
    """Makes the batches in one compiled call."""
    kinds = _kinds(task, length, longest, examples)
    batches = jax.jit(lambda key: [make(key) for _, _, make in kinds])(jax.random.key(0))
    for (what, _, _), batch in zip(kinds, jax.tree.map(np.asarray, batches), strict=True):
        if problem := _find_problem(task, batch):
            raise UserError(f"task {name!r}: {what} makes {problem}")


def _find_problem(task: SyntheticTask, batch: Any) -> str:
    """Returns what is wrong with the numbers of a batch of NumPy arrays, or nothing."""
    tokens = bool(task.vocab_size)
    if tokens and (said := _outside("tokens", batch.inputs, 0, task.vocab_size - 1)):
        return f"{said} (vocab_size={task.vocab_size})"
    weights = np.broadcast_to(batch.weights[(...,) + (None,) * (batch.targets.ndim - batch.weights.ndim)], batch.targets.shape)
    if task.outputs_are_classes and type(task).loss is Task.loss:  # a loss of its own may mean anything by integers
        if said := _outside("labels", batch.targets[weights != 0], 0, task.outputs - 1):
            return f"{said} (outputs={task.outputs})"
        # the cross-entropy of what is beyond is NaN, whatever its weight
        if said := _outside("labels", batch.targets, -task.outputs, task.outputs - 1):
            return f"{said} (outputs={task.outputs}), not even where their weight is 0"
    for field, array in (("inputs", batch.inputs), ("targets", batch.targets), ("weights", batch.weights)):
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            return f"{field} that are not finite"
    if (batch.weights < 0).any():
        return "weights that are negative"
    steps = batch.inputs.shape[-1 if tokens else -2]
    return _outside("lengths", batch.lengths, 0, steps)


def _outside(what: str, values: np.ndarray, least: int, most: int) -> str:
    """Says that numbers are out of range, or nothing."""
    if not values.size or least <= values.min() <= values.max() <= most:
        return ""
    return f"{what} {values.min()}..{values.max()}, which are not within {least}..{most}"
