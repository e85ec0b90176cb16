"""Batches of a file task, stacked for one compiled call, and made while the device is busy with the one before."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from ml_collections import ConfigDict

from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, FileTask


class Feed:
    """What a program's members read, by step: nothing here needs saving."""

    def __init__(self, task: FileTask, configs: Sequence[ConfigDict]) -> None:
        """Opens the files.

        Args:
          task: of all members.
          configs: one per member, which differ in traced fields only.

        Raises:
          UserError: the files cannot be used, or hold too few examples.
        """
        config = configs[0]
        self._task, self._eval = task, config.eval
        self._length = tuple(config.train.length)
        process = (jax.process_index(), jax.process_count())
        size = config.train.batch_size
        self._train = [task.splits(size, self._length, c.seed, process=process)["train"] for c in configs]
        self._next: tuple[int, int, Future[Batch]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        wanted = config.eval.examples
        for split in ("validation", "test"):
            for bucket in config.eval.lengths:
                held = len(task.rows(split, tuple(bucket)))
                if held < wanted:
                    raise UserError(f"eval.examples={wanted}: the {split} split has only {held} of eval.lengths={bucket}")

    def take(self, start: int, steps: int, *, following: int = 0) -> Batch:
        """Returns the batches of steps ``start`` to ``start + steps - 1``, stacked ``[K ...]``, or ``[S K ...]`` for members.

        Args:
          start: optimiser steps taken before.
          steps: K.
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

    def evaluation(self, split: str, bucket: tuple[int, int]) -> Batch:
        """Returns all batches of a length bucket, stacked ``[N ...]``: the same for every member and every time."""
        size = min(self._eval.batch_size, self._eval.examples)
        batches = self._task.splits(size, bucket, 0)[split]
        return _stack([batches[i] for i in range(self._eval.examples // size)])

    def shape(self, steps: int) -> Batch:
        """Returns shapes and dtypes of what `take` returns."""
        lead = (steps,) if len(self._train) == 1 else (len(self._train), steps)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype), self.batch_at(0, 0))

    def _stack(self, start: int, steps: int) -> Batch:
        each = [_stack([batches[step] for step in range(start, start + steps)]) for batches in self._train]
        return each[0] if len(each) == 1 else _stack(each)


def _stack(batches: Sequence[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
