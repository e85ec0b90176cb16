"""Names to classes, imported on first use. A new layer or task adds one line here."""

import functools
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrnn_jax.errors import CannotImport, UserError, name_fields, suggest

if TYPE_CHECKING:
    from lrnn_jax.models.backbone import Backbone
    from lrnn_jax.parts.layer import RecurrentLayer
    from lrnn_jax.tasks.base import Task

LAYERS = {
    "bd_lru": "lrnn_jax.layers.bd_lru:BDLRU",
    "deltanet": "lrnn_jax.layers.deltanet:DeltaNet",
    "deltaproduct": "lrnn_jax.layers.deltaproduct:DeltaProduct",
    "diagonal": "lrnn_jax.layers.diagonal:Diagonal",
    "full_matrix": "lrnn_jax.layers.full_matrix:FullMatrix",
    "gated_deltanet": "lrnn_jax.layers.gated_deltanet:GatedDeltaNet",
    "gla": "lrnn_jax.layers.gla:GLA",
    "gru": "lrnn_jax.layers.gru:GRU",
    "h_lru": "lrnn_jax.layers.h_lru:HLRU",
    "lru": "lrnn_jax.layers.lru:LRU",
    "lstm": "lrnn_jax.layers.lstm:LSTM",
    "mamba": "lrnn_jax.layers.mamba:Mamba",
    "mamba2": "lrnn_jax.layers.mamba2:Mamba2",
    "mlstm": "lrnn_jax.layers.mlstm:MLSTM",
    "rnn": "lrnn_jax.layers.rnn:RNN",
    "rwkv7": "lrnn_jax.layers.rwkv7:RWKV7",
    "s4": "lrnn_jax.layers.s4:S4",
    "s4d": "lrnn_jax.layers.s4d:S4D",
    "s5": "lrnn_jax.layers.s5:S5",
    "slstm": "lrnn_jax.layers.slstm:SLSTM",
    "transformer": "lrnn_jax.layers.transformer:Transformer",
}

TASKS = {
    "compression": "lrnn_jax.tasks.compression:Compression",
    "driven_ode": "lrnn_jax.tasks.driven_ode:DrivenODE",
    "fuzzy_in_context_recall": "lrnn_jax.tasks.fuzzy_in_context_recall:FuzzyInContextRecall",
    "image_classification": "lrnn_jax.tasks.image_classification:ImageClassification",
    "in_context_recall": "lrnn_jax.tasks.in_context_recall:InContextRecall",
    "language_modeling": "lrnn_jax.tasks.language_modeling:LanguageModeling",
    "listops": "lrnn_jax.tasks.listops:ListOps",
    "memorization": "lrnn_jax.tasks.memorization:Memorization",
    "modular_arithmetic": "lrnn_jax.tasks.modular_arithmetic:ModularArithmetic",
    "modular_arithmetic_brackets": "lrnn_jax.tasks.modular_arithmetic_brackets:ModularArithmeticBrackets",
    "modular_counting": "lrnn_jax.tasks.modular_counting:ModularCounting",
    "mqar": "lrnn_jax.tasks.mqar:MQAR",
    "noisy_in_context_recall": "lrnn_jax.tasks.noisy_in_context_recall:NoisyInContextRecall",
    "parity": "lrnn_jax.tasks.parity:Parity",
    "pathfinder": "lrnn_jax.tasks.pathfinder:Pathfinder",
    "reconstruction": "lrnn_jax.tasks.reconstruction:Reconstruction",
    "retrieval": "lrnn_jax.tasks.retrieval:Retrieval",
    "selective_copying": "lrnn_jax.tasks.selective_copying:SelectiveCopying",
    "text_classification": "lrnn_jax.tasks.text_classification:TextClassification",
    "word_problem": "lrnn_jax.tasks.word_problem:WordProblem",
}


def load_layer(name: str) -> "type[RecurrentLayer]":
    """Returns the layer class called ``name``, or ``module:Class`` from outside this package.

    Raises:
      UserError: no such layer (names the nearest), or one that lacks something of the contract.
    """
    return _load("layer", name, LAYERS)


def load_task(name: str) -> "type[Task]":
    """Returns the task class called ``name``, or ``module:Class`` from outside this package.

    Raises:
      UserError: no such task; names the nearest.
    """
    return _load("task", name, TASKS)


def build_task(config: Any) -> "Task":
    """Makes the task of the config's section ``task``.

    Raises:
      UserError: no such task, or fields that do not fit together.
    """
    fields = {key: value for key, value in config.items() if key not in ("name", "revision")}
    cls = load_task(config.name)
    try:
        return cls(**fields)
    except ValueError as error:
        raise UserError(name_fields(str(error), {key: f"task.{key}" for key in fields})) from error


