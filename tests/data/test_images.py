"""Images: what is decoded, and what is no such image."""

import io

import numpy as np
import pytest
from PIL import Image

from lrnn_jax.data.images import decode_image, to_grey
from lrnn_jax.errors import UserError
from small_data import draw_pixels, encode

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_what_was_written(channels):
    pixels = draw_pixels(RNG, 8, channels)
    np.testing.assert_array_equal(decode_image(encode(pixels), 8, channels), pixels)


def test_grey_is_that_of_the_papers_loaders():
    pixels = draw_pixels(RNG, 64, 3)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    np.testing.assert_array_equal(to_grey(pixels), expected)
    # by hand: (19595 * 10 + 38470 * 20 + 7471 * 30 + 32768) / 65536 = 18.65
    assert to_grey(np.array([[10, 20, 30]], np.uint8)).tolist() == [[18]]


def sixteen_bits():
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(file, "PNG")
    return file.getvalue()


def gif():
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "GIF")
    return file.getvalue()


GREY = encode(draw_pixels(RNG, 8, 1))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "cannot be read as PNG or JPEG"),
        (GREY[:60], "cannot be read as PNG or JPEG"),
        (GREY[:20], "cannot be read as PNG or JPEG"),
        (GREY[:50] + b"\x00\x00\x00\x00" + GREY[54:], "cannot be read as PNG or JPEG"),
        (b"GIF8" + GREY, "cannot be read as PNG or JPEG"),
        (gif(), "cannot be read as PNG or JPEG"),
        (encode(draw_pixels(RNG, 9, 1)), "is 9 x 9 pixels, which must be 8 x 8"),
        (encode(draw_pixels(RNG, 8, 3)), "has pixels of the kind RGB, which must be L of 8 bits"),
        (sixteen_bits(), "has pixels of the kind I;16, which must be L of 8 bits"),
    ],
)
def test_what_is_no_such_image(raw, said):
    with pytest.raises(UserError) as caught:
        decode_image(raw, 8, 1)
    assert said in str(caught.value) and "\n" not in str(caught.value)
