"""The whole input back from the vector at its last position, by any layer.

    lrnn train --config=configs/reconstruction.py:LAYER[/VARIANT],SETTING,data=noise|smooth

LAYER and VARIANT are those of configs/parity.py. The model is that of configs/driven_ode.py: one recurrence without norms or
residuals, an MLP of one hidden layer and a linear map. Sizes and training are ours. `smoke` checks that everything runs.
"""

from lrnn_jax.config.settings import Choices, Setting, on
from lrnn_jax.sweeps.combinators import one_length

CPU = Setting(
    on(
        {
            "model.width": 64,
            "model.depth": 1,
            "model.norm": "none",
            "model.residual": False,
            "model.mixer": "mlp",
            "model.mixer_hidden": 128,
            "optim.lr": 5e-3,
            "optim.clip_norm": 1.0,
            "train.duration": "1000 steps",
            "train.batch_size": 32,
            "eval.every": "20%",
            "eval.examples": 512,
        }
    ),
    on(one_length(32)),
)
SETTINGS = {
    "cpu": CPU,
    "smoke": CPU + on({"train.duration": "40 steps", "eval.every": "50%", "eval.examples": 64, "eval.batch_size": 64}),
}

get_config = Choices("reconstruction", SETTINGS, {"data": {"noise": {}, "smooth": {"task.dimensions": 8}}})
