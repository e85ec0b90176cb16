"""Images as arrays of bytes."""

import io
import struct

import numpy as np

from lrnn_jax.errors import UserError

_MODES = {1: "L", 3: "RGB"}


def decode_image(raw: bytes, size: int, channels: int) -> np.ndarray:
    """Returns the pixels of a PNG or JPEG file, ``[size size channels]`` uint8.

    Args:
      raw: the file's contents.
      size: height and width, pixels.
      channels: 1 for grey, 3 for colour.

    Raises:
      UserError: no such image, another size or another kind of pixels; the caller puts the place before it.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw), formats=["PNG", "JPEG"]) as image:
            if image.size != (size, size):
                raise UserError(f"is {image.size[0]} x {image.size[1]} pixels, which must be {size} x {size}")
            if image.mode != _MODES[channels]:
                raise UserError(f"has pixels of the kind {image.mode}, which must be {_MODES[channels]} of 8 bits")
            pixels = np.asarray(image)
    except UserError:
        raise
    # in all these ways a damaged file shows
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        reason = str(error).splitlines()[0] if str(error) and not isinstance(error, OSError) else "truncated or no such file"
        raise UserError(f"cannot be read as PNG or JPEG: {reason}") from error
    return pixels.reshape(size, size, channels)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """``(19595 R + 38470 G + 7471 B + 32768) / 65536`` rounded down: ``[... 3]`` uint8 to ``[... 1]`` uint8.

    Source: ITU-R 601, in the integers of the usual library for images, by which the papers' loaders convert.
    """
    weighted = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]
