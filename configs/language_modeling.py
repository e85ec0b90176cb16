"""Language modelling on text files; by default on the sources of the Python standard library, byte by byte.

    lrnn train --config=configs/language_modeling.py:LAYER,RANGE,scale=SCALE --workdir=RUN
    lrnn generate --workdir=RUN --prompt='def main('
    python scripts/compare_with_gzip.py RUN

LAYER is any of `lrnn list layers` (default deltanet); RANGE is `negative` for eigenvalues in [-1, 1] (the default) or
`positive` for [0, 1]; SCALE is `cpu` (the default), `smoke` or `paper`. Other text, other tokens:

    --config.task.data='books/**/*.txt'          also .jsonl and .parquet, by --config.task.text_field
    --config.task.data=tfds:imdb_reviews/plain_text --config.task.data_dir=DIR
    --config.task.tokenizer=bpe:4096             trained on the training documents, or a tokenizer.json (extra: text)

Scale `cpu`, deltanet, seed 0, on two cores: 553 s (on one that other work was using too 1584 s). On the 28 held-out files of
Python 3.11.7, bits per byte over all bytes:

    deltanet   1.920 (565 thousand parameters; fewer bits than gzip -9 for 26 of the files)
    gzip -9    2.259

With 1500 steps (--config.train.duration='1500 steps') it needs 1.881 bits, fewer for every file.

Scale `smoke` checks that everything runs and learns nothing. Scale `paper` is App. E.3 of Grazzi et al. 2025 for 340M DeltaNet
and 370M Mamba; it has not been run. It wants FineWeb as Parquet files and a tokenizer (32,000 tokens in DeltaProduct's models)
where the config says, and trains on 4 of a step's 256 rows of 2048 tokens at a time; how much memory that needs has not been
measured. The paper does not give the clipping (1 here), AdamW's betas, DeltaNet's heads (8, as DeltaProduct's), nor whether
its embedding and head share weights (ours do not).
"""

from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import SCALES, base_config, layer_config, layer_names, parse_arg, set_eigenvalue_range, task_config
from lrnn_jax.sweeps.combinators import grid, seeds

# What follows a layer inside a block; a Mamba block is complete without.
MIXERS = {"lru": "glu", "mamba": "none"}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,scale=smoke|cpu|paper``."""
    chosen = parse_arg(arg, layer=layer_names("deltanet"), eigenvalues=["negative", "positive"], scale=SCALES)
    c = base_config()
    c.task = task_config("language_modeling")
    c.model.layer = layer_config(chosen.layer)
    set_eigenvalue_range(c.model.layer, chosen.eigenvalues)
    c.model.head, c.model.norm, c.model.mixer = "token", "rmsnorm", MIXERS.get(chosen.layer, "swiglu")
    c.optim.clip_norm = 1.0
    c.eval.best_metric = "loss"
    if chosen.scale == "paper":
        _set_paper(c)
    else:
        _set_laptop(c, smoke=chosen.scale == "smoke")
    return c


def _set_laptop(c: ConfigDict, *, smoke: bool) -> None:
    length = 64 if smoke else 512
    c.model.width, c.model.depth, c.model.mixer_hidden = (16, 1, 32) if smoke else (128, 3, 256)
    c.optim.lr, c.optim.final_lr, c.optim.warmup = 4e-3, 1e-4, "3%"
    c.optim.beta2, c.optim.weight_decay = 0.99, 0.1
    c.train.batch_size, c.train.length = 8, [length, length]
    c.train.duration, c.train.steps_per_dispatch = ("20 steps", 10) if smoke else ("1200 steps", 30)
    c.eval.lengths, c.eval.headline = [[length, length]], [length, length]
    c.eval.examples, c.eval.batch_size = (16, 16) if smoke else (256, 16)
    c.eval.every, c.checkpoint.every = ("50%", "50%") if smoke else ("10%", "5%")


def _set_paper(c: ConfigDict) -> None:
    c.task.data, c.task.tokenizer = "fineweb/**/*.parquet", "fineweb/tokenizer.json"
    c.task.reset = False  # rows run on across documents, as the paper's trainer packs them by default
    c.model.width, c.model.depth, c.model.mixer_hidden = 1024, 24, 2816
    if c.model.layer.name == "deltanet":
        c.model.layer.heads = 8
    if c.model.layer.name == "mamba":
        c.model.depth = 48
    if c.model.layer.name == "transformer":
        c.model.layer.window = 16384  # everything before, at the longest test too
    c.model.dtype = "bfloat16"
    c.optim.lr, c.optim.weight_decay, c.optim.warmup = 3e-4, 0.01, "250 steps"
    c.train.duration, c.train.batch_size, c.train.length = "200000 steps", 256, [2048, 2048]
    c.train.microbatches = 64  # of 4 rows, for one GPU; the paper has 16 GPUs with 16 rows each
    c.eval.lengths = [[2048, 2048], [4096, 4096], [8192, 8192], [16384, 16384]]  # Figure 5: beyond the training length
    c.eval.headline = [2048, 2048]
    c.eval.examples, c.eval.batch_size = 256, 2


def sweep() -> list[dict[str, Any]]:
    """Learning rate and seed, for the layer after the colon."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3]}, seeds(3))


def sweep_layers() -> list[dict[str, Any]]:
    """Learning rate, for every layer."""
    return grid({"arg": layer_names("deltanet"), "optim.lr": [1e-3, 2e-3, 4e-3]})
