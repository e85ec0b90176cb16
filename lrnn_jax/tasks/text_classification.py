"""Text of the Long Range Arena: is a film review positive?"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lrnn_jax.data.examples import Record
from lrnn_jax.data.prepared import Prepared, open_prepared, read_prepared
from lrnn_jax.data.sources import decode_text
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.classification import Share, TokenClassification

_DATA = "imdb_reviews/plain_text"


@dataclasses.dataclass(frozen=True)
class TextClassification(TokenClassification):
    """Is this review positive? IMDB byte by byte, 25,000 reviews to train on and 25,000 for the test; two classes.

    The text is as it is, capitals and HTML included; a length is bytes, with the token that ends every sequence. The files
    are the prepared data set "imdb_reviews/plain_text".

    Attributes:
      data_dir: the folder of prepared data sets, or what holds it as ``tfds``; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out reviews that are wrong, and says how many; they are refused otherwise.

    Source: Long Range Arena (Tay et al. 2021); S4 and S5 cut to 4096.
    Differs: tokens are bytes, 258 with padding and end; S4's are characters that occur at least 15 times, 135 in all. There
    the validation set is the test set; here it is a tenth of the training reviews, always the same: the test chooses nothing.
    """

    EVAL_LENGTHS = ((2, 4096),)
    CHANCE = 0.5
    MAX_LENGTH = 16_384
    SHARES = {"train": Share("train", 0.0, 0.9), "validation": Share("train", 0.9, 1.0), "test": Share("test")}

    @property
    def outputs(self) -> int:
        return 2

    def files(self) -> list[Path]:
        return list(self._open().files.values())

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        prepared, field = self._open(), f"prepared data set {_DATA!r}"
        for split in ("train", "test"):
            for where, row in read_prepared(prepared, split, field=field, bad=bad):
                text, label = row["text"], int(row["label"])
                try:
                    if label not in (0, 1):
                        raise UserError(f"{where} has label {label}, which must be 0 or 1")
                    decode_text(text, where)
                except UserError as error:
                    if bad is None:
                        raise
                    bad.append(str(error))
                else:
                    yield Record(split, [text[: self.MAX_LENGTH - 1]], label)

    def _open(self) -> Prepared:
        return open_prepared(_DATA, data_dir=self.data_dir, field=f"task {_DATA!r}")
