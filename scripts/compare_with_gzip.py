"""Bits per byte of a language model on every held-out file, beside gzip -9 on the same files one by one.

    python scripts/compare_with_gzip.py RUN [last|best]

Each file is coded whole, its first byte and its end included, by a model whose state starts from nothing: what an arithmetic
coder driven by the model would need, rounded up to nothing. The model itself is not counted, nor is gzip. The files are the
test documents of the run's task, none of which it was trained or selected on.
"""

import gzip
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrnn_jax.analysis.generation import LanguageModel, load_language_model
from lrnn_jax.errors import UserError
from lrnn_jax.runs.folder import RunFolder

CHUNK, GROUP = 1024, 8


def count_bits(language: LanguageModel, documents: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the bits that each document needs; documents begin with the opening token, which is what ends them too.

    Files go through in groups of like length, a piece of them at a time with the states carried on.
    """

    @jax.jit
    def piece(states: object, tokens: jax.Array, inside: jax.Array) -> tuple[object, jax.Array]:
        logits, states = language.model.apply(language.variables, tokens[:, :-1], states=states)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return states, jnp.sum(nats * inside, axis=1)

    bits = np.zeros(len(documents))
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    for group in (order[i : i + GROUP] for i in range(0, len(order), GROUP)):
        width = -(-max(len(documents[i]) for i in group) // CHUNK) * CHUNK
        tokens = np.full((GROUP, width + 1), language.tokenizer.start, np.int32)
        inside = np.zeros((GROUP, width), np.float32)
        for row, i in enumerate(group):
            tokens[row, : len(documents[i])] = documents[i]
            inside[row, : len(documents[i])] = 1.0
        states = language.model.init_states(GROUP)
        for at in range(0, width, CHUNK):
            states, nats = piece(states, tokens[:, at : at + CHUNK + 1], inside[:, at : at + CHUNK])
            bits[group] += np.asarray(nats, np.float64)[: len(group)] / math.log(2.0)
    return bits


def main() -> int:
    """Prints the table; returns 1 where gzip needs fewer bits, 2 for a mistake."""
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["last"], ["best"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        language = load_language_model(Path(sys.argv[1]), which=(sys.argv[2:] or ["last"])[0])
        RunFolder(Path(sys.argv[1])).check_records(language.task.records())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    corpus = language.task.corpus()
    names = corpus.names("test")
    documents = [corpus.document("test", i) for i in range(len(names))]
    texts = [corpus.tokenizer.decode(document[1:].tolist()) for document in documents]
    ours = count_bits(language, documents)
    theirs = np.array([8.0 * len(gzip.compress(text, compresslevel=9, mtime=0)) for text in texts])
    sizes = np.array([len(text) for text in texts])
    print(f"{'file':<50}{'bytes':>10}{'model':>8}{'gzip -9':>9}   (bits per byte)")
    for name, size, model, other in zip(names, sizes, ours, theirs, strict=True):
        print(f"{name[-49:]:<50}{size:>10,}{model / size:>8.3f}{other / size:>9.3f}")
    total = sizes.sum()
    print(
        f"{len(names)} files{total:>{60 - len(f'{len(names)} files')},}{ours.sum() / total:>8.3f}{theirs.sum() / total:>9.3f}"
    )
    print(f"the model needs fewer bits for {np.sum(ours < theirs)} of {len(names)} files")
    return 0 if ours.sum() < theirs.sum() else 1


if __name__ == "__main__":
    sys.exit(main())
