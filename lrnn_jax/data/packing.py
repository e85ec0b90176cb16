"""Documents as one array of tokens per split, kept on disk, and rows cut from it."""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lrnn_jax.data.keeping import cache_folder, keep_folder, read_kept
from lrnn_jax.data.sources import SPLITS, STDLIB, TFDS, Document, Source, open_source
from lrnn_jax.data.tokenizers import BPE, BYTES, Tokenizer, UnknownText, byte_tokenizer, load_tokenizer, train_bpe
from lrnn_jax.errors import UserError

# Shares of the documents that are held out for validation and for the test.
HELD_OUT = 0.05
# A corpus of fewer documents is split inside them: each one's start trains, its end is held out.
_FEWEST_DOCUMENTS = 40
_SHORTEST_CUT = 1000  # characters; shorter documents of such a corpus train whole
_SHORTEST = 2
_LAST = "corpus.json"
_LAYOUT = 1  # of the files below; another number makes them anew


class Corpus(NamedTuple):
    """A tokenised corpus.

    Attributes:
      tokens: one array per split: each document's opening token and its text's, one document after another.
      counts: how many documents each split has.
      tokenizer: what the tokens mean.
      digest: SHA-256 of the files it was made from.
      folder: where it is kept.
    """

    tokens: dict[str, np.ndarray]
    counts: dict[str, int]
    tokenizer: Tokenizer
    digest: str
    folder: Path

    def names(self, split: str) -> list[str]:
        """Returns the documents' names, in their order; read when asked for, as there may be very many."""
        return [json.loads(line) for line in (self.folder / f"{split}.names").read_bytes().splitlines()]

    def document(self, split: str, i: int) -> np.ndarray:
        """Returns the i-th document's tokens, the opening one first."""
        starts = np.flatnonzero(self.tokens[split] == self.tokenizer.start)
        end = starts[i + 1] if i + 1 < len(starts) else len(self.tokens[split])
        return self.tokens[split][starts[i] : end]


