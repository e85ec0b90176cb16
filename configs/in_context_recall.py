"""In-context recall of MAD, by any layer: the value that came with a key before.

    lrnn train --config=configs/in_context_recall.py:LAYER[/VARIANT],SETTING
    lrnn sweep --config=configs/in_context_recall.py:LAYER,mad --sweep=difficulties

LAYER and VARIANT are those of configs/parity.py. `cpu` makes new examples for ever; Gated DeltaNet answers all of the test's
questions after a few hundred steps. `smoke` checks that everything runs.

`mad` is the baseline of the MAD protocol (Poli et al. 2024): two blocks of a layer and SwiGLU, with the RMSNorm that its
benchmark has by default. The sweep `difficulties` has it and every change of one variable. The protocol takes the best of three
learning rates and two weight decays (the sweep `mad`) and reports `macro_accuracy`. Its released trainer names its cosine
schedule by a key that nothing reads, so the learning rate is constant. Differs: it computes in bfloat16 under autocast, here in
float32; its embeddings start from N(0, 0.02^2) and other matrices as PyTorch's, here all as `model.initial_values` "default".

`dubinin2026` is Dubinin et al. 2026, whose text could not be read: `code` in a rule's source stands for the author's released
code, `inferred` for what a later script of the author's has. Sizes are those of the first of its four data sets; the sweep
`sizes` has all.
"""

from typing import Any

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import difficulties, grid, one_length, seeds

CPU = Setting(
    on(
        {
            "model.width": 64,
            "model.mixer": "swiglu",
            "model.mixer_hidden": 128,
            "model.head": "token",
            "optim.lr": 3e-3,
            "train.duration": "1200 steps",
            "train.batch_size": 32,
            "eval.every": "20%",
            "eval.examples": 512,
            "eval.best_metric": "macro_accuracy",
        }
    ),
    on(one_length(64)),
)
MAD = Setting(
    on(
        {
            "model.width": 128,
            "model.norm": "rmsnorm",
            "model.mixer": "swiglu",
            "model.mixer_hidden": 352,
            "model.head": "token",
            "optim.lr": 5e-4,
            "optim.schedule": "constant",
            "optim.warmup": "0 steps",
            "train.duration": "200 epochs",
            "train.batch_size": 128,
            "eval.examples": 1280,
            "eval.best_metric": "macro_accuracy",
        },
        source="MAD's released defaults and trainer; 352 is 4/3 of twice the width in multiples of 16",
    ),
    on({"task.train_examples": 12_800, **one_length(128)}, source="MAD's released in-context-recall.yml"),
)
DUBININ = Setting(
    MAD,
    on(
        {"model.norm": "layernorm", "model.initial_values": "released"},
        source="code: the norm of its command line; all matrices and embeddings from N(0, 0.02^2), biases 0",
    ),
    on(
        {"task.train_examples": 20_000, **one_length(64)},
        source="inferred from a later script, V = 16, L = 64, 20 thousand examples; the paper's own sizes are not known",
    ),
)
SETTINGS = {
    "cpu": CPU,
    "smoke": CPU + on({"train.duration": "40 steps", "eval.every": "50%", "eval.examples": 64, "eval.batch_size": 64}),
    "mad": MAD,
    "dubinin2026": DUBININ,
}

get_config = Choices("in_context_recall", SETTINGS)


def sweep_difficulties() -> list[dict[str, Any]]:
    """The MAD protocol's baseline and all changes of one variable."""
    return difficulties(vocabulary=[32, 64, 128], length=[256, 512, 1024], train_examples=[6400, 3200, 1600, 800])


def sweep_mad() -> list[dict[str, Any]]:
    """The MAD protocol's learning rates and weight decays, of which it reports the best."""
    return grid({"optim.lr": [1e-4, 5e-4, 1e-3], "optim.weight_decay": [0.0, 0.1]})


def sweep_sizes() -> list[dict[str, Any]]:
    """The four data sets of a later script of Dubinin et al.'s, with three seeds."""
    return grid(
        [
            {},
            one_length(128),
            {"task.vocabulary": 32},
            {"task.train_examples": 10_000},
        ],
        seeds(3),
    )
