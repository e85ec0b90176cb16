"""Language modelling: rows and resets, order by seed, shares of processes, bits per byte, curves by context."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.data.packing import load_corpus
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, EvaluationSet
from lrnn_jax.tasks.language_modeling import LanguageModeling

LENGTH = (8, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A hundred documents of 5 to 24 letters, none like another."""
    file = tmp_path_factory.mktemp("text") / "letters.jsonl"
    moment = np.random.default_rng(0)
    rows = ["".join(map(chr, moment.integers(97, 123, moment.integers(5, 25)))) for _ in range(100)]
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def task(data):
    return LanguageModeling(data=data)


def train(task, size, seed=0, **how):
    return task.train_batches(size, LENGTH, seed, **how)


def read(dataset, steps):
    return [dataset[i] for i in steps]


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_inputs_targets_and_resets_of_packed_documents(task):
    batch = task.collate(np.array([[256, 97, 98, 256, 99, 100, 101, 102, 256]]), LENGTH)
    assert batch.inputs.tolist() == [[256, 97, 98, 256, 99, 100, 101, 102]]
    assert batch.targets.tolist() == [[97, 98, 256, 99, 100, 101, 102, 256]]
    assert batch.reset.tolist() == [[True, False, False, True, False, False, False, False]]
    assert batch.weights.tolist() == [[1.0] * 8] and batch.lengths.tolist() == [8]
    assert [x.dtype for x in batch] == [np.int32, np.int32, np.float32, np.int32, bool]
    assert LanguageModeling(data=task.data, reset=False).collate(np.zeros((1, 9), int), LENGTH).reset is None


