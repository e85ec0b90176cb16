"""Word problems of groups, the state tracking of Grazzi et al. 2025 (Section 5.2, Figure 4), by any layer.

    lrnn train --config=configs/word_problem.py:LAYER[/VARIANT],SETTING,group=GROUP,letters=LETTERS,tokens=TOKENS

LAYER and VARIANT are those of configs/parity.py. GROUP is S5 (the default) or another of `GROUPS` below (--config.task.group
takes any); LETTERS is `all`, `swaps` or `moved_3` (left out: `swaps` for S3, S4 and S5, `all` elsewhere); TOKENS is the number
of tokens per transition, 1, 2 or 4. At `cpu`, DeltaNet [-1, 1] gets whole sequences of swaps of S5 right, and [0, 1] none
(every number: experiments/results).

`grazzi2025` is Grazzi et al. 2025, App. E.2, five layers (DeltaNet also with one: --config.model.depth=1). The paper names no
schedule: the learning rate is constant. `siems2025` is what the authors released, the code of DeltaProduct, which also stops
once the validation's sequence accuracy is 0.99, and whose parameters are bfloat16 too. `dubinin2026` is Dubinin et al. 2026, S2
to S5 with all letters: `code` in a rule's source stands for the author's released code, `inferred` for what a later script has.
"""

from typing import Any

from lrnn_jax.config.files import load_settings
from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import grid, one_length, seeds

PARITY = load_settings("parity")
GROUPS = ("S5", "S2", "S3", "S4", "A5", "Z60", "A4xZ5", "Z2", "Z3", "Z5", "D4", "D5")
TOKENS = ("1", "2", "4")
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "group": {name: {"task.group": name} for name in GROUPS},
    "letters": {
        "usual": {},
        "all": {"task.letters": "all"},
        "swaps": {"task.letters": "swaps"},
        "moved_3": {"task.letters": "moved_3"},
    },
    "tokens": {number: {"task.tokens_per_transition": int(number)} for number in TOKENS},
}
TASK = Setting(
    on({"task.bos": True, "model.head": "token", "eval.best_metric": "accuracy"}, source="App. E.2: every position is asked"),
    on({"optim.clip_norm": 1.0}, source="App. E.2"),
    on(
        {"task.letters": "swaps"},
        when={"letters": "usual", "task.group": ("S3", "S4", "S5")},
        source="App. E.2",
        why="a symmetric group is made by its swaps, which one layer of reflections can follow",
    ),
    on(
        {"model.layer.conv_width": 0, "model.layer.key_activation": "linear"},
        layer="deltanet deltaproduct",
        source="App. E.2: no convolution; in the released code, keys without one have no activation",
        why="swaps need keys of mixed sign",
    ),
    on({"model.layer.size": 32}, layer="full_matrix", source="App. E.2: matrices of 32 x 32", why="its size"),
)


def multiples(letters: int, tokens: int) -> dict[str, Any]:
    """Training on so many letters, tests on up to eight times as many."""
    length = letters * tokens
    lengths = [[n * length, n * length] for n in (1, 2, 4, 8)]
    return {"train.length": lengths[0], "eval.lengths": lengths, "eval.headline": [length, 8 * length]}


