"""From text to tokens and back: plain bytes, byte-pair encoding trained here, or a file of the ``tokenizers`` library."""

import dataclasses
import functools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lrnn_jax.data.finding import expand
from lrnn_jax.errors import UserError

BYTES = "bytes"
BPE = "bpe:"
_LEAST_BPE = 258  # all bytes, one merge and the token between documents
_PART = 1 << 16  # characters of a long text that are encoded at once: the library takes a hundred times their memory
# Where the pre-tokenizer of GPT-2, which is ours too, cuts every text; and where those of later models do as well.
_CUT, _CUT_OF_OTHERS = re.compile(r"\S(?=[ \n])"), re.compile(r"[^\W_](?= )")
_ANYWHERE = re.compile(".", re.DOTALL)


class UnknownText(ValueError):
    """A text that the tokens cannot give back; the message says where."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Tokens, of which the last stands for no text: it opens every document.

    Attributes:
      pieces: the bytes that each token stands for; none for the last.
      file: what ``tokenizer.json`` holds; empty for plain bytes.
    """

    pieces: tuple[bytes, ...]
    file: str = ""

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.pieces)

    @property
    def start(self) -> int:
        """The token that opens a document."""
        return self.size - 1

    @functools.cached_property
    def _library(self) -> Any:
        return _import_library().Tokenizer.from_str(self.file)

    @functools.cached_property
    def _cut(self) -> re.Pattern[str] | None:
        """Where a text can be cut so that its parts have the tokens of the whole; None for those that look at all of it."""
        before, change = self._library.pre_tokenizer, self._library.normalizer
        if before is None or change is not None:
            return None
        settings = json.loads(self.file)["pre_tokenizer"]
        like_ours = settings["type"] == "ByteLevel" and settings["use_regex"] and not settings["add_prefix_space"]
        return _CUT if like_ours else _CUT_OF_OTHERS

    def encode(self, text: str) -> np.ndarray:
        """Returns a text's tokens, without the opening one.

        Raises:
          UnknownText: the tokens do not give the text back.
        """
        return np.concatenate(list(self.encode_parts(text)))

    def encode_parts(self, text: str) -> Iterator[np.ndarray]:
        """Yields the tokens of `encode`, int32, a part of a long text at a time: never more than a few times its memory.

        Raises:
          UnknownText: as there.
        """
        done = 0
        for part in _cut_text(text, self._cut if self.file else _ANYWHERE):
            yield self._encode(part, done)
            done += len(part)

    def _encode(self, text: str, done: int) -> np.ndarray:
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise UnknownText(f"{text[error.start]!r} at character {done + error.start} is no text") from error
        if not self.file:
            return np.frombuffer(raw, np.uint8).astype(np.int32)
        tokens = self._library.encode(text, add_special_tokens=False).ids
        back = self.decode(tokens)
        # some tokenizers put a space before every text
        if back not in (raw, b" " + raw):
            same = next((i for i, (a, b) in enumerate(zip(raw, back, strict=False)) if a != b), min(len(raw), len(back)))
            place = len(raw[:same].decode(errors="ignore"))
            raise UnknownText(f"{text[place : place + 1]!r} at character {done + place} is unknown to the tokenizer")
        return np.asarray(tokens, np.int32)

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes that tokens stand for."""
        return b"".join(self.pieces[token] for token in tokens)


@functools.cache
def byte_tokenizer() -> Tokenizer:
    """Returns the tokenizer whose tokens are the 256 bytes."""
    return Tokenizer((*(bytes([i]) for i in range(256)), b""))


def load_tokenizer(file: str, *, field: str) -> Tokenizer:
    """Reads a ``tokenizer.json``.

    Raises:
      UserError: ``field``, and why it cannot be read.
    """
    try:
        text = expand(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{field}={file!r}: cannot read that file ({reason}); give {BYTES!r}, '{BPE}SIZE' or a file") from error
    library = _import_library()
    try:
        return _wrap(library.Tokenizer.from_str(_without_cuts_and_chance(text, f"{field}={file!r}")))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{field}={file!r} is no tokenizer file: {reason}") from error


def _without_cuts_and_chance(text: str, where: str) -> str:
    """A file keeps what its last training asked for, by which a corpus would be cut, padded, or another at every start."""
    fields = json.loads(text)
    off = [name for name in ("truncation", "padding") if fields.get(name)]
    fields |= dict.fromkeys(off)
    model = fields.get("model") or {}
    if isinstance(model, dict) and model.get("dropout"):
        off.append("dropout")
        model["dropout"] = None
    if off:
        logging.getLogger(__name__).warning(
            "%s: its %s switched off", where, f"{', '.join(off)} {'is' if len(off) == 1 else 'are'}"
        )
    return json.dumps(fields) if off else text


def check_tokenizer(spec: str, *, field: str) -> None:
    """Refuses a name that cannot be a tokenizer's; reads nothing.

    Raises:
      UserError: names ``field`` and what it takes.
    """
    if spec.startswith(BPE):
        size = spec.removeprefix(BPE)
        if not (size.isascii() and size.isdigit()) or not _LEAST_BPE <= int(size) <= 1_000_000:
            raise UserError(f"{field}={spec!r} must be '{BPE}SIZE' with {_LEAST_BPE} to 1000000 tokens, such as '{BPE}4096'")
    if not spec:
        raise UserError(f"{field}={spec!r} must be {BYTES!r}, '{BPE}SIZE' or a file")
    if spec != BYTES:
        _import_library()


def train_bpe(texts: Iterable[str], size: int) -> Tokenizer:
    """Trains byte-pair encoding over bytes; fewer than ``size`` tokens where the texts have no more pairs that repeat."""
    library = _import_library()
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = library.Tokenizer(library.models.BPE())
    own.pre_tokenizer, own.decoder = level, library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=sorted(level.alphabet()), special_tokens=[], show_progress=False
    )
    # the same words, in parts: the library keeps each text many times over
    own.train_from_iterator((part for text in texts for part in _cut_text(text, _CUT)), trainer)
    return _wrap(own)


def _cut_text(text: str, cut: re.Pattern[str] | None) -> Iterator[str]:
    begin = 0
    while cut and len(text) - begin > _PART and (place := cut.search(text, begin + _PART)):
        yield text[begin : place.end()]
        begin = place.end()
    yield text[begin:]


def _wrap(library_tokenizer: Any) -> Tokenizer:
    file = library_tokenizer.to_str()
    names = {token: name for name, token in library_tokenizer.get_vocab().items()}
    over_bytes = '"ByteLevel"' in json.dumps(json.loads(file)["decoder"])
    pieces = [_piece(names.get(token, ""), over_bytes) for token in range(max(names) + 1)]
    return Tokenizer((*pieces, b""), file)


def _piece(name: str, over_bytes: bool) -> bytes:
    """The bytes of a token's name: one character per byte, or text with a mark for the space and names for odd bytes."""
    alphabet = _byte_alphabet()
    if over_bytes and all(letter in alphabet for letter in name):
        return bytes(alphabet[letter] for letter in name)
    if match := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes([int(match[1], 16)])
    return name.replace("\u2581", " ").encode()


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """How byte-level tokenizers write bytes: the printable ones of Latin-1 as they are, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _import_library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError("task.tokenizer needs the extra: pip install -e '.[text]' (or take task.tokenizer='bytes')") from error
    return tokenizers


def byte_counts(tokenizer: Tokenizer) -> Sequence[int]:
    """Returns how many bytes each token stands for."""
    return [len(piece) for piece in tokenizer.pieces]
