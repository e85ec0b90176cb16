"""Word problems of groups, the state tracking of Grazzi et al. 2025 (Section 5.2, Figure 4), by any layer.

    lrnn train --config=configs/word_problem.py:LAYER,RANGE,group=GROUP,letters=LETTERS,tokens=TOKENS,scale=SCALE

LAYER and RANGE are those of configs/parity.py; SCALE is `cpu` (the default), `smoke` or `paper`. GROUP is S5 (the default) or
another of `GROUPS` below (--config.task.group takes any); LETTERS is `all`, `swaps` or `moved_3` (left out: `swaps` for S3, S4
and S5, `all` elsewhere); TOKENS is the number of tokens per transition, 1, 2 or 4.

Scale `cpu` is one layer of width 64, trained on 32 letters where these are swaps, else on 6, and tested on up to eight times
as many. Three seeds in one program, on one core that other work was using too; mean sequence accuracy over these lengths of
the last parameters on the test stream, and wall time of the three:

    deltanet,group=S5,letters=swaps             0.997     67 s
    deltanet,positive,group=S5,letters=swaps    0.000     65 s
    full_matrix,group=S5,letters=swaps          1.000    276 s
    deltaproduct,group=A5                       0.911    137 s (--config.model.layer.householders=2)
    deltaproduct,group=S5,letters=all           0.798    247 s (--config.model.layer.householders=4)

At scale `cpu` all layers have the learning rate that was found for DeltaNet, and Mamba has no convolution, as in
configs/parity.py.
Scale `smoke` checks that everything runs and learns nothing.

Scale `paper` is App. E.2: width 128, 4 heads, no convolution in DeltaNet, 5 layers (DeltaNet also with one:
--config.model.depth=1), 100 epochs of 1.6 million sequences of length 32 (64 with more tokens per transition) in batches of
512, AdamW with learning rate 1e-4 and weight decay 0.01, gradients clipped at 1, tests on 40 thousand sequences of length
500; three seeds. The paper names no schedule: the learning rate is constant. What the authors released is the code of
DeltaProduct, and `deltaproduct` has its setting at scale `paper`: one layer, length 128, tests at 512, 100 epochs of 100
thousand sequences in batches of 2048, 8 heads of 32, keys through SiLU, learning rate 1e-3 with a cosine, weight decay 1e-6,
compute in bfloat16. There it also stops once the validation's sequence accuracy is 0.99, and parameters are bfloat16 too.
"""

from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.fields import SCALES, layer_names, parse_arg, task_config
from lrnn_jax.config.files import load_own_config
from lrnn_jax.sweeps.combinators import grid, seeds

GROUPS = ("S5", "S3", "S4", "A5", "Z60", "A4xZ5", "Z2", "Z3", "Z5", "D4", "D5")
TOKENS = ("1", "2", "4")


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config for ``LAYER,positive|negative,GROUP,LETTERS,tokens=1|2|4,scale=smoke|cpu|paper``."""
    chosen = parse_arg(
        arg,
        layer=layer_names("deltanet"),
        eigenvalues=["negative", "positive"],
        group=GROUPS,
        letters=["usual", "all", "swaps", "moved_3"],
        tokens=TOKENS,
        scale=SCALES,
    )
    usual = "swaps" if chosen.group.startswith("S") else "all"
    letters = usual if chosen.letters == "usual" else chosen.letters
    tokens = int(chosen.tokens)
    c = load_own_config(f"configs/parity.py:{chosen.layer},{chosen.eigenvalues},scale={chosen.scale}").unlock()
    c.task = task_config("word_problem", group=chosen.group, letters=letters, tokens_per_transition=tokens, bos=True)
    c.model.head = "token"
    c.train.length = [32, 32] if tokens == 1 else [64, 64]
    c.eval.best_metric, c.eval.headline = "accuracy", [32, 500]
    c.optim.clip_norm = 1.0
    if chosen.layer in ("deltanet", "deltaproduct"):
        c.model.layer.conv_width, c.model.layer.key_activation = 0, "linear"
    if chosen.layer == "full_matrix":
        c.model.layer.size = 32
    if chosen.scale == "paper":
        _set_paper(c)
        if chosen.layer == "deltaproduct":
            _set_deltaproduct_paper(c)
    else:
        _set_small(c, chosen.scale)
    return c


def _set_small(c: ConfigDict, scale: str) -> None:
    # With few letters 32 of them are learned soon. With many, only the first positions teach anything for a long time.
    letters = 32 if c.task.letters == "swaps" else 6
    length = letters * c.task.tokens_per_transition
    c.train.length = [length, length]
    c.eval.lengths = [[n * length, n * length] for n in (1, 2, 4, 8)]
    c.eval.headline = [length, 8 * length]
    c.eval.every, c.eval.examples = "50%", 128  # on 256 positions with 120 classes, more of them take longer than training
    if scale == "cpu":
        c.model.width, c.model.depth, c.model.residual = 64, 1, True
        if c.model.layer.name in ("deltanet", "deltaproduct"):
            c.model.layer.heads = 8
        c.optim.lr = 5e-3
        c.train.duration, c.train.batch_size = ("1000 steps", 64) if letters == 32 else ("3000 steps", 192)
        c.train.batch_size //= c.task.tokens_per_transition


def _set_paper(c: ConfigDict) -> None:
    c.model.width, c.model.depth, c.model.residual = 128, 5, True
    c.optim.lr, c.optim.weight_decay = 1e-4, 0.01
    c.optim.schedule, c.optim.warmup = "constant", "0 steps"
    if c.model.layer.name == "full_matrix":
        c.model.depth = 1
    c.train.duration, c.train.batch_size = f"{100 * 1_600_000} examples", 512
    c.eval.lengths = [list(c.train.length), [500, 500]]
    c.eval.examples, c.eval.batch_size = 40_000, 500


def _set_deltaproduct_paper(c: ConfigDict) -> None:
    c.model.layer.heads, c.model.layer.head_dim, c.model.layer.key_activation = 8, 32, "silu"
    c.model.depth, c.model.dtype = 1, "bfloat16"
    c.optim.lr, c.optim.final_lr, c.optim.weight_decay, c.optim.clip_norm = 1e-3, 0.0, 1e-6, 0.0
    c.optim.schedule = "cosine"
    c.train.length, c.train.duration, c.train.batch_size = [128, 128], f"{100 * 100_000} examples", 2048
    c.eval.lengths, c.eval.headline = [[128, 128], [512, 512]], [128, 512]
    c.eval.examples, c.eval.batch_size = 10_240, 512


def sweep() -> list[dict[str, Any]]:
    """Both ranges of eigenvalues and three seeds, for DeltaNet; the paper has these, with one layer and five."""
    return grid({"arg": ["deltanet,positive", "deltanet,negative"]}, seeds(3))
