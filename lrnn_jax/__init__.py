"""lrnn_jax: the lab bench for linear recurrent networks in JAX.

Everything that the commands do can be done from Python; what is named here is imported on its first use::

    from lrnn_jax import DeltaNet, Parity, Backbone, scans, get_config, train, load_run

    config = get_config("configs/parity.py:deltanet,smoke", {"optim.lr": 3e-3})
    result = train(config, workdir="runs/x")
    run = load_run("runs/x")
    outputs, states = run.apply([[2, 1, 2, 2]])  # tokens, as run.task has them

Mistakes in what is given are `ValueError`; `lrnn_jax.errors` has the exceptions of a training that fails or is interrupted.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrnn_jax import scans as scans
    from lrnn_jax.analysis.exporting import export_run as export_run
    from lrnn_jax.analysis.loading import load_run as load_run
    from lrnn_jax.config.fields import set_field as set_field
    from lrnn_jax.config.files import load_config as get_config  # noqa: F401
    from lrnn_jax.models.backbone import Backbone as Backbone
    from lrnn_jax.registry import build_model as build_model
    from lrnn_jax.registry import build_task as build_task
    from lrnn_jax.scans import *  # noqa: F403
    from lrnn_jax.training.evaluation import evaluate_run as evaluate_run
    from lrnn_jax.training.loop import train as train

__version__ = "0.1.0"

# Name -> module, or module:attribute. The classes of all layers and tasks come on top, by the registry, and every `scan_*`.
_NAMES = {
    "Backbone": "lrnn_jax.models.backbone:Backbone",
    "build_model": "lrnn_jax.registry:build_model",
    "build_task": "lrnn_jax.registry:build_task",
    "evaluate_run": "lrnn_jax.training.evaluation:evaluate_run",
    "export_run": "lrnn_jax.analysis.exporting:export_run",
    "get_config": "lrnn_jax.config.files:load_config",
    "load_run": "lrnn_jax.analysis.loading:load_run",
    "scans": "lrnn_jax.scans",
    "set_field": "lrnn_jax.config.fields:set_field",
    "train": "lrnn_jax.training.loop:train",
}


def _places() -> dict[str, str]:
    from lrnn_jax.registry import LAYERS, TASKS

    classes = {place.partition(":")[2]: place for place in (*LAYERS.values(), *TASKS.values())}
    return classes | _NAMES


def __getattr__(name: str) -> Any:
    places = _places()
    if name.startswith("scan_"):
        from lrnn_jax import scans

        places |= {each: f"lrnn_jax.scans:{each}" for each in scans.__all__}
    if name not in places:
        from lrnn_jax.errors import suggest

        raise AttributeError(f"module 'lrnn_jax' has no attribute {name!r}{suggest(name, places)}")
    module, _, attribute = places[name].partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value  # so that the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_places()})