class Rows:
    """Rows of ``length + 1`` tokens, each beginning with the token that the one before ended with."""

    def __init__(self, tokens: np.ndarray, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return max(0, len(self.tokens) - 1) // self.length

    def __getitem__(self, i: int) -> np.ndarray:
        return np.asarray(self.tokens[i * self.length : (i + 1) * self.length + 1])


@functools.lru_cache(maxsize=16)
def load_corpus(data: str, *, data_dir: str, text_field: str, tokenizer: str, skip_short: bool) -> Corpus:
    """Reads, splits and tokenises ``task.data``, or finds what an earlier run made of the same files.

    A document goes into a split by the hash of its text, so that two equal ones never lie on both sides; data sets that
    have splits of their own keep them. The tokens are kept in LRNN_CACHE_DIR, by default the user's cache folder, under the
    contents of a tokenizer that is trained here: what it was trained as is a link to them.

    Args:
      data: see `lrnn_jax.data.sources.open_source`, as ``data_dir`` and ``text_field``.
      data_dir: see there.
      text_field: see there.
      tokenizer: "bytes", "bpe:SIZE" (trained on the training split) or a file of the ``tokenizers`` library.
      skip_short: leaves out documents of fewer than two tokens, which are refused otherwise.

    Raises:
      UserError: files that are not there or not readable as text; documents that are too short or that the tokenizer does
        not know. Nothing is left behind.
    """
    source = open_source(data, data_dir=data_dir, text_field=text_field)
    try:
        digest = source.digest()
    except OSError as error:
        raise UserError(f"task.data={data!r}: cannot read {error.filename}: {error.strerror}") from error
    own = load_tokenizer(tokenizer, field="task.tokenizer") if tokenizer != BYTES and not tokenizer.startswith(BPE) else None
    kind = STDLIB if data == STDLIB else TFDS if data.startswith(TFDS) else "files"

    def place(words: str) -> Path:
        what = [_LAYOUT, HELD_OUT, digest, kind, text_field, words, skip_short]
        return cache_folder() / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    folder = place(own.file if own else tokenizer)
    link = folder.with_suffix(".link")
    with suppress(OSError):
        folder = folder.parent / (re.findall(rb"^[0-9a-f]{16}$", link.read_bytes()) or [folder.name.encode()])[0].decode()
    about = read_kept(folder, _LAST)
    if about is None or about["digest"] != digest:
        own = own or _make_tokenizer(tokenizer, source)
        # a run's own copy of a trained tokenizer must find the same tokens
        folder = place(own.file or BYTES)
        about = _write_corpus(folder, source, own, digest, data, tokenizer, skip_short)
        if folder.name != link.stem:
            # without it the tokenizer is only trained again
            with suppress(OSError):
                link.write_bytes(folder.name.encode())
    return _read_corpus(folder, about)


def _make_tokenizer(spec: str, source: Source) -> Tokenizer:
    if spec == BYTES:
        return byte_tokenizer()
    training = (document.text for document in _split(source) if document.split == "train")
    return train_bpe(training, int(spec.removeprefix(BPE)))


def _split(source: Source) -> Iterator[Document]:
    """Yields all documents with their splits; a corpus of few is cut inside its documents."""
    # counted, not kept: few documents may be large ones
    few = not source.own_splits and sum(1 for _ in itertools.islice(source.documents(), _FEWEST_DOCUMENTS)) < _FEWEST_DOCUMENTS
    for document in source.documents():
        if few:
            yield from _cut(document)
        else:
            yield document._replace(split=_choose_split(document, source.own_splits))


def _cut(document: Document) -> Iterator[Document]:
    length = len(document.text)
    if length < _SHORTEST_CUT:
        yield document._replace(split="train")
        return
    ends = [0, round(length * (1.0 - 2.0 * HELD_OUT)), round(length * (1.0 - HELD_OUT)), length]
    for split, begin, end in zip(SPLITS, ends, ends[1:], strict=False):
        yield Document(document.name, document.text[begin:end], split)


def _choose_split(document: Document, own: frozenset[str]) -> str:
    """Validation and test are taken from the training documents where the data set has none."""
    if document.split not in (None, "train"):
        return str(document.split)
    place = int.from_bytes(hashlib.sha256(document.text.encode()).digest()[:8], "big") / 2**64
    split = "test" if place < HELD_OUT else "validation" if place < 2.0 * HELD_OUT else "train"
    return "train" if split in own else split


def _write_corpus(
    folder: Path, source: Source, tokenizer: Tokenizer, digest: str, data: str, spec: str, skip_short: bool
) -> dict[str, Any]:
    def write(half: Path) -> dict[str, Any]:
        counts = _write_tokens(half, source, tokenizer, data, spec, skip_short)
        (half / "tokenizer.json").write_text(tokenizer.file, encoding="utf-8")
        return {"digest": digest, "dtype": _dtype(tokenizer).name, "documents": counts}

    return keep_folder(folder, _LAST, write, what="tokens")


def _write_tokens(half: Path, source: Source, tokenizer: Tokenizer, data: str, spec: str, skip_short: bool) -> dict[str, int]:
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        arrays = {split: stack.enter_context((half / f"{split}.tokens").open("wb")) for split in SPLITS}
        names = {split: stack.enter_context((half / f"{split}.names").open("w", encoding="utf-8")) for split in SPLITS}
        for name, text, split in _split(source):
            try:
                count = _write_document(arrays[str(split)], tokenizer, text)
            except UnknownText as error:
                raise UserError(f"task.tokenizer={spec!r}: in {name} of task.data={data!r}, {error}") from error
            if count >= _SHORTEST:
                names[str(split)].write(json.dumps(name) + "\n")
                counts[str(split)] += 1
            elif not skip_short:
                what = "is one token long" if count else "is empty"
                raise UserError(
                    f"task.data={data!r}: {name} {what}, and a document needs {_SHORTEST}; task.skip_short=True leaves it out"
                )
    return counts


def _write_document(file: IO[bytes], tokenizer: Tokenizer, text: str) -> int:
    """Writes a document's tokens, a part at a time, unless they are too few; returns how many they are."""
    count = 0
    for tokens in tokenizer.encode_parts(text):
        if count + len(tokens) < _SHORTEST:
            return len(tokens)
        opening = [] if count else [tokenizer.start]
        np.concatenate([np.array(opening, np.int32), tokens]).astype(_dtype(tokenizer)).tofile(file)
        count += len(tokens)
    return count


def _read_corpus(folder: Path, about: dict[str, Any]) -> Corpus:
    file = (folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = load_tokenizer(str(folder / "tokenizer.json"), field="task.tokenizer") if file else byte_tokenizer()
    tokens = {}
    for split in SPLITS:
        path = folder / f"{split}.tokens"
        # an empty file cannot be mapped
        tokens[split] = np.memmap(path, about["dtype"], "r") if path.stat().st_size else np.zeros(0, about["dtype"])
    return Corpus(tokens, about["documents"], tokenizer, about["digest"], folder)


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
