"""Small files in the very formats of the Long Range Arena's data, for tests without the data."""

import atexit
import functools
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

CORE = "tensorflow_datasets.core.features"
TEXT = {"pythonClassName": f"{CORE}.text_feature.Text", "text": {}}
LISTOPS = {"MIN": min, "MAX": max, "MED": lambda values: int(np.median(values)), "SM": lambda values: sum(values) % 10}


@functools.cache
def small_data():
    """A folder with all of it, made once per process: of every split a few examples."""
    root = Path(tempfile.mkdtemp(prefix="lrnn-small-data-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_all(root)
    return root


def write_all(root):
    """Writes the release and the prepared data sets into a folder."""
    rng = np.random.default_rng(0)
    release = root / "lra_release"
    for split in ("train", "val", "test"):
        write_listops(release / "listops-1000" / f"basic_{split}.tsv", [draw_listops(rng) for _ in range(12)])
    for split in ("train", "eval", "test"):
        write_pairs(release / "tsv_data" / f"new_aan_pairs.{split}.tsv", [draw_pair(rng, i) for i in range(12)])
    write_pathfinder(release / "pathfinder32", 60, 32, rng)
    write_imdb(root / "tfds", {"train": draw_reviews(rng, 40), "test": draw_reviews(rng, 12)})
    write_images(root / "tfds", "cifar10", "3.0.2", {"train": draw_images(rng, 40, 32, 3), "test": draw_images(rng, 12, 32, 3)})
    write_images(root / "tfds", "mnist", "3.0.1", {"train": draw_images(rng, 40, 28, 1), "test": draw_images(rng, 12, 28, 1)})


def draw_listops(rng):
    """One operator and its values, as the official program writes them."""
    operator, values = rng.choice(list(LISTOPS)), [int(v) for v in rng.integers(0, 10, rng.integers(2, 6))]
    text = f"[{operator}"
    for value in [*values, "]"]:
        text = f"( {text} {value} )"
    return text, LISTOPS[operator](values)


def write_listops(path, rows):
    """Lines end as Python's csv module ends them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{a}\t{b}\r\n" for a, b in [("Source", "Target"), *rows]).encode())


def draw_pair(rng, number):
    """Quotes and letters of more than one byte stand in the texts."""
    texts = [f'"{"né " * int(rng.integers(1, 40))}' for _ in range(2)]
    return f"{float(rng.integers(2))}", str(number), str(number + 1), *texts


def write_pairs(path, rows):
    """Tabs between, no header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())


def write_pathfinder(folder, count, size, rng):
    """Two batches of images, with metadata as text."""
    folder = folder / "curv_contour_length_14"
    (folder / "metadata").mkdir(parents=True)
    for batch in range(2):
        (folder / "imgs" / str(batch)).mkdir(parents=True)
        lines = []
        for i in range(count // 2):
            (folder / "imgs" / str(batch) / f"sample_{i}.png").write_bytes(encode(draw_pixels(rng, size, 1)))
            lines.append(f"imgs/{batch} sample_{i}.png {i} {i % 2} 1.0 14 4 2 0.5 1 1\n")
        (folder / "metadata" / f"{batch}.npy").write_text("".join(lines))


def draw_pixels(rng, size, channels):
    """Noise, height, width and channels."""
    return rng.integers(0, 256, (size, size, channels), np.uint8)


def encode(pixels):
    """A PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def draw_reviews(rng, count):
    """Text and label."""
    return [{"text": b"%d " % i + b"so " * int(rng.integers(1, 60)) + b"\xc3\xa9", "label": i % 2} for i in range(count)]


def draw_images(rng, count, size, channels):
    """PNG file and label."""
    return [{"image": encode(draw_pixels(rng, size, channels)), "label": i % 10} for i in range(count)]


def write_imdb(root, splits):
    """The prepared data set imdb_reviews/plain_text."""
    features = {"label": class_label(2), "text": TEXT}
    write_prepared(root / "imdb_reviews/plain_text/1.0.0", "imdb_reviews", features, splits, config="plain_text")


def write_images(root, name, version, splits):
    """A prepared data set of images; of CIFAR-10 with its names of images."""
    with Image.open(io.BytesIO(splits["train"][0]["image"])) as image:
        shape = [str(image.size[0])] * 2 + [str(len(image.getbands()))]
    feature = {
        "pythonClassName": f"{CORE}.image_feature.Image",
        "image": {"dtype": "uint8", "shape": {"dimensions": shape}, "encodingFormat": "png"},
    }
    features = {"image": feature, "label": class_label(10)}
    if name == "cifar10":
        features["id"] = TEXT
        splits = {split: [{"id": b"x", **row} for row in rows] for split, rows in splits.items()}
    write_prepared(root / f"{name}/{version}", name, features, splits)


def class_label(count):
    """The feature of a class."""
    return {
        "pythonClassName": f"{CORE}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": str(count)},
    }


def write_prepared(folder, name, features, splits, config=None):
    """Array records of serialized examples, and the two JSON files that describe them."""
    folder.mkdir(parents=True)
    about = {"pythonClassName": f"{CORE}.features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (folder / "features.json").write_text(json.dumps(about))
    described = []
    for split, rows in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        records = [serialize(row) for row in rows]
        for record in records:
            writer.write(record)
        writer.close()
        described.append(
            {
                "name": split,
                "shardLengths": [str(len(rows))],
                "numBytes": str(sum(map(len, records))),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": name, "version": folder.name, "fileFormat": "array_record", "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info | ({"configName": config} if config else {})))


def serialize(row):
    """A row as TensorFlow has it."""
    example = tf_example_pb2.Example()
    for name, value in row.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString()
