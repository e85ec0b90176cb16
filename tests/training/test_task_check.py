"""A task of one's own is held against what it says of itself, before the training is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from helpers import refuse
from lrnn_jax.registry import TASKS, load_task
from lrnn_jax.tasks.base import Batch, EvaluationSet, Example, FileTask, SyntheticTask
from lrnn_jax.tasks.word_problem import WordProblem
from lrnn_jax.training.task_check import check_batches

SETS = (EvaluationSet("4-4", (4, 4)), EvaluationSet("6-6", (6, 6)))


@dataclasses.dataclass(frozen=True)
class Good(SyntheticTask):
    """The first of two tokens."""

    EVAL_LENGTHS = ((6, 6),)
    CHANCE = 0.5
    vocab_size = 2
    outputs = 2

    def batch(self, key, size, length, split="train"):
        tokens = jax.random.randint(key, (size, length[1]), 0, 2)
        return Batch(tokens, tokens[:, 0], jnp.ones(size), jnp.full(size, length[1], jnp.int32))


def change(**fields):
    """A task whose batches are those of `Good`, but for some fields: what each becomes."""

    class Bad(Good):
        def batch(self, key, size, length, split="train"):
            batch = super().batch(key, size, length, split)
            return batch._replace(**{name: make(batch) for name, make in fields.items()})

    return Bad()


# examples that are not asked, marked as other libraries do
UNASKED = {
    "targets": lambda b: jnp.where(b.inputs[:, 1] > 0, b.targets, -100),
    "weights": lambda b: b.inputs[:, 1].astype(jnp.float32),
}


class Pair(Good):
    """Returns no `Batch`."""

    def batch(self, key, size, length, split="train"):
        return tuple(super().batch(key, size, length, split))


class Short(Good):
    """Takes no split."""

    def batch(self, key, size, length):
        return super().batch(key, size, length)


class Longer(Good):
    """Knows no more tokens at training, but at the longest evaluation."""

    def batch(self, key, size, length, split="train"):
        batch = super().batch(key, size, length, split)
        return batch._replace(inputs=batch.inputs.at[0, -1].set(length[1]))

    vocab_size = 5


class Numbers(Good):
    """Features, and numbers to be met."""

    vocab_size = 0
    METRICS = {"loss": "lower"}

    def example_spec(self, length):
        return Example(jax.ShapeDtypeStruct((length, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32))

    def batch(self, key, size, length, split="train"):
        x = jax.random.normal(key, (size, length[1], 3))
        return Batch(x, 1 / jnp.zeros((size, 2)), jnp.ones(size), jnp.full(size, length[1], jnp.int32))


class Unsure(Numbers):
    """Features by its examples, tokens by its vocabulary."""

    vocab_size = 3


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Unsure(), r"vocab_size=3 does not fit inputs float32\[4 3\], as example_spec says: 0 is for features"),
        (
            change(inputs=lambda b: b.inputs.astype(float)),
            r"batch of 2 examples returns inputs float32\[2 4\], which must be int32\[2 4\], as example_spec\(4\) says",
        ),
        (change(inputs=lambda b: b.inputs[:, 1:]), r"inputs int32\[2 3\], which must be int32\[2 4\]"),
        (change(targets=lambda b: b.inputs), r"targets int32\[2 4\], which must be int32\[2\]"),
        (
            change(weights=lambda b: b.weights[:, None]),
            r"weights float32\[2 1\], which must be float32\[2\], one for each",
        ),
        (change(lengths=lambda b: 4), r"lengths int32\[\], which must be int32\[2\], one for each row"),
        (change(weights=lambda b: None), "returns no weights"),
        (change(reset=lambda b: b.inputs), r"reset int32\[2 4\], which must be bool\[2 4\], one for each position"),
        (Pair(), "batch returns tuple, and not lrnn_jax.tasks.base.Batch"),
        (Short(), r"batch\(key, size, length\) must be batch\(key, size, length, split='train'\): too many"),
        (change(inputs=lambda b: b.inputs + 1), r"batch makes tokens 1..2, which are not within 0..1 \(vocab_size=2\)"),
        (Longer(), r"evaluation_batch makes tokens 0..6, which are not within 0..4 \(vocab_size=5\)"),
        (change(targets=lambda b: b.targets - 1), r"labels -1..0, which are not within 0..1 \(outputs=2\)"),
        (change(**UNASKED), "labels -100..1, .* not even where their weight is 0"),
        (change(lengths=lambda b: b.lengths + 1), "lengths 5..5, which are not within 0..4"),
        (change(weights=lambda b: -b.weights), "weights that are negative"),
        (Numbers(), "targets that are not finite"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_tasks_name(task, said):
    with pytest.raises(ValueError, match=said) as caught:
        check_batches("mine:Bad", task, (4, 4), SETS, 16)
    assert str(caught.value).startswith("task 'mine:Bad': ") and "\n" not in str(caught.value)


def test_what_fits_passes_and_a_label_may_be_anything_to_a_loss_of_ones_own():
    check_batches("mine:Good", Good(), (4, 4), SETS, 16)
    check_batches("mine:Good", Good(train_examples=100), (4, 4), SETS, 16)

    class Own(type(change(**UNASKED))):
        def loss(self, outputs, batch):
            return jnp.zeros(()), jnp.ones(())

    check_batches("mine:Own", Own(), (4, 4), SETS, 16)

    class Rare(Good):
        def evaluation_batch(self, key, i, n, which, split):  # names are its own, and no example of the batch may be asked
            return super().evaluation_batch(key, i, n, which, split)._replace(weights=jnp.zeros(n))

    check_batches("mine:Rare", Rare(), (4, 4), SETS, 16)


def test_an_error_inside_a_batch_is_left_as_it_is():
    with pytest.raises(ZeroDivisionError):
        check_batches("mine:Bad", change(inputs=lambda b: 1 / 0), (4, 4), SETS, 16)


@pytest.mark.parametrize("name", [name for name in TASKS if not issubclass(load_task(name), FileTask)])
def test_the_tasks_of_the_package_are_as_they_say(name):
    task = load_task(name)()
    check_batches(name, task, task.EVAL_LENGTHS[0], task.evaluation_sets(task.EVAL_LENGTHS[-1:]), 16)


def test_a_position_before_the_sequence_is_one_of_the_example():
    assert WordProblem("S3", bos=True).example_spec(5).inputs.shape == (6,)


def test_the_command_says_it_before_anything_is_written(tmp_path):
    said = refuse(
        "train",
        "--config=configs/parity.py:diagonal,smoke",
        f"--config.task.name={__name__}:Short",
        f"--workdir={tmp_path / 'run'}",
    )
    assert "batch(key, size, length) must be" in said
    assert not (tmp_path / "run").exists()