def build_model(config: Any, task: "Task") -> "Backbone":
    """Makes the model of the config's section ``model`` with the inputs and outputs of ``task``.

    Raises:
      UserError: fields that do not fit together.
    """
    return _make_model(config, vocab_size=task.vocab_size, outputs=task.outputs)


def check_model(config: Any, task: "Task", *, longest: int) -> None:
    """Refuses a section ``model`` that does not fit ``task``, whose data are not read.

    Args:
      config: the section.
      task: the task.
      longest: the longest sequence that the model will see, as the task counts lengths.

    Raises:
      UserError: a head that the task cannot use, a maximal length below ``longest``, a layer that would read the answers, or
        fields that do not fit together.
    """
    from lrnn_jax.models.names import HEADS

    if config.head not in task.HEADS:
        unfit = f"; task {type(task).__name__} has no use for it" if config.head in HEADS else suggest(config.head, task.HEADS)
        raise UserError(f"model.head={config.head!r} is not one of {', '.join(task.HEADS)}{unfit}")
    steps = task.example_spec(longest).steps
    if 0 < config.max_length < steps:
        raise UserError(f"model.max_length={config.max_length} is less than the {steps} positions of the longest sequence")
    model = _make_model(config, vocab_size=1, outputs=1)
    if task.ANSWERS_AHEAD and not model.make_layer().causal:
        name = model.make_layer().describe()
        raise UserError(f"{name} reads to both sides, and {type(task).__name__} has the answer among the inputs to come")


def _make_model(config: Any, *, vocab_size: int, outputs: int) -> "Backbone":
    import jax.numpy as jnp

    from lrnn_jax.models.backbone import Backbone

    own = {key: value for key, value in config.items() if key not in ("layer", "dtype")}
    layer_fields = tuple(sorted((key, value) for key, value in config.layer.items() if key != "name"))
    layer, dtype = load_layer(config.layer.name), jnp.dtype(config.dtype)
    try:
        return Backbone(layer, layer_fields, vocab_size, outputs, dtype=dtype, **own)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"model.{error}") from error


def _load(kind: str, name: str, registry: dict[str, str]) -> Any:
    if not isinstance(name, str):
        raise UserError(f"{kind} {name!r} is no name")  # as a damaged config may have it
    if ":" in name:
        return _load_from_outside(kind, name)
    if name not in registry:
        raise UserError(f"unknown {kind} {name!r}{suggest(name, registry)} (`lrnn list {kind}s` shows all)")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def _load_from_outside(kind: str, name: str) -> Any:
    """Imports ``module:Class`` from the working directory or from wherever Python finds modules."""
    module_name, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's code
        said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}{_find_place(error, module_name)}"
        raise CannotImport(f"{kind} {name!r}: cannot import {module_name!r}: {said}") from error
    cls = getattr(module, attribute, None)
    if not isinstance(cls, type):
        known = [key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name]
        raise UserError(f"{kind} {name!r}: {module_name!r} has no class {attribute!r}{suggest(attribute, known)}")
    _check_contract(kind, name, cls)
    return cls


def _find_place(error: Exception, module_name: str) -> str:
    """Returns where a user's module fails, as ``" (FILE:LINE)"``, or what to do where there is no such module."""
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        file = f"{module_name.replace('.', '/')}.py"
        return f"; start in the folder that {file} lies in, or put that folder on PYTHONPATH"
    if isinstance(error, SyntaxError):
        return ""  # has its place in its text
    # after ours and importlib's come those of the module; what it calls in other libraries is not the user's
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[2:] if not frame.filename.startswith("<")]
    own = [frame for frame in frames if Path(frame.filename).parent == Path(frames[0].filename).parent]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""


def _check_contract(kind: str, name: str, cls: type) -> None:
    from lrnn_jax.parts.contract import missing_parts

    missing = missing_parts(cls) if kind == "layer" else _missing_task_parts(cls)
    if missing:
        raise UserError(f"{kind} {name!r} lacks {', '.join(missing)}")


def _missing_task_parts(cls: type) -> list[str]:
    from lrnn_jax.tasks.base import FileTask, SyntheticTask

    own = {SyntheticTask: ["batch"], FileTask: ["rows", "collate"]}
    for base, names in own.items():
        if issubclass(cls, base):
            names = ["vocab_size", "outputs", *names]
            missing = [f"method {name}" for name in names if getattr(cls, name) is getattr(base, name)]
            return missing + [f"class attribute {name}" for name in ("CHANCE", "EVAL_LENGTHS") if not hasattr(cls, name)]
    return ["the base class lrnn_jax.tasks.base.SyntheticTask or FileTask"]
