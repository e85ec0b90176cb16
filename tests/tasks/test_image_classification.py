"""Images as sequences: order, normalisation and greys by hand."""

import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.registry import load_task
from small_data import encode, write_images


@pytest.fixture
def pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    rows = [{"image": encode(pixels), "label": 3}]
    write_images(tmp_path, "cifar10", "3.0.2", {"train": rows * 10, "test": rows})
    return pixels


def inputs(task):
    row, label = task.rows("test", (1024, 1024))[0]
    assert label == 3
    return task.collate((row[None], np.array([3], np.int32)), (1024, 1024)).inputs[0]


def test_colours_are_features_row_by_row(pixels, tmp_path):
    found = inputs(load_task("image_classification")(data_dir=str(tmp_path)))
    for y, x in ((0, 0), (0, 1), (5, 7), (31, 31)):
        expected = (pixels[y, x] / 255 - [0.4914, 0.4822, 0.4465]) / [0.247, 0.243, 0.261]
        np.testing.assert_allclose(found[32 * y + x], expected, atol=1e-5)


def test_grey_is_one_feature(pixels, tmp_path):
    found = inputs(load_task("image_classification")(data_dir=str(tmp_path), grey=True))
    grey = pixels[5, 7] @ [0.299, 0.587, 0.114]
    assert found[32 * 5 + 7, 0] == pytest.approx((grey - 122.6) / 61, abs=0.51 / 61)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("image_classification", {"data": "cifar100"}, "did you mean 'cifar10'"),
        ("image_classification", {"data": "mnist", "grey": True}, "'mnist' is grey already"),
        ("pathfinder", {"resolution": 33}, "resolution=33 must be one of 32, 64, 128, 256"),
    ],
)
def test_fields_that_no_data_have(name, fields, said):
    with pytest.raises(UserError, match=said):
        load_task(name)(**fields)
