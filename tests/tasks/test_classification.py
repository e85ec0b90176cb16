"""What the tasks of classes in files share: shapes, splits that hold, records, and one line for whatever is wrong."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from helpers import refuse
from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from lrnn_jax.tasks.classification import choose
from small_data import draw_images, draw_reviews, small_data, write_images, write_imdb

SHARED = os.environ.get("LRNN_DATA_DIR", "")
# name, fields, length, shape of one example, sizes of the splits
TASKS = [
    ("listops", {}, (2, 8), (8,), (12, 12, 12)),
    ("text_classification", {}, (2, 8), (8,), (36, 4, 12)),
    ("retrieval", {}, (2, 8), (2, 8), (12, 12, 12)),
    ("image_classification", {}, (1024, 1024), (1024, 3), (36, 4, 12)),
    ("image_classification", {"grey": True}, (1024, 1024), (1024, 1), (36, 4, 12)),
    ("image_classification", {"data": "mnist"}, (784, 784), (784, 1), (36, 4, 12)),
    ("pathfinder", {}, (1024, 1024), (1024, 1), (48, 6, 6)),
]
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LRNN_DATA_DIR", str(small_data()))


@pytest.fixture
def copy(tmp_path):
    """A copy of the data that may be damaged."""
    return Path(shutil.copytree(small_data(), tmp_path / "data"))


@pytest.fixture(params=TASKS, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def case(request):
    name, fields, *rest = request.param
    return load_task(name)(**fields), *rest


def every(task, split, length):
    """All examples of a split as one batch."""
    rows = task.rows(split, length)
    stacked = [np.stack(each) for each in zip(*(rows[i] for i in range(len(rows))), strict=True)]
    return task.collate(tuple(stacked), length)


def test_shapes_and_dtypes(case):
    task, length, shape, sizes = case
    for split, size in zip(SPLITS, sizes, strict=True):
        batch = every(task, split, length)
        spec = task.example_spec(length[1])
        assert batch.inputs.shape == (size, *shape) == (size, *spec.inputs.shape)
        assert batch.inputs.dtype == spec.inputs.dtype == (np.int32 if task.vocab_size else np.float32)
        assert batch.targets.shape == batch.weights.shape == (size,)
        assert batch.targets.dtype == batch.lengths.dtype == np.int32 and batch.weights.dtype == np.float32
        assert set(batch.targets) <= set(range(task.outputs)) and batch.reset is None and np.all(batch.weights == 1)
        assert batch.lengths.shape == ((size, 2) if spec.rows == 2 else (size,))


def test_padding_is_zero_and_every_sequence_ends_once(case):
    task, length, _, _ = case
    batch = every(task, "train", length)
    if not task.vocab_size:  # an image is as long as its row
        assert np.all(batch.lengths == length[1])
        return
    tokens, lengths = batch.inputs.reshape(-1, length[1]), batch.lengths.reshape(-1)
    assert lengths.min() >= 2 and lengths.max() <= length[1]
    for row, end in zip(tokens, lengths, strict=True):
        assert row[end - 1] == 1 and not row[end:].any() and np.all(row[: end - 1] >= 2)
    assert tokens.max() < task.vocab_size == len(set(task.token_names()))


def test_the_same_seed_makes_the_same_batches(case):
    task, length, _, _ = case
    one, same, other = (task.train_batches(4, length, seed)[2] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.inputs, same.inputs)
    assert not np.array_equal(one.inputs, other.inputs)


def test_records_say_what_the_data_were(case):
    task, _, _, sizes = case
    about = json.loads(task.records()["data.json"])
    assert list(about["examples"].values()) == [sizes[2], sizes[0], sizes[1]] and about["left_out"] == 0
    assert len(about["examples_sha256"]) == 64


def test_lengths_that_the_files_do_not_have(case):
    task, length, _, _ = case
    task.check_length("train.length", length)
    for wrong in ((3, 40), (2, 1), (0, 0), (2, 10**9)):
        with pytest.raises(UserError, match=r"train\.length"):
            task.check_length("train.length", wrong)


def test_a_task_is_a_value_with_a_source(case):
    task = case[0]
    assert dataclasses.replace(task) == task and hash(dataclasses.replace(task)) == hash(task)
    assert "Source:" in type(task).__doc__ and "Differs:" in type(task).__doc__
    assert 0 < task.CHANCE < 1


def test_what_is_held_out_is_disjoint_whole_and_always_the_same():
    parts = [choose(1000, a, b) for a, b in ((0.0, 0.8), (0.8, 0.9), (0.9, 1.0))]
    assert [len(part) for part in parts] == [800, 100, 100]
    assert sorted(np.concatenate(parts)) == list(range(1000))
    # of NumPy's Mersenne Twister, seed 42, whose stream is fixed for good
    order = np.random.RandomState(42).permutation(1000)
    assert sorted(order[900:]) == parts[2].tolist()
    assert choose(7, 0.0, 1.0).tolist() == list(range(7))


@pytest.mark.parametrize("name", ["listops", "text_classification", "retrieval", "image_classification", "pathfinder"])
def test_missing_data_are_one_line_before_anything_is_compiled(tmp_path, monkeypatch, name):
    monkeypatch.setenv("LRNN_DATA_DIR", str(tmp_path / "nowhere"))
    message = refuse("train", f"--config=configs/{name}.py:lru,smoke", f"--workdir={tmp_path / 'run'}")
    assert str(tmp_path / "nowhere") in message
    assert not (tmp_path / "run").exists()


# --- damaged data sets ---------------------------------------------------------------------------------------------


def refusal(name, folder, **fields):
    with pytest.raises(UserError) as caught:
        load_task(name)(data_dir=str(folder), **fields).records()
    message = str(caught.value)
    assert "\n" not in message
    return message


REVIEWS = {
    "not UTF-8": ({"text": b"a\xffb", "label": 1}, "row 1 of train is not UTF-8 (byte 1 is 0xff)"),
    "label": ({"text": b"a", "label": 7}, "row 1 of train"),
}


@pytest.mark.parametrize("what", REVIEWS)
def test_a_bad_review_is_refused_or_left_out(tmp_path, what):
    row, said = REVIEWS[what]
    good = draw_reviews(np.random.default_rng(1), 20)
    write_imdb(tmp_path / "tfds", {"train": [good[0], row, *good[1:]], "test": good})
    assert said in refusal("text_classification", tmp_path)
    task = load_task("text_classification")(data_dir=str(tmp_path), skip_bad=True)
    assert json.loads(task.records()["data.json"])["left_out"] == 1
    assert len(task.rows("train", (2, 8))) == 18


def test_a_bad_image_is_refused_or_left_out(tmp_path):
    rng = np.random.default_rng(1)
    good, small = draw_images(rng, 20, 32, 3), draw_images(rng, 1, 31, 3)
    broken = [{"image": good[0]["image"][:100], "label": 1}, *small]
    write_images(tmp_path, "cifar10", "3.0.2", {"train": [*good, *broken], "test": good})
    assert "row 20 of train cannot be read as PNG or JPEG" in refusal("image_classification", tmp_path)
    task = load_task("image_classification")(data_dir=str(tmp_path), skip_bad=True)
    assert json.loads(task.records()["data.json"])["left_out"] == 2
    assert any("31 x 31" in message for message in task.examples().left_out)


def test_a_truncated_prepared_data_set(copy):
    (path,) = copy.glob("tfds/imdb_reviews/plain_text/*/*train*")
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert "imdb_reviews" in refusal("text_classification", copy)
    path.write_bytes(b"")
    assert "imdb_reviews" in refusal("text_classification", copy)
    path.unlink()
    assert "imdb_reviews" in refusal("text_classification", copy)


def test_records_that_are_no_examples(copy):
    (path,) = copy.glob("tfds/cifar10/*/*train*")
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(40):
        writer.write(b"\xff\xff\xff no example")
    writer.close()
    assert "row 0 of train cannot be read" in refusal("image_classification", copy)


def test_a_bad_picture_of_the_release_is_refused_or_left_out(copy):
    (path,) = copy.rglob("imgs/1/sample_3.png")
    path.write_bytes(path.read_bytes()[:70])
    assert f"{path} cannot be read as PNG or JPEG" in refusal("pathfinder", copy)
    path.write_bytes(b"")
    assert f"{path} is empty, named by" in refusal("pathfinder", copy)
    task = load_task("pathfinder")(data_dir=str(copy), skip_bad=True)
    assert json.loads(task.records()["data.json"])["left_out"] == 1
    assert len(task.rows("train", (1024, 1024))) == round(0.8 * 59)


def test_a_bad_row_of_the_release_is_refused_or_left_out(copy):
    for name, file in (("listops", "basic_val.tsv"), ("retrieval", "new_aan_pairs.eval.tsv")):
        (path,) = copy.rglob(file)
        path.write_bytes(path.read_bytes() + b"12\n")
        message = refusal(name, copy)
        assert f"{path}:{14 if name == 'listops' else 13} has 1 columns" in message and "task.skip_bad=True" in message
        task = load_task(name)(data_dir=str(copy), skip_bad=True)
        assert len(task.rows("validation", (2, 8))) == 12 and len(task.examples().left_out) == 1


# --- the real data -------------------------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.skipif(not Path(SHARED, "lra_release").is_dir() or not SHARED, reason="no LRNN_DATA_DIR with the Arena's data")
@pytest.mark.parametrize(
    ("name", "length", "sizes"),
    [
        ("listops", (2, 2048), (400, 100, 100)),
        ("pathfinder", (1024, 1024), (3200, 400, 400)),
        ("text_classification", (2, 4096), (22_500, 2500, 25_000)),
    ],
)
def test_the_real_data_load(monkeypatch, name, length, sizes):
    monkeypatch.setenv("LRNN_DATA_DIR", SHARED)
    task = load_task(name)()
    assert tuple(len(task.rows(split, length)) for split in SPLITS) == sizes
    share = np.mean(task.examples().parts[task.SHARES["test"].part].labels == 1)
    assert abs(share - 1 / task.outputs) < 0.1
    if name == "listops":
        batch = every(task, "test", length)
        labels = [task.oracle(row[:end].tolist()) for row, end in zip(batch.inputs, batch.lengths, strict=True)]
        assert labels == batch.targets.tolist()


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(not Path(SHARED, "tfds", "cifar10").is_dir() or not SHARED, reason="no LRNN_DATA_DIR with cifar10")
def test_cifar10_loads(monkeypatch):
    monkeypatch.setenv("LRNN_DATA_DIR", SHARED)
    task = load_task("image_classification")()
    assert tuple(len(task.rows(split, (1024, 1024))) for split in SPLITS) == (45_000, 5000, 10_000)
    for part in task.examples().parts.values():
        assert len(set(np.bincount(part.labels))) == 1
    # the normalisation is that of these images
    inputs = task.train_batches(2000, (1024, 1024), 0)[0].inputs
    np.testing.assert_allclose(inputs.mean((0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(inputs.std((0, 1)), 1, atol=0.05)
