"""Parity: the headline of Grazzi et al. 2025, by any layer.

    lrnn train --config=configs/parity.py:LAYER[/VARIANT],SETTING

LAYER is any of `lrnn list layers` (default deltanet); VARIANT is `negative` for eigenvalues in [-1, 1] (the default, where
there is a choice) or `positive` for [0, 1]; SETTING is one of `SETTINGS`, `cpu` if it is left out. At `cpu`, DeltaNet [-1, 1]
reaches a scaled accuracy of 1.0 in 10 seconds, and [0, 1] stays at chance (every number: experiments/results).

`smoke` checks that everything runs. `grazzi2025` is Grazzi et al. 2025, App. E.1.1; `grazzi2025-released` what its released
files say instead. The released code computes in bfloat16 with float32 weights; here residual branches add up in float32.
"""

from typing import Any

from lrnn_jax.config.settings import BLOCK, Choices, Setting, on
from lrnn_jax.registry import LAYERS
from lrnn_jax.sweeps.combinators import grid, seeds

EVALUATION = on(
    {
        "eval.lengths": [[40, 64], [65, 128], [129, 192], [193, 256], [257, 512]],
        "eval.best_metric": "scaled_accuracy",
    },
    source="Grazzi et al. 2025, Section 5.1: lengths 40 to 256; those beyond are ours",
)
# Figure 1's model, in every setting.
DIAGONAL = on(
    {"model.width": 10, "model.depth": 1, "model.residual": False},
    layer="diagonal",
    source="released parity_diagonal.yaml and parity_diagonal_tanh.yaml",
    why="Figure 1: one block between norms, no residual",
)
# What surrounds a layer of width 128: what its own paper has, and an RMSNorm where that says nothing.
BLOCKS = Setting(
    on({"model.norm": "rmsnorm"}, layer="-diagonal", source="released model code"),
    on(BLOCK),
    on({"model.norm": "rmsnorm"}, layer="lru rwkv7", source="ours", why="as the others here; the paper has neither of them"),
    on(
        {"model.mixer_hidden": 512},
        when={"model.mixer": "swiglu"},
        source="released model code: 256 * ceil(8/3 * 128 / 256)",
    ),
    on(
        {"model.mixer_hidden": 192, "model.layer.conv_width": 0},
        layer="slstm",
        source="released code of xLSTM: 1.3 times the width, rounded up to a multiple of 64; released yaml: no convolution",
        why="its GeGLU is narrower; the paper does not say that it has a convolution",
    ),
)

CPU = Setting(
    EVALUATION,
    on(
        {
            "model.width": 32,
            "model.depth": 1,
            "optim.lr": 1e-2,
            "train.duration": "4000 steps",
            "train.batch_size": 16,
            # on sequences of up to 512 tokens; with more of them validation takes longer than training
            "eval.every": "20%",
            "eval.examples": 512,
        }
    ),
    on({"model.layer.conv_width": 0}, layer="deltanet deltaproduct gated_deltanet mlstm slstm", why="parity needs no taps"),
    on({"model.layer.conv_width": 1}, layer="mamba mamba2", why="no convolution, as in the released parity file"),
    on({"model.layer.key_activation": "linear"}, layer="deltanet deltaproduct", why="keys of mixed sign need linear ones"),
    on({"model.layer.size": 8}, layer="full_matrix", why="so that it is as fast as the others"),
    on({"model.mixer": "swiglu", "model.mixer_hidden": 64}, layer="transformer", why="attention alone mixes no channels"),
    on({"model.mixer": "glu"}, layer="lru", why="the LRU's own block"),
    on({"optim.lr": 3e-3}, layer="diagonal mamba mamba2", why="1e-2 was tried for DeltaNet"),
    on(
        {"train.batch_size": 64, "train.duration": "2000 steps"},
        layer="mamba mamba2",
        why="with 16 rows one of four seeds of Mamba stayed at chance, and Mamba-2 did",
    ),
    DIAGONAL,
)

PAPER = Setting(
    EVALUATION,
    on(
        {
            "model.width": 128,
            "model.depth": 2,
            "optim.lr": 1e-3,
            "train.duration": "100000 steps",
            "train.batch_size": 1024,
            "optim.weight_decay": 0.1,
            "eval.examples": 2048,
            "eval.batch_size": 256,
        },
        source="App. E.1.1; the learning rate is the best of 1e-2, 1e-3, 5e-4, 1e-4; 8192 test sequences",
    ),
    on({"train.batch_size": 512}, layer="mlstm", source="App. E.1.1", why="the paper's mLSTM has half the batch"),
    BLOCKS,
    DIAGONAL,
    on(
        {"train.duration": "20000 steps", "train.batch_size": 256, "optim.weight_decay": 0.0},
        layer="diagonal",
        source="released parity_diagonal_tanh.yaml",
        why="the paper gives no training of Figure 1's layer",
    ),
)

SETTINGS = {
    "cpu": CPU,
    "smoke": CPU + on({"train.duration": "100 steps", "eval.examples": 64, "eval.batch_size": 64}),
    "grazzi2025": PAPER,
    "grazzi2025-released": PAPER
    + Setting(
        on(
            {"train.duration": "20000 steps", "train.batch_size": 256, "optim.weight_decay": 0.0},
            source="released parity yaml files",
        ),
        on({"model.dtype": "bfloat16"}, layer="-diagonal", source="released main.py: autocast", why="Figure 1 ran on CPUs"),
        on({"optim.weight_decay": 0.1}, layer="mlstm slstm", source="released yaml files of xLSTM", why="xLSTM alone decays"),
        on({"model.layer.conv_width": 1}, layer="mamba", source="released model code: d_conv=1", why="the paper says 4"),
        on(
            {"model.layer.initial_values": "released"},
            layer="deltanet deltaproduct diagonal gated_deltanet lstm mamba rwkv7",
            source="each layer's released code",
            why="by default these layers start otherwise",
        ),
        on(
            {"model.layer.bias_init": "powerlaw_by_block"},
            layer="slstm",
            source="released code of xLSTM",
            why="forget gates of later blocks start further open",
        ),
        on(
            {"model.initial_values": "released", "model.head_bias": False},
            layer="deltanet deltaproduct gated_deltanet",
            source="code of DeltaNet's models (fla): embedding and matrices from N(0, 0.02^2), no bias in the head",
            why="what is around these layers there",
        ),
        on(
            {"model.layer.input_gate": True, "model.head_bias": False, "model.norm_bias": False},
            layer="diagonal",
            source="released code of its simple recurrent network",
            why="Figure 1's layer multiplies the input term by x; nothing around it has a bias",
        ),
        on({"optim.warmup": "0 steps"}, layer="diagonal", source="released parity_diagonal_tanh.yaml", why="it has no warm-up"),
        on(
            {"optim.warmup": "2000 steps"},
            layer="diagonal",
            variant="positive",
            source="released parity_diagonal.yaml",
            why="the sigmoid's file has one",
        ),
    ),
}

get_config = Choices("parity", SETTINGS)


def sweep() -> list[dict[str, Any]]:
    """Learning rate and seed, for the layer after the colon."""
    return grid({"optim.lr": [1e-3, 3e-3, 1e-2]}, seeds(3))


def sweep_layers() -> list[dict[str, Any]]:
    """Learning rate and seed, for every layer."""
    return grid({"arg": list(LAYERS)}, sweep())
