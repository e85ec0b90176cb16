"""Study behind Figure 7 of Orvieto et al. 2023: a linear and a tanh RNN learn to convolve with a kernel."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

Parameters = Mapping[str, Float[Array, "..."]]


def study_kernel_fitting(
    *,
    width: int,
    steps: int,
    sequences: int,
    iterations: int,
    lrs: Sequence[float],
    highest: float,
    every: int,
    seeds: int,
) -> list[dict[str, Any]]:
    """Returns the training loss of each RNN and learning rate: mean squared error over the variance of the targets.

    "radius of A" is the largest absolute eigenvalue that A starts with.

    ``x_k = sigma(A x_{k-1} + B u_k)``, ``y_k = C x_k + D u_k``, with sigma the identity or tanh, learns
    ``y_k = sum_j h_j u_{k-j}`` with ``h_k = exp(-0.015 k) cos(0.04 k)^2 / 10`` of inputs ``sin(0.05 a k) cos(0.05 c k)^2``.

    Args:
      width: N.
      steps: length L of the sequences and of the kernel.
      sequences: all in one batch.
      iterations: of Adam, with its default momenta.
      lrs: learning rates.
      highest: a and c are uniform between 0 and this.
      every: iterations from one kept loss to the next.
      seeds: of inputs and initial values; both RNNs have the same.
    """
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        u = draw_waves(rng, sequences, steps, highest)
        y = convolve(u, make_kernel(steps))
        start = {
            name: (rng.normal(size=shape) * np.sqrt(2.0 / sum(shape))).astype(np.float32)  # Glorot
            for name, shape in {"A": (width, width), "B": (width, 1), "C": (1, width), "D": (1, 1)}.items()
        }
        radius = float(np.max(np.abs(np.linalg.eigvals(start["A"]))))
        for name, lr in itertools.product(("linear", "tanh"), lrs):
            losses = np.asarray(_train(start, u, y, jnp.float32(lr), name == "linear", iterations)) / np.var(y)
            place = {"RNN": name, "lr": lr, "seed": seed, "radius of A": radius}
            rows += [{**place, "iteration": step, "loss": losses[step]} for step in range(0, iterations + 1, every)]
    return rows


def make_kernel(steps: int) -> Float[np.ndarray, " L"]:
    """Returns ``h_k = exp(-0.015 k) cos(0.04 k)^2 / 10``."""
    k = np.arange(steps)
    return 0.1 * np.exp(-0.015 * k) * np.cos(0.04 * k) ** 2


def draw_waves(rng: np.random.Generator, sequences: int, steps: int, highest: float) -> Float[np.ndarray, "S L"]:
    """Returns ``sin(0.05 a k) cos(0.05 c k)^2`` with a and c uniform in [0, ``highest``]."""
    a, c = rng.uniform(0.0, highest, (2, sequences, 1))
    k = np.arange(steps)
    return (np.sin(0.05 * a * k) * np.cos(0.05 * c * k) ** 2).astype(np.float32)


def convolve(u: Float[np.ndarray, "S L"], h: Float[np.ndarray, " L"]) -> Float[np.ndarray, "S L"]:
    """Returns ``y_k = sum_{j <= k} h_j u_{k-j}``."""
    return np.stack([np.convolve(row, h)[: u.shape[1]] for row in u]).astype(np.float32)


def run_rnn(p: Parameters, u: Float[Array, "S L"], *, linear: bool) -> Float[Array, "S L"]:
    """Returns the outputs of ``x_k = sigma(A x_{k-1} + B u_k)``, ``y_k = C x_k + D u_k`` from ``x_0 = 0``."""

    def step(x: jax.Array, u_k: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.matmul(x, p["A"].T, precision="highest") + u_k[:, None] * p["B"].T
        x = x if linear else jnp.tanh(x)
        return x, jnp.matmul(x, p["C"].T, precision="highest")[:, 0] + u_k * p["D"][0]

    start = jnp.zeros((u.shape[0], p["A"].shape[0]), jnp.float32)
    return jax.lax.scan(step, start, jnp.asarray(u).T)[1].T


@functools.partial(jax.jit, static_argnums=(4, 5))
def _train(start: Any, u: jax.Array, y: jax.Array, lr: jax.Array, linear: bool, iterations: int) -> jax.Array:
    """Mean squared errors before and after each iteration; one program whatever the learning rate."""
    adam = optax.scale_by_adam()

    def loss(p: Any) -> jax.Array:
        return jnp.mean(jnp.square(run_rnn(p, u, linear=linear) - y))

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        p, state = carry
        value, gradient = jax.value_and_grad(loss)(p)
        move, state = adam.update(gradient, state)
        return (jax.tree.map(lambda x, d: x - lr * d, p, move), state), value

    start = jax.tree.map(jnp.asarray, start)
    return jax.lax.scan(step, (start, adam.init(start)), None, length=iterations + 1)[1]
