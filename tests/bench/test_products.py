"""The matrix products of a training step, counted by hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.bench.grids import Point
from lrnn_jax.bench.products import draw_factors, list_products, run_products
from lrnn_jax.bench.steps import make_config, step_products
from lrnn_jax.training.program import make_program


def test_products_of_inner_calls_count_and_those_of_loops_do_not():
    def run(x, w):
        def body(h, _):
            return h @ w, None

        y = jax.jit(lambda x: jax.checkpoint(jnp.matmul)(x, w))(x)
        return jnp.sum(jax.lax.scan(body, y, None, length=3)[0])

    x, w = jax.ShapeDtypeStruct((5, 2), np.float32), jax.ShapeDtypeStruct((2, 2), np.float32)
    products = list_products(run, x, w)
    assert [(it.left.shape, it.right.shape, it.operations) for it in products] == [((5, 2), (2, 2), 2 * 5 * 2 * 2)]
    (product,) = run_products(draw_factors(products), products)
    assert product.shape == (5, 2)


def test_a_step_of_bd_lru_has_the_products_of_its_matrices_and_no_others():
    rows, length, width, size = 2, 3, 4, 2
    program = make_program(make_config(Point("bd_lru", rows, length, width, size, "float32", "step")))
    # v and out; H M = D values with M + 1 gates each; SwiGLU of twice the width; an answer out of 120, the permutations of S5
    block = [(width, width), (width, width), (width, width * (size + 1)), *[(width, 2 * width)] * 2, (2 * width, width)]
    matrices = [*block, *block, (width, 120)]
    # forward, and the gradients of the matrix and of what it is multiplied with
    expected = collections.Counter(2 * rows * length * a * b for a, b in matrices for _ in range(3))
    products = step_products(program)
    assert collections.Counter(product.operations for product in products) == expected
    shapes = [(product.left.shape, product.right.shape) for product in products]
    assert shapes.count(((rows * length, width), (width, 120))) == 1
