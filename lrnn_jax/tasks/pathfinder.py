"""Pathfinder and Path-X of the Long Range Arena: does one curve join the two dots?"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from lrnn_jax.data.examples import Record
from lrnn_jax.data.images import decode_image
from lrnn_jax.data.lra import find_release, read_pathfinder
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.classification import PixelClassification, Share

RESOLUTIONS = (32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Pathfinder(PixelClassification):
    """Does one dashed curve join the two dots? A grey image, one pixel per position, row by row; two classes.

    The files are the folder ``pathfinder32/curv_contour_length_14`` of the release, or that of another resolution; Path-X is
    ``pathfinder128``. Of its images, 80 % train, 10 % validate and 10 % are the test, always the same ones of as many images.

    Attributes:
      resolution: height and width, pixels: 32, 64, 128 or 256; a sequence has its square.
      data_dir: where the release is; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out images that are wrong, and says how many; they are refused otherwise.

    Source: Linsley et al. 2018; Long Range Arena (Tay et al. 2021), 200,000 images per resolution; shares and normalisation
    (mean and deviation 0.5) as in the code of S5.
    Differs: which images are in which share is another choice.
    """

    resolution: int = 32

    EVAL_LENGTHS = ((1024, 1024),)
    CHANCE = 0.5
    MAX_LENGTH = 256 * 256
    SHARES = {"train": Share("all", 0.0, 0.8), "validation": Share("all", 0.8, 0.9), "test": Share("all", 0.9, 1.0)}

    def __post_init__(self) -> None:
        if self.resolution not in RESOLUTIONS:
            raise UserError(f"resolution={self.resolution} must be one of {', '.join(map(str, RESOLUTIONS))}")

    @property
    def outputs(self) -> int:
        return 2

    def pixels(self) -> tuple[int, int]:
        return self.resolution, 1

    def normalisation(self) -> tuple[Sequence[float], Sequence[float]]:
        return (0.5,), (0.5,)

    def files(self) -> list[Path]:
        folder = self._folder()
        return sorted(path for part in ("imgs", "metadata") for path in (folder / part).rglob("*") if path.is_file())

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        for path, label in read_pathfinder(self._folder(), bad=bad):
            try:
                pixels = decode_image(path.read_bytes(), self.resolution, 1)
            except (UserError, OSError) as error:
                said = f"{path} cannot be read: {error.strerror}" if isinstance(error, OSError) else f"{path} {error}"
                if bad is None:
                    raise UserError(f"{said}; task.skip_bad=True leaves such images out") from error
                bad.append(said)
            else:
                yield Record("all", [pixels.tobytes()], label)

    def _folder(self) -> Path:
        return find_release(f"pathfinder{self.resolution}/curv_contour_length_14", self.data_dir)
