"""Prepared data sets: found beside the others or by themselves; what is missing, and where it belongs."""

import pytest

from lrnn_jax.data.prepared import open_prepared, read_prepared
from lrnn_jax.errors import UserError
from small_data import small_data


@pytest.mark.parametrize("inside", ["", "tfds"])
def test_the_folder_or_the_one_that_holds_it(inside):
    prepared = open_prepared("imdb_reviews/plain_text", data_dir=str(small_data() / inside))
    assert {split: len(rows) for split, rows in prepared.splits.items()} == {"test": 12, "train": 40}
    assert set(prepared.features) == {"text", "label"} and "dataset_info.json" in prepared.files
    rows = list(read_prepared(prepared, "train", field="x"))
    assert rows[3][0] == "x: row 3 of train" and rows[3][1]["label"] == 1 and rows[3][1]["text"].startswith(b"3 so")


def test_images_may_stay_files():
    prepared = open_prepared("cifar10", data_dir=str(small_data()), raw=["image"])
    assert prepared.splits["train"][0]["image"].startswith(b"\x89PNG")


def test_what_is_missing_and_its_exact_place(tmp_path):
    with pytest.raises(UserError) as caught:
        open_prepared("cifar10", data_dir=str(tmp_path), field="task.data='cifar10'")
    message = str(caught.value)
    assert "task.data='cifar10'" in message and "tfds build cifar10" in message and "\n" not in message
    assert f"{tmp_path}/tfds/cifar10/3.0.2" in message
    with pytest.raises(UserError, match="has no split 'validation'"):
        list(read_prepared(open_prepared("cifar10", data_dir=str(small_data())), "validation", field="x"))