LENGTHS = Setting(
    *(
        on(
            multiples(letters, int(tokens)),
            when={"task.letters": names, "tokens": tokens},
            why="32 swaps are learned soon; of many letters only the first positions teach anything for a long time",
        )
        for names, letters in ((("swaps",), 32), (("all", "moved_3"), 6))
        for tokens in TOKENS
    ),
    # on 256 positions with 120 classes, more of them take longer than training
    on({"eval.every": "50%", "eval.examples": 128}),
)
SMALL = Setting(
    on({"model.width": 64, "model.depth": 1, "model.residual": True, "optim.lr": 5e-3}),
    on({"model.layer.heads": 8}, layer="deltanet deltaproduct", why="heads of eight features"),
    *(
        on(
            {"train.duration": duration, "train.batch_size": rows // int(tokens)},
            when={"task.letters": names, "tokens": tokens},
            why="many letters take longer; the tokens of a batch stay the same",
        )
        for names, duration, rows in ((("swaps",), "1000 steps", 64), (("all", "moved_3"), "3000 steps", 192))
        for tokens in TOKENS
    ),
)
PAPER = Setting(
    PARITY["grazzi2025"],
    TASK,
    on(
        {
            "model.width": 128,
            "model.depth": 5,
            "model.residual": True,
            "optim.lr": 1e-4,
            "optim.weight_decay": 0.01,
            "optim.schedule": "constant",
            "optim.warmup": "0 steps",
            "train.length": [32, 32],
            "train.duration": f"{100 * 1_600_000} examples",
            "train.batch_size": 512,
            "eval.lengths": [[32, 32], [500, 500]],
            "eval.headline": [32, 500],
            "eval.examples": 40_000,
            "eval.batch_size": 500,
        },
        source="App. E.2: 100 epochs of 1.6 million sequences of length 32, tests on 40 thousand of length 500",
    ),
    on(
        {"train.length": [64, 64], "eval.lengths": [[64, 64], [500, 500]]},
        when={"tokens": ("2", "4")},
        source="App. E.2",
        why="twice the length with more tokens per transition",
    ),
    on({"model.depth": 1}, layer="full_matrix", source="App. E.2", why="the paper's has one layer"),
)
SIEMS = Setting(
    PARITY["grazzi2025"],
    TASK,
    on(
        {
            "model.width": 128,
            "model.depth": 1,
            "model.residual": True,
            "model.dtype": "bfloat16",
            "optim.lr": 1e-3,
            "optim.final_lr": 0.0,
            "optim.weight_decay": 1e-6,
            "optim.clip_norm": 0.0,
            "optim.warmup": "0 steps",
            "train.length": [128, 128],
            "train.duration": f"{100 * 100_000} examples",
            "train.batch_size": 2048,
            "eval.lengths": [[128, 128], [512, 512]],
            "eval.headline": [128, 512],
            "eval.examples": 10_240,
            "eval.batch_size": 512,
        },
        source="released code of DeltaProduct: 100 epochs of 100 thousand sequences of length 128, tests at 512",
    ),
    on(
        {"model.layer.heads": 8, "model.layer.head_dim": 32, "model.layer.key_activation": "silu"},
        layer="deltaproduct",
        source="released code of DeltaProduct",
        why="its heads and keys",
    ),
    on(
        {"model.layer.initial_values": "released", "model.initial_values": "released", "model.head_bias": False},
        layer="deltanet deltaproduct gated_deltanet",
        source="code of DeltaNet's models (fla): embedding and matrices from N(0, 0.02^2), no bias in the head",
        why="what these layers and what is around them start from there",
    ),
)

DUBININ = Setting(
    load_settings("in_context_recall")["dubinin2026"],
    on({"task.padding": False}, source="code: the vocabulary is the group, without BOS"),
    on(
        {"task.train_examples": 100_000, "eval.best_metric": "accuracy", **one_length(16)},
        source="inferred from a later script: 100 thousand sequences of 16 (there all different, and none of the test's)",
    ),
)

SETTINGS = {
    "cpu": Setting(PARITY["cpu"], TASK, LENGTHS, SMALL),
    "smoke": Setting(PARITY["smoke"], TASK, LENGTHS),
    "grazzi2025": PAPER,
    "siems2025": SIEMS,
    "dubinin2026": DUBININ,
}

get_config = Choices("word_problem", SETTINGS, OPTIONS)


def sweep() -> list[dict[str, Any]]:
    """Both ranges of eigenvalues and three seeds, for DeltaNet; the paper has these, with one layer and five."""
    return grid({"arg": ["deltanet/positive", "deltanet/negative"]}, seeds(3))
