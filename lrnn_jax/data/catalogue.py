"""Every data set on files: what it is, for which task, where it comes from and where it is looked for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lrnn_jax.data.finding import expand
from lrnn_jax.data.lra import RELEASE, find_release
from lrnn_jax.data.pathfinder import CONTOURS
from lrnn_jax.data.prepared import new_folder
from lrnn_jax.errors import UserError, suggest

RELEASED, PREPARED = "release", "tfds"
HARDEST = "curv_contour_length_14"


class DataSet(NamedTuple):
    """One data set.

    Attributes:
      task: which task reads it.
      what: one line.
      kind: `RELEASED`, in the layout of the Long Range Arena's release, or `PREPARED`, by TensorFlow Datasets.
      part: its path inside the release, or its name as a prepared data set.
      source: where it comes from.
      counts: examples by split, where it is whole and they are known; Pathfinder has one split.
      generated: whether `lrnn data prepare` makes it.
    """

    task: str
    what: str
    kind: str
    part: str
    source: str
    counts: Mapping[str, int]
    generated: bool = False


def _pathfinder(width: int, what: str) -> DataSet:
    return DataSet("pathfinder", what, RELEASED, f"pathfinder{width}/{HARDEST}", RELEASE, {"all": 200_000}, generated=True)


DATA_SETS = {
    "listops": DataSet(
        "listops",
        "nested lists of digits under MIN, MAX, MED and SM; 500 to 2000 tokens",
        RELEASED,
        "listops-1000",
        RELEASE,
        {"train": 96_000, "val": 2000, "test": 2000},
        generated=True,
    ),
    "imdb_reviews": DataSet(
        "text_classification",
        "reviews of films, for or against",
        PREPARED,
        "imdb_reviews/plain_text",
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        {"train": 25_000, "test": 25_000},
    ),
    "aan": DataSet(
        "retrieval",
        "pairs of papers, one citing the other or not",
        RELEASED,
        "tsv_data",
        RELEASE,
        {"train": 147_086},
    ),
    "cifar10": DataSet(
        "image_classification",
        "colour images of ten kinds of things, 32 x 32",
        PREPARED,
        "cifar10",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        {"train": 50_000, "test": 10_000},
    ),
    "mnist": DataSet(
        "image_classification",
        "grey images of digits, 28 x 28",
        PREPARED,
        "mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        {"train": 60_000, "test": 10_000},
    ),
    "fashion_mnist": DataSet(
        "image_classification",
        "grey images of ten kinds of clothes, 28 x 28",
        PREPARED,
        "fashion_mnist",
        "https://github.com/zalandoresearch/fashion-mnist",
        {"train": 60_000, "test": 10_000},
    ),
    "pathfinder32": _pathfinder(32, "two dots: are they the ends of one dashed curve? 32 x 32"),
    "pathfinder64": _pathfinder(64, "the same, 64 x 64"),
    "pathfinder128": _pathfinder(128, "the same, 128 x 128: Path-X"),
    "pathfinder256": _pathfinder(256, "the same, 256 x 256"),
}


def get_data_set(name: str) -> DataSet:
    """Returns a data set by its name; ``pathfinder32/curv_baseline`` is an easier Pathfinder.

    Raises:
      UserError: no such data set.
    """
    base, _, contour = name.partition("/")
    if base not in DATA_SETS:
        raise UserError(f"no data set {base!r}{suggest(base, DATA_SETS)} (one of {', '.join(DATA_SETS)})")
    found = DATA_SETS[base]
    if not contour:
        return found
    if found.task != "pathfinder" or contour not in CONTOURS:
        raise UserError(f"no data set {name!r}{suggest(contour, CONTOURS)}; after pathfinder32/ comes {', '.join(CONTOURS)}")
    return found._replace(part=f"{base}/{contour}")


def choose_root(data_dir: str) -> Path:
    """Returns the folder of all data: ``data_dir``, or the environment's LRNN_DATA_DIR.

    Raises:
      UserError: neither is given.
    """
    root = data_dir or os.environ.get("LRNN_DATA_DIR", "")
    if not root:
        raise UserError("no folder of data: give --data_dir=DIR, or set LRNN_DATA_DIR")
    return expand(root)


def find_data_set(name: str, data_dir: str) -> Path:
    """Returns where a data set is.

    Raises:
      UserError: it is not there; says where it comes from and the path to put it at.
    """
    found = get_data_set(name)
    root = choose_root(data_dir)
    if found.kind == RELEASED:
        try:
            return find_release(found.part, str(root))
        except UserError as error:
            raise UserError(f"{error}{f'; `lrnn data prepare {name}` makes one' if found.generated else ''}") from error
    places = [root / "tfds" / found.part, root / found.part]
    for place in places:
        # a folder for each version, which says what it holds
        if any(place.glob("*/dataset_info.json")):
            return place
    begun = next((f" ({place} holds no VERSION/dataset_info.json)" for place in places if place.exists()), "")
    raise UserError(
        f"no {found.part} in {root}{begun}: put the folder that tensorflow_datasets prepares from {found.source} (in the file "
        f"format array_record) at {new_folder(root) / found.part}"
    )


def expected_place(name: str, data_dir: str) -> Path:
    """Returns where a data set is put that is not there yet."""
    found = get_data_set(name)
    root = choose_root(data_dir)
    return (root / "lra_release" if found.kind == RELEASED else new_folder(root)) / found.part
