"""Pathfinder: each image with its own label, between -1 and 1."""

import numpy as np

from lrnn_jax.data.images import decode_image
from lrnn_jax.registry import load_task
from small_data import write_pathfinder


def test_every_image_is_in_one_split_with_its_label(tmp_path, monkeypatch):
    monkeypatch.setenv("LRNN_CACHE_DIR", str(tmp_path / "cache"))
    for resolution in (32, 64):
        write_pathfinder(tmp_path / f"pathfinder{resolution}", 20, resolution, np.random.default_rng(resolution))
        task = load_task("pathfinder")(data_dir=str(tmp_path), resolution=resolution)
        length = (resolution**2,) * 2
        found = {}
        for split in ("train", "validation", "test"):
            rows = task.rows(split, length)
            for pixels, label in (rows[i] for i in range(len(rows))):
                batch = task.collate((pixels[None], label[None]), length)
                np.testing.assert_allclose(batch.inputs[0, :, 0], pixels[:, 0] / 127.5 - 1, atol=1e-6)
                found[pixels.tobytes()] = int(label)
        files = sorted((tmp_path / f"pathfinder{resolution}").rglob("*.png"))
        # labels alternate within a batch
        expected = {decode_image(f.read_bytes(), resolution, 1).tobytes(): int(f.stem.split("_")[1]) % 2 for f in files}
        assert len(files) == 20 and found == expected
