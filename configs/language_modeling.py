"""Language modelling on text files; by default on the sources of the Python standard library, byte by byte.

    lrnn train --config=configs/language_modeling.py:LAYER[/VARIANT],SETTING --workdir=RUN
    lrnn generate --workdir=RUN --prompt='def main('
    python scripts/compare_with_gzip.py RUN

LAYER and VARIANT are those of configs/parity.py. Other text, other tokens:

    --config.task.data='books/**/*.txt'          also .jsonl and .parquet, by --config.task.text_field
    --config.task.data=tfds:imdb_reviews/plain_text --config.task.data_dir=DIR
    --config.task.tokenizer=bpe:4096             trained on the training documents, or a tokenizer.json (extra: text)

At `cpu`, DeltaNet needs 1.92 bits per byte of the held-out files of Python 3.11.7, gzip -9 2.26. `smoke` checks that
everything runs. `grazzi2025` is App. E.3 of Grazzi et al. 2025 for 340M DeltaNet and 370M Mamba. It wants FineWeb as Parquet
files and a tokenizer (32,000 tokens in DeltaProduct's models) where the config says. `dubinin2026` is the released configs of
Dubinin et al. 2026 for models of 210M, on FineWeb-Edu with the tokenizer of GPT-NeoX. Neither has been run, nor its memory
measured.
"""

from typing import Any

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.registry import LAYERS
from lrnn_jax.sweeps.combinators import grid, seeds

MODEL = Setting(
    on(
        {
            "model.head": "token",
            "model.norm": "rmsnorm",
            "model.mixer": "swiglu",
            "optim.clip_norm": 1.0,
            "eval.best_metric": "loss",
        },
        source="the Transformer++ block of DeltaNet's models; the paper does not give the clipping",
    ),
    on({"model.mixer": "glu"}, layer="lru", source="Orvieto et al. 2023, App. D.1", why="the LRU's own block"),
    on({"model.mixer": "none"}, layer="mamba", source="Gu and Dao 2023, Section 3.4", why="a Mamba block is complete without"),
)
OPTIMIZER = on({"optim.lr": 4e-3, "optim.final_lr": 1e-4, "optim.warmup": "3%", "optim.beta2": 0.99, "optim.weight_decay": 0.1})


def rows(size: int, length: int) -> dict[str, Any]:
    """Training and test on rows of one length."""
    same = [length, length]
    return {"train.batch_size": size, "train.length": same, "eval.lengths": [same], "eval.headline": same}


CPU = Setting(
    MODEL,
    OPTIMIZER,
    on(rows(8, 512)),
    on(
        {
            "model.width": 128,
            "model.depth": 3,
            "model.mixer_hidden": 256,
            "train.duration": "1200 steps",
            "train.steps_per_dispatch": 30,
            "eval.examples": 256,
            "eval.batch_size": 16,
            "checkpoint.every": "5%",
        }
    ),
)
SMOKE = Setting(
    CPU,
    on(rows(8, 64)),
    on(
        {
            "model.width": 16,
            "model.depth": 1,
            "model.mixer_hidden": 32,
            "train.duration": "20 steps",
            "train.steps_per_dispatch": 10,
            "eval.examples": 16,
            "eval.every": "50%",
            "checkpoint.every": "50%",
        }
    ),
)
PAPER = Setting(
    MODEL,
    on(
        {
            "task.data": "fineweb/**/*.parquet",
            "task.tokenizer": "fineweb/tokenizer.json",
            "task.reset": False,
            "model.width": 1024,
            "model.depth": 24,
            "model.mixer_hidden": 2816,
            "model.dtype": "bfloat16",
            "optim.lr": 3e-4,
            "optim.weight_decay": 0.01,
            "optim.warmup": "250 steps",
            "train.duration": "200000 steps",
            **rows(256, 2048),
            # Figure 5: beyond the training length
            "eval.lengths": [[2048, 2048], [4096, 4096], [8192, 8192], [16384, 16384]],
            "eval.examples": 256,
            "eval.batch_size": 2,
        },
        source="App. E.3; rows run on across documents, as its trainer packs them by default; AdamW's betas are not given",
    ),
    on({"train.microbatches": 64}, source="ours: 4 rows at a time for one GPU; App. E.3 has 16 GPUs with 16 rows each"),
    on({"model.layer.heads": 8}, layer="deltanet", source="DeltaProduct's models of 340M", why="the paper does not say"),
    on({"model.depth": 48}, layer="mamba", source="Mamba's models of 370M", why="a block without a mixer is half as large"),
    on(
        {"model.layer.window": 16384}, layer="transformer", source="ours", why="all that stands before, at the longest test too"
    ),
)
DUBININ = Setting(
    MODEL,
    on(
        {
            "task.data": "fineweb-edu/**/*.parquet",
            "task.tokenizer": "fineweb-edu/tokenizer.json",
            "task.reset": False,
            "model.width": 768,
            "model.depth": 12,
            "model.mixer_hidden": 2048,
            "model.norm_eps": 1e-6,
            "model.dtype": "bfloat16",
            "optim.lr": 6e-3,
            "optim.final_lr": 1e-5,
            "optim.warmup": "10%",
            "optim.beta2": 0.95,
            "optim.weight_decay": 0.1,
            "train.duration": "18850 steps",
            **rows(256, 2048),
            "eval.examples": 256,
            "eval.batch_size": 2,
        },
        source="the released configs; they end without an evaluation, so what the paper reports may be of the training",
    ),
    on({"train.microbatches": 32}, source="ours: 8 rows at a time for one GPU"),
    on({"model.mixer": "swiglu"}, layer="lru mamba", source="the released configs", why="one block for all layers"),
)

SETTINGS = {"cpu": CPU, "smoke": SMOKE, "grazzi2025": PAPER, "dubinin2026": DUBININ}

get_config = Choices("language_modeling", SETTINGS)


def sweep() -> list[dict[str, Any]]:
    """Learning rate and seed, for the layer after the colon."""
    return grid({"optim.lr": [1e-3, 2e-3, 4e-3]}, seeds(3))


def sweep_layers() -> list[dict[str, Any]]:
    """Learning rate, for every layer."""
    return grid({"arg": list(LAYERS), "optim.lr": [1e-3, 2e-3, 4e-3]})
