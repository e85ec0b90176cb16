"""Retrieval of the Long Range Arena: does one paper cite the other?"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lrnn_jax.data.examples import Record
from lrnn_jax.data.lra import find_release, read_pairs
from lrnn_jax.tasks.classification import Share, TokenClassification

_FILES = {"train": "train", "validation": "eval", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Retrieval(TokenClassification):
    """Does one of two papers cite the other? Pairs of texts byte by byte, which a model reads side by side; two classes.

    The files are ``tsv_data/new_aan_pairs.train.tsv``, ``.eval.tsv`` and ``.test.tsv`` of the release, which are the splits;
    a length is bytes of either text, with the token that ends every sequence.

    Attributes:
      data_dir: where the release is; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out rows that are wrong, and says how many; they are refused otherwise.

    Source: Long Range Arena (Tay et al. 2021) on the ACL Anthology Network; S4 and S5 cut to 4000.
    Differs: tokens are bytes, 258 with padding and end; S4's are characters, about 98. Quotes are text, as in the Arena's own
    reader; the readers of S4 and S5 take them for quoting.
    """

    EVAL_LENGTHS = ((2, 4000),)
    CHANCE = 0.5
    HEADS = ("pair",)
    MAX_LENGTH = 4000
    ROWS = 2
    SHARES = {split: Share(split) for split in _FILES}

    @property
    def outputs(self) -> int:
        return 2

    def files(self) -> list[Path]:
        return [find_release(f"tsv_data/new_aan_pairs.{name}.tsv", self.data_dir) for name in _FILES.values()]

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        for split, path in zip(_FILES, self.files(), strict=True):
            for row in read_pairs(path, bad=bad):
                yield Record(split, [text.encode()[: self.MAX_LENGTH - 1] for text in row.texts], row.label)