def test_one_epoch_holds_every_row_once_and_the_next_one_in_another_order(task):
    rows = task.rows("train", LENGTH)
    size, count = 4, len(rows) // 4 * 4
    epoch = np.concatenate([b.inputs for b in read(train(task, size), range(2 * len(rows) // size))])
    first, second = epoch[: len(rows)], epoch[len(rows) : 2 * len(rows)]
    everything = sorted(tuple(rows[i][:-1].tolist()) for i in range(len(rows)))
    assert count > 100
    assert sorted(map(tuple, first.tolist())) == everything
    assert len(second) < len(rows) or sorted(map(tuple, second.tolist())) == everything
    assert first[: len(second)].tolist() != second.tolist()
    assert first.tolist() != [rows[i][:-1].tolist() for i in range(len(rows))]
    assert task.epoch_examples(LENGTH) == len(rows)


def test_a_batch_depends_on_seed_and_step_and_nothing_else(task):
    batches = train(task, 4, seed=3)
    forwards, backwards = read(batches, [0, 1, 7, 1000]), read(train(task, 4, seed=3), [1000, 7, 1, 0])
    assert_same(forwards, backwards[::-1])
    other = read(train(task, 4, seed=4), [0, 1, 7, 1000])
    assert all(a.inputs.tolist() != b.inputs.tolist() for a, b in zip(forwards, other, strict=True))


def test_seeds_do_not_share_their_epochs(task):
    """A seed's second epoch is not another seed's first."""
    rows = len(task.rows("train", LENGTH))
    late = train(task, 1, seed=0)
    second = [late[rows + i].inputs.tolist() for i in range(20)]
    for seed in (1, 2):
        assert second != [train(task, 1, seed=seed)[i].inputs.tolist() for i in range(20)]


def test_test_rows_are_shuffled_and_hold_other_text(task):
    rows, shuffled = task.rows("test", LENGTH), task.evaluation_rows("test", EvaluationSet("8-8", LENGTH))
    as_they_stand = [rows[i].tolist() for i in range(len(rows))]
    drawn = [shuffled[i].tolist() for i in range(len(rows))]
    assert drawn != as_they_stand and sorted(drawn) == sorted(as_they_stand)
    held_out = {tuple(task.rows("test", LENGTH)[i].tolist()) for i in range(len(task.rows("test", LENGTH)))}
    training = {tuple(task.rows("train", LENGTH)[i].tolist()) for i in range(len(task.rows("train", LENGTH)))}
    assert held_out and not held_out & training


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_every_batch_without_overlap(task, count):
    """Whatever the number of processes, a step's batch holds the same rows."""
    whole = train(task, 6)
    parts = [train(task, 6, process=(i, count)) for i in range(count)]
    for step in (0, 5, 200):
        pieces = [part[step].inputs for part in parts]
        assert {len(piece) for piece in pieces} == {6 // count}
        together = np.stack(pieces, axis=1).reshape(6, -1)
        np.testing.assert_array_equal(together, whole[step].inputs)
    seen = [{row.tobytes() for b in read(part, range(20)) for row in b.inputs} for part in parts]
    assert not seen[0] & seen[1]


def test_a_batch_that_processes_cannot_share(task):
    with pytest.raises(UserError, match="batch of 4 examples cannot be shared by 3 processes"):
        train(task, 4, process=(0, 3))


def small_batch(task, size=5):
    return jax.tree.map(jnp.asarray, train(task, size)[0])


def test_bits_per_byte_weigh_text_only(task):
    batch = small_batch(task)
    logits = np.random.default_rng(1).normal(size=(*batch.targets.shape, 257)).astype(np.float32)
    z = logits.astype(np.float64)
    right = np.take_along_axis(z, np.asarray(batch.targets)[..., None], -1)[..., 0] - np.log(np.exp(z).sum(-1))
    text = int(np.sum(np.asarray(batch.targets) != 256))
    assert text < batch.targets.size, "no document ends in this batch"
    bits, count = task.metrics(jnp.asarray(logits), batch)["bits_per_byte"]
    assert int(count) == text
    assert float(bits) == pytest.approx(-right.sum() / math.log(2.0), rel=1e-5)


def test_a_uniform_guess_costs_its_entropy(task):
    batch = small_batch(task)
    total, weight = task.loss(jnp.zeros((*batch.targets.shape, 257)), batch)
    assert float(total / weight) == pytest.approx(math.log(257), rel=1e-6)
    assert task.derive({"loss": math.log(257), "accuracy": 0.1})["perplexity"] == pytest.approx(257)


def test_names_of_tokens_are_their_bytes_in_ascii(data, task):
    names = task.token_names()
    assert [names[token] for token in (*b"a\n'", 0xC3, 256)] == ["'a'", "'\\n'", '"\'"', "'\\xc3'", "start"]
    assert len(set(names)) == 257 and "".join(names).isascii()
    longer = LanguageModeling(data=data, tokenizer="bpe:300")
    pieces = longer.corpus().tokenizer.pieces
    assert longer.token_names() == [*(f"{piece}"[1:] for piece in pieces[:-1]), "start"]


def test_bytes_of_byte_pairs(data):
    task = LanguageModeling(data=data, tokenizer="bpe:300")
    corpus = task.corpus()
    batch = jax.tree.map(jnp.asarray, task.train_batches(3, LENGTH, 0)[0])
    _, count = task.metrics(jnp.zeros((*batch.targets.shape, task.outputs)), batch)["bits_per_byte"]
    assert int(count) == sum(len(corpus.tokenizer.pieces[token]) for token in np.asarray(batch.targets).reshape(-1))
    assert task.vocab_size == task.outputs == corpus.tokenizer.size


def test_curves_count_from_the_last_reset(task):
    inputs = np.array([[256, 1, 2, 3, 256, 4, 5, 6], [7, 8, 9, 256, 1, 2, 3, 4]])
    batch = jax.tree.map(jnp.asarray, task.collate(np.concatenate([inputs, [[1], [2]]], axis=1), LENGTH))
    losses, weights = task.curves(jnp.zeros((2, 8, 257)), batch)["loss_by_context"]
    # contexts 1 2 3 4 1 2 3 4 and 1 2 3 1 2 3 4 5
    assert weights.tolist() == [4, 8, 4, 0]
    np.testing.assert_allclose(losses, np.asarray(weights) * math.log(257), rtol=1e-5)
    on = batch._replace(reset=None)
    assert task.curves(jnp.zeros((2, 8, 257)), on)["loss_by_context"][1].tolist() == [2, 4, 8, 2]


def test_perplexity_by_context_is_none_where_nothing_was(task):
    derived = task.derive({"loss_by_context": [0.0, math.log(2.0), None]})["perplexity_by_context"]
    assert derived[:2] == pytest.approx([1.0, 2.0]) and derived[2] is None


def test_padding_counts_nothing(task):
    batch = small_batch(task)
    muted = batch._replace(weights=batch.weights.at[2:].set(0.0))
    part = Batch(*(None if x is None else x[:2] for x in batch))
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(*batch.targets.shape, 257)).astype(np.float32))
    for name, (total, weight) in task.metrics(logits, muted).items():
        expected = task.metrics(logits[:2], part)[name]
        np.testing.assert_allclose((total, weight), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data": ""}, "data=''"),
        ({"tokenizer": "bpe:12"}, "tokenizer='bpe:12' must be"),
        ({"tokenizer": "none.json"}, "task.tokenizer='none.json': cannot read"),
        ({"data": "none/*.txt"}, "task.data='none/*.txt'"),
    ],
)
def test_fields_that_cannot_be(data, fields, said):
    with pytest.raises(UserError) as caught:
        LanguageModeling(**{"data": data, **fields}).rows("train", LENGTH)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lengths_that_cannot_be(task):
    task.check_length("train.length", (64, 64))
    with pytest.raises(UserError, match=r"train\.length=\[3, 64\]: rows of text have one length, such as \[64, 64\]"):
        task.check_length("train.length", (3, 64))
    with pytest.raises(UserError, match=r"eval\.lengths=\[20000, 20000\].*16384"):
        task.check_length("eval.lengths", (20000, 20000))
    with pytest.raises(UserError, match=r"the test split holds \d+ tokens, too few for one row of 4096"):
        task.rows("test", (4096, 4096))


def test_records_say_what_the_data_were(data):
    load_corpus.cache_clear()
    records = LanguageModeling(data=data).records()
    about = json.loads(records["data.json"])
    assert set(records) == {"data.json"} and sum(about["documents"].values()) == 100
    with_pairs = LanguageModeling(data=data, tokenizer="bpe:300").records()
    assert json.loads(with_pairs["data.json"])["files_sha256"] == about["files_sha256"]
    assert '"merges"' in with_pairs["tokenizer.json"]
