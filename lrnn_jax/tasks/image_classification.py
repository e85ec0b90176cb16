"""Image of the Long Range Arena, and other small images read pixel by pixel."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lrnn_jax.data.examples import Record
from lrnn_jax.data.images import decode_image, to_grey
from lrnn_jax.data.prepared import Prepared, open_prepared, read_prepared
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.tasks.classification import PixelClassification, Share


class _Images(NamedTuple):
    """Height, channels, and the channels' means and deviations."""

    size: int
    channels: int
    mean: Sequence[float]
    deviation: Sequence[float]


_DATA = {
    "cifar10": _Images(32, 3, (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "mnist": _Images(28, 1, (0.0,), (1.0,)),
    "fashion_mnist": _Images(28, 1, (0.0,), (1.0,)),
}
_GREY = ((122.6 / 255,), (61.0 / 255,))


@dataclasses.dataclass(frozen=True)
class ImageClassification(PixelClassification):
    """What is on this image? One pixel per position, row by row; ten classes.

    The files are a prepared data set. Of CIFAR-10, 45,000 images train, 5,000 validate and 10,000 are the test.

    Attributes:
      data: "cifar10" (1024 positions), "mnist" or "fashion_mnist" (784).
      grey: makes colours grey: the Arena's Image. Off, CIFAR-10 has three features per position.
      data_dir: the folder of prepared data sets, or what holds it as ``tfds``; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out images that are wrong, and says how many; they are refused otherwise.

    Source: Long Range Arena (Tay et al. 2021) in grey; Orvieto et al. 2023, Section 2.2, in colour. The constants of both
    normalisations, and a tenth of the training images for validation, as in the code of S4 and S5.
    Differs: which tenth is another choice. The digits are between 0 and 1.
    """

    data: str = "cifar10"
    grey: bool = False

    EVAL_LENGTHS = ((1024, 1024),)
    CHANCE = 0.1
    MAX_LENGTH = 1024
    SHARES = {"train": Share("train", 0.0, 0.9), "validation": Share("train", 0.9, 1.0), "test": Share("test")}

    def __post_init__(self) -> None:
        if self.data not in _DATA:
            raise UserError(f"data={self.data!r} is not one of {', '.join(_DATA)}{suggest(self.data, _DATA)}")
        if self.grey and _DATA[self.data].channels == 1:
            raise UserError(f"grey=True: {self.data!r} is grey already")

    @property
    def outputs(self) -> int:
        return 10

    def pixels(self) -> tuple[int, int]:
        return _DATA[self.data].size, 1 if self.grey else _DATA[self.data].channels

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        return _GREY if self.grey else (_DATA[self.data].mean, _DATA[self.data].deviation)

    def kept_fields(self) -> list[str | bool]:
        return [self.data, self.grey]

    def files(self) -> list[Path]:
        return list(self._open().files.values())

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        prepared, images = self._open(), _DATA[self.data]
        for split in ("train", "test"):
            for where, row in read_prepared(prepared, split, field=f"prepared data set {self.data!r}", bad=bad):
                label = int(row["label"])
                try:
                    if not 0 <= label < self.outputs:
                        raise UserError(f"has label {label}, which must be 0..{self.outputs - 1}")
                    pixels = decode_image(row["image"], images.size, images.channels)
                except UserError as error:
                    if bad is None:
                        raise UserError(f"{where} {error}; task.skip_bad=True leaves such rows out") from error
                    bad.append(f"{where} {error}")
                else:
                    yield Record(split, [(to_grey(pixels) if self.grey else pixels).tobytes()], label)

    def _open(self) -> Prepared:
        return open_prepared(self.data, data_dir=self.data_dir, raw=["image"], field=f"task.data={self.data!r}")
