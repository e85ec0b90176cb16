"""ListOps: the value of a nested expression."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from lrnn_jax.data.examples import Record
from lrnn_jax.data.listops import evaluate, parse
from lrnn_jax.data.lra import LISTOPS_TOKENS, find_release, read_listops
from lrnn_jax.tasks.classification import END, PAD, Share, TokenClassification

_FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}
_BYTES = {word: bytes([number]) for number, word in enumerate(LISTOPS_TOKENS)}


@dataclasses.dataclass(frozen=True)
class ListOps(TokenClassification):
    """What is the value of ``[MAX 2 9 [MIN 4 7 ] 0 ]``? Ten classes; MIN, MAX, MED (median, cut) and SM (sum modulo 10).

    ::

        in the file   ( ( ( ( ( [MAX 2 ) 9 ) ( ( ( [MIN 4 ) 7 ) ] ) ) 0 ) ] )
        tokens        [MAX 2 9 [MIN 4 7 ] 0 ] end

    Parentheses go, brackets stay: with them what is left says everything. The files are ``listops-1000/basic_train.tsv``,
    ``basic_val.tsv`` and ``basic_test.tsv`` of the release, which are the splits; a length is tokens, ``end`` counted.

    Attributes:
      data_dir: where the release is; empty: the environment's LRNN_DATA_DIR.
      skip_bad: leaves out rows that are wrong, and says how many; they are refused otherwise.

    Source: Nangia and Bowman 2018; Long Range Arena (Tay et al. 2021); tokens as in the code of S4 and S5, whose longest is
    2048. Chance is the share of the most frequent value, 102 of 600 rows that the official program made.
    Differs: no token stands for unknown words, which are refused.
    """

    EVAL_LENGTHS = ((2, 2048),)
    CHANCE = 0.17
    SYMBOLS = LISTOPS_TOKENS
    SHARES = {split: Share(split) for split in _FILES}

    @property
    def outputs(self) -> int:
        return 10

    def files(self) -> list[Path]:
        return [find_release(f"listops-1000/{name}", self.data_dir) for name in _FILES.values()]

    def read(self, bad: list[str] | None) -> Iterator[Record]:
        for split, path in zip(_FILES, self.files(), strict=True):
            for source, label in read_listops(path, bad=bad):
                yield Record(split, [b"".join(_BYTES[word] for word in source.split(" ") if word not in "()")], label)

    def oracle(self, example: list[int]) -> int:
        names = self.token_names()
        return evaluate(parse(" ".join(names[token] for token in example if token not in (PAD, END))))
