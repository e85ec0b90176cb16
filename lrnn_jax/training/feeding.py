"""Batches of a file task, stacked for one compiled call, and made while the device is busy with the one before."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, EvaluationSet, FileTask
from lrnn_jax.training.steps import Part


class Feed:
    """What a program's members read, by step: nothing here needs saving."""

    def __init__(self, task: FileTask, configs: Sequence[ConfigDict]) -> None:
        """Opens the files.

        Args:
          task: of all members.
          configs: one per member, which differ in hyper-parameters only.

        Raises:
          UserError: the files cannot be used, or hold too few examples.
        """
        config = configs[0]
        self._task = task
        self._most = config.train.steps_per_dispatch
        length, size = tuple(config.train.length), config.train.batch_size
        process = (jax.process_index(), jax.process_count())
        self._train = [task.train_batches(size, length, c.seed, process=process) for c in configs]
        self._next: tuple[int, int, Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        wanted = config.eval.examples
        for split in ("validation", "test"):
            for each in task.evaluation_sets(config.eval.lengths):
                held = self.held(split, each)
                if held < max(wanted, 1):
                    raise UserError(
                        f"eval.examples={wanted}: the {split} split has only {held} of eval.lengths={list(each.length)} "
                        "(0 takes all there are)"
                    )

    def take(self, start: int, steps: int, *, following: int = 0) -> Batch:
        """Returns the batches of steps ``start`` to ``start + steps - 1``, stacked ``[K ...]``, or ``[S K ...]`` for members.

        K is always what ``shape`` says: the last batch stands in for those that are too many.

        Args:
          start: optimiser steps taken before.
          steps: how many batches are wanted.
          following: steps that will probably be asked for next; their batches are begun at once.
        """
        expected, self._next = self._next, None
        ready = expected[2] if expected and expected[:2] == (start, steps) else None
        batches = ready.result() if ready else self._stack(start, steps)
        if following:
            self._next = (start + steps, following, self._thread.submit(self._stack, start + steps, following))
        return batches

    def batch_at(self, member: int, step: int) -> Batch:
        """Returns one member's batch of one step."""
        return self._train[member][step]

    def held(self, split: str, evaluation_set: EvaluationSet) -> int:
        """Returns how many examples an evaluation set has."""
        return len(self._task.evaluation_rows(split, evaluation_set))

    def evaluation(self, split: str, part: Part, first: int) -> Batch:
        """Returns the batches of an evaluation set from the ``first`` on that one compiled call takes, stacked ``[K ...]``.

        They are the same for every member and every time. The split's last example stands in for those beyond it.
        """
        length, size = part.set.length, part.batch_size
        rows = self._task.evaluation_rows(split, part.set)
        numbers = np.minimum(np.arange(first * size, (first + part.batches) * size), len(rows) - 1)
        examples = [rows[int(i)] for i in numbers]
        stacked = [_stack(examples[i : i + size]) for i in range(0, len(examples), size)]
        return _stack([self._task.collate(batch, length) for batch in stacked])

    @functools.cached_property
    def shape(self) -> Batch:
        """Shapes and dtypes of what `take` returns."""
        lead = (self._most,) if len(self._train) == 1 else (len(self._train), self._most)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), self.batch_at(0, 0))

    def _stack(self, start: int, steps: int) -> Batch:
        each = [
            _stack([batches[step] for step in range(start, start + steps)], repeat=self._most - steps)
            for batches in self._train
        ]
        return each[0] if len(each) == 1 else _stack(each)


def _stack(batches: Sequence[Batch], *, repeat: int = 0) -> Batch:
    """Stacks arrays leaf by leaf; the last one ``repeat`` more times."""
    return jax.tree.map(lambda *leaves: np.stack([*leaves, *leaves[-1:] * repeat]), *batches)
