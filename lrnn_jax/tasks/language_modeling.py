"""Language modelling: the next token of text files."""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from lrnn_jax.data.packing import Corpus, Rows, load_corpus
from lrnn_jax.data.tokenizers import BPE, BYTES, Tokenizer, byte_counts, byte_tokenizer, check_tokenizer, load_tokenizer
from lrnn_jax.errors import UserError
from lrnn_jax.tasks.base import Batch, FileTask, Sums


@functools.lru_cache(maxsize=16)
def _load_tokenizer(task: "LanguageModeling") -> Tokenizer:
    if task.tokenizer == BYTES:
        return byte_tokenizer()
    if task.tokenizer.startswith(BPE):
        return task.corpus().tokenizer
    return load_tokenizer(task.tokenizer, field="task.tokenizer")


@dataclasses.dataclass(frozen=True)
class LanguageModeling(FileTask):
    """What is the next token? Documents are packed one after another; a length is the tokens of a row.

    ::

        documents   "ab", "cde"       tokens of an epoch   . a b . c d e     "." opens a document and stands for no text
        row of 4    input   . a b .
                    target  a b . c     the opening token is a target too: it says that a document has ended
                    reset   1 0 0 1     the state starts anew at every document

    Rows are cut one after another, so that every token but the last few of a split is a target once per epoch, and drawn in
    an order of their own in every epoch. The state of a row starts from nothing: training sees contexts up to its length.

    Attributes:
      data: "stdlib" (this Python's own library), "tfds:NAME", or a file, a folder or a pattern (text, JSON lines, Parquet).
      data_dir: where relative paths and prepared data sets are, if not here; empty: the environment's LRNN_DATA_DIR.
      text_field: field, column or feature that holds the text, where documents are rows.
      tokenizer: "bytes", "bpe:SIZE" (trained on the training documents) or a file of the ``tokenizers`` library.
      reset: whether the state starts anew at every document; without, it runs on into the next one of the row.
      skip_short: leaves out documents of fewer than two tokens, which are refused otherwise.

    Source: Grazzi et al. 2025, Section 5.3 and App. E.3 (perplexity by position beyond the training length).
    Differs: they train on FineWeb and do not say with which tokenizer; bits per byte do not depend on it.
    """

    data: str = "stdlib"
    data_dir: str = ""
    text_field: str = "text"
    tokenizer: str = BYTES
    reset: bool = True
    skip_short: bool = False

    EVAL_LENGTHS = ((256, 256),)
    CHANCE = 0.0
    METRICS = {"loss": "lower", "accuracy": "higher", "bits_per_byte": "lower", "perplexity": "lower"}
    HEADS = ("token",)
    ANSWERS_AHEAD = True

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("data='' must be 'stdlib', 'tfds:NAME', a file, a folder or a pattern")
        check_tokenizer(self.tokenizer, field="tokenizer")

    def corpus(self) -> Corpus:
        """Returns the tokens, read and kept on first use."""
        return load_corpus(
            self.data,
            data_dir=self.data_dir,
            text_field=self.text_field,
            tokenizer=self.tokenizer,
            skip_short=self.skip_short,
        )

    def load_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer, from its own file or from no file at all where that is enough."""
        return _load_tokenizer(self)

    @property
    def vocab_size(self) -> int:
        return self.load_tokenizer().size

    @property
    def outputs(self) -> int:
        return self.vocab_size

    def token_names(self) -> list[str]:
        """Returns the tokens' bytes as Python writes them, and "start" for the one that opens a document."""
        return [*(repr(piece)[1:] for piece in self.load_tokenizer().pieces[:-1]), "start"]

    def rows(self, split: str, length: tuple[int, int]) -> Rows:
        tokens = self.corpus().tokens[split]
        rows = Rows(tokens, length[1])
        if not len(rows):
            raise UserError(
                f"task.data={self.data!r}: the {split} split holds {len(tokens)} tokens, too few for one row of {length[1]}"
            )
        return rows

    def collate(self, rows: np.ndarray, length: tuple[int, int]) -> Batch:
        inputs, targets = rows[:, :-1].astype(np.int32), rows[:, 1:].astype(np.int32)
        weights, lengths = np.ones(targets.shape, np.float32), np.full(len(rows), length[1], np.int32)
        reset = inputs == self.load_tokenizer().start if self.reset else None
        return Batch._make((inputs, targets, weights, lengths, reset))

    def metrics(self, logits: Float[Array, "B T O"], batch: Batch) -> Sums:
        """Returns (sum, weight) of ``accuracy`` per token, and of ``bits_per_byte``, which weighs bytes of text."""
        correct = (jnp.argmax(logits, axis=-1) == batch.targets).astype(jnp.float32)
        nats, _ = self.loss(logits, batch)
        text = jnp.asarray(byte_counts(self.load_tokenizer()), jnp.float32)[batch.targets]
        return {
            "accuracy": (jnp.sum(correct * batch.weights), jnp.sum(batch.weights)),
            "bits_per_byte": (nats / math.log(2.0), jnp.sum(text * batch.weights)),
        }

    def curves(self, logits: Float[Array, "B T O"], batch: Batch) -> dict[str, tuple[Float[Array, " N"], Float[Array, " N"]]]:
        """Returns sums and weights of ``loss_by_context``: bucket n holds the targets that 2^n to 2^(n+1) - 1 tokens precede.

        Tokens before the last reset do not count.
        """
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets) * batch.weights
        place = jnp.arange(batch.targets.shape[1])[None]
        began = 0 if batch.reset is None else jax.lax.cummax(jnp.where(batch.reset, place, 0), axis=1)
        context = jnp.broadcast_to(place - began + 1, batch.targets.shape)
        edges = 2 ** jnp.arange(1, context.shape[1].bit_length())
        bucket = jnp.searchsorted(edges, context.reshape(-1), side="right")
        zeros = jnp.zeros(context.shape[1].bit_length(), jnp.float32)
        return {"loss_by_context": (zeros.at[bucket].add(losses.reshape(-1)), zeros.at[bucket].add(batch.weights.reshape(-1)))}

    def derive(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """Returns ``perplexity`` = exp(loss), per token."""
        found = {name: means[name] for name in ("loss", "loss_by_context") if name in means}
        return {name.replace("loss", "perplexity"): _exponential(value) for name, value in found.items()}

    def check_length(self, field: str, length: tuple[int, int]) -> None:
        super().check_length(field, length)
        if length[0] != length[1]:
            raise UserError(f"{field}={list(length)}: rows of text have one length, such as [{length[1]}, {length[1]}]")

    def records(self) -> dict[str, str]:
        """Returns what the data were, and the tokenizer where it has a file."""
        corpus = self.corpus()
        about = {
            "files_sha256": corpus.digest,
            "documents": corpus.counts,
            "tokens": {split: len(tokens) for split, tokens in corpus.tokens.items()},
        }
        files = {"data.json": json.dumps(about, indent=2, sort_keys=True) + "\n"}
        return files | ({"tokenizer.json": corpus.tokenizer.file} if corpus.tokenizer.file else {})

    @classmethod
    def fields_from(cls, folder: Path) -> dict[str, Any]:
        file = folder / "tokenizer.json"
        return {"tokenizer": str(file)} if file.is_file() else {}


def _exponential(value: Any) -> Any:
    """Of a number or a list of numbers, where None stays None."""
    if isinstance(value, list):
        return [_exponential(each) for each in value]
    return None if value is None else math.exp(min(value, 700.0))
