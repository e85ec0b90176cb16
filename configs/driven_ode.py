"""States of a driven differential equation from its inputs, by any layer.

    lrnn train --config=configs/driven_ode.py:LAYER[/VARIANT],SETTING,system=protein_transduction|lotka_volterra

LAYER and VARIANT are those of configs/parity.py. The model is one recurrence without norms or residuals, then an MLP of one
hidden layer and a linear map: what Orvieto et al. 2024 prove universal. Sizes and training are ours, since that paper's could
not be read. `smoke` checks that everything runs.
"""

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import one_length

CPU = Setting(
    on(
        {
            "model.width": 32,
            "model.depth": 1,
            "model.norm": "none",
            "model.residual": False,
            "model.mixer": "mlp",
            "model.mixer_hidden": 64,
            "model.head": "token",
            "optim.lr": 1e-2,
            "optim.clip_norm": 1.0,
            "train.duration": "2000 steps",
            "train.batch_size": 32,
            "eval.every": "20%",
            "eval.examples": 512,
        }
    ),
    on(one_length(64)),
)
SETTINGS = {
    "cpu": CPU,
    "smoke": CPU + on({"train.duration": "40 steps", "eval.every": "50%", "eval.examples": 64, "eval.batch_size": 64}),
}

get_config = Choices(
    "driven_ode",
    SETTINGS,
    {"system": {name: {"task.system": name} for name in ("protein_transduction", "lotka_volterra")}},
)
