"""The matrix products of a program, and the time that they alone would take."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Inside of these a product runs again and again on small arrays, which is the recurrence and not what surrounds it.
LOOPS = ("while", "scan")


class Product(NamedTuple):
    """One `lax.dot_general`.

    Attributes:
      left: shape and dtype of the first matrix or stack of matrices.
      right: of the second.
      how: dimension_numbers, precision and preferred_element_type.
    """

    left: jax.ShapeDtypeStruct
    right: jax.ShapeDtypeStruct
    how: dict[str, Any]

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        (_, contracted), (_, batched) = self.how["dimension_numbers"]
        shared = {*contracted, *batched}
        free = [size for axis, size in enumerate(self.right.shape) if axis not in shared]
        return 2 * math.prod(self.left.shape) * math.prod(free)


def multiply(left: Any, right: Any, *, dimension_numbers: Any, precision: Any, preferred_element_type: Any) -> jax.Array:
    """`lax.dot_general` with what it needs and no more."""
    return lax.dot_general(left, right, dimension_numbers, precision, preferred_element_type)


def list_products(function: Any, *arguments: Any) -> list[Product]:
    """Returns the matrix products of ``function(*arguments)`` that are outside of loops, in order, inner calls included."""
    return list(_walk(jax.make_jaxpr(function)(*arguments).jaxpr))


def run_products(pairs: list[tuple[jax.Array, jax.Array]], products: list[Product]) -> list[jax.Array]:
    """Multiplies every pair as the product of the same place does."""
    return [multiply(left, right, **product.how) for (left, right), product in zip(pairs, products, strict=True)]


def draw_factors(products: list[Product]) -> list[tuple[jax.Array, jax.Array]]:
    """Returns a pair of random arrays for each product; no two are the same, for equal products would be computed once."""
    keys = jax.random.split(jax.random.key(0), max(1, 2 * len(products)))

    def draw(key: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.random.normal(key, like.shape, jnp.float32).astype(like.dtype)

    return [(draw(keys[2 * i], it.left), draw(keys[2 * i + 1], it.right)) for i, it in enumerate(products)]


def _walk(jaxpr: Any) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars)
            names = ("dimension_numbers", "precision", "preferred_element_type")
            yield Product(left, right, {name: equation.params[name] for name in names})
        elif equation.primitive.name not in LOOPS:
            for inner in _inner_jaxprs(equation.params):
                yield from _walk(inner)


def _inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                yield inner
