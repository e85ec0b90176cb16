"""Text from a trained language model: the prompt at once, then token by token with a state of fixed size."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.analysis.loading import load_run
from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import load_task
from lrnn_jax.runs.restoring import read_run
from lrnn_jax.training.steps import Tree


class Sampling(NamedTuple):
    """How the next token is drawn.

    Attributes:
      temperature: divides the logits; 0 takes the most probable token.
      top_k: draws among that many most probable tokens; 0 among all.
      top_p: draws among the fewest most probable tokens that together have this probability.
      seed: the same text for the same seed.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class LanguageModel(NamedTuple):
    """A trained run.

    Attributes:
      tokenizer: of its task.
      model: its backbone.
      variables: parameters, and BatchNorm's statistics.
      task: as the run had it.
    """

    tokenizer: Any
    model: Backbone
    variables: Tree
    task: Any


def load_language_model(workdir: Path, *, which: str) -> LanguageModel:
    """Reads a run's parameters; its data are not needed.

    Args:
      workdir: the run's folder.
      which: "last", or "best" by the config's ``eval.best_metric``.

    Raises:
      UserError: no run, no such checkpoint, a run of another task, or a layer that reads both ways.
    """
    config = read_run(workdir)
    if not hasattr(load_task(config.task.name), "load_tokenizer"):
        raise UserError(f"{workdir} is a run of {config.task.name!r}, which is no language model")
    run = load_run(workdir, which=which)
    task: Any = run.task
    return LanguageModel(task.load_tokenizer(), run.model, run.variables, task)


def generate(language: LanguageModel, prompt: str, *, tokens: int, sampling: Sampling) -> Iterator[int]:
    """Yields up to ``tokens`` tokens after the prompt, each as soon as it is drawn; the end of the document ends the text.

    The prompt is read all at once, by the method that `model.scan` names; after it, a step needs the states alone.

    Args:
      language: the model.
      prompt: the document's beginning; may be empty.
      tokens: most tokens.
      sampling: how they are drawn.

    Raises:
      UnknownText: the tokenizer does not know a character of the prompt.
      UserError: more positions than the model has.
    """
    tokenizer = language.tokenizer
    beginning = np.concatenate([[tokenizer.start], tokenizer.encode(prompt)]).astype(np.int32)
    positions, most = len(beginning) + tokens - 1, language.model.max_length
    if 0 < most < positions:
        raise UserError(f"the prompt and {tokens} tokens are {positions} positions, and the model has model.max_length={most}")
    key = jax.random.key(sampling.seed)
    prefill, step = _compile(language.model, sampling)
    token, states = prefill(language.variables, jnp.asarray(beginning[None]), jax.random.fold_in(key, 0))
    for i in range(tokens):
        drawn = int(token[0, 0])
        if drawn == tokenizer.start:
            return
        yield drawn
        if i + 1 < tokens:
            token, states = step(language.variables, token, states, jax.random.fold_in(key, i + 1))


def choose(logits: jax.Array, key: jax.Array, sampling: Sampling) -> jax.Array:
    """Returns the token drawn from ``logits`` ``[O]``, int32."""
    if sampling.temperature == 0.0:
        return jnp.argmax(logits).astype(jnp.int32)
    order = jnp.argsort(-logits)
    scaled = logits[order] / sampling.temperature
    rank = jnp.arange(scaled.shape[0])
    scaled = jnp.where(rank < (sampling.top_k or scaled.shape[0]), scaled, -jnp.inf)
    probability = jax.nn.softmax(scaled)
    # of the tokens before it: the first one that reaches top_p is still in
    before = jnp.cumsum(probability) - probability
    inside = (before < sampling.top_p) | (rank == 0)
    return order[jax.random.categorical(key, jnp.where(inside, scaled, -jnp.inf))].astype(jnp.int32)


@functools.lru_cache(maxsize=8)
def _compile(model: Backbone, sampling: Sampling) -> tuple[Any, Any]:
    def draw(logits: jax.Array, key: jax.Array) -> jax.Array:
        return choose(logits[0, -1], key, sampling)[None, None]

    def prefill(variables: Tree, tokens: jax.Array, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, states = model.apply(variables, tokens)
        return draw(logits, key), states

    def step(variables: Tree, token: jax.Array, states: Tree, key: jax.Array) -> tuple[jax.Array, Tree]:
        logits, states = model.apply(variables, token, states=states)
        return draw(logits, key), states

    return jax.jit(prefill), jax.jit(step, donate_argnums=2)
