"""What every layer refuses when it is made, and how exactly it multiplies what is float32 by contract."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from lrnn_jax.config import own_fields
from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import LAYERS, load_layer

EVERY_METHOD = [(name, method) for name in LAYERS for method in load_layer(name).METHODS]
compile_quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
FULL = jax.lax.Precision.HIGHEST
SIZES = ("heads", "state_size", "size")


def products(jaxpr):
    """Every matrix product of a program, inside its loops and functions too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_what_is_float32_in_a_bfloat16_layer_is_multiplied_in_float32(name, method):
    """By default a GPU would round states and gates to 10 bits of mantissa, and a TPU to 7."""
    layer = load_layer(name)(width=16, dtype=jnp.bfloat16)
    x, state = jnp.zeros((2, 40, 16), jnp.bfloat16), layer.init_state(2)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def loss(variables, x, state):
        y, state = layer.apply(variables, x, state=state, method=lambda m, *args, **kw: m(*args, method=method, **kw))
        return sum(jnp.sum(part.astype(jnp.float32)) for part in jax.tree.leaves((y, state)))

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(variables, x, state)
    found = list(products(program.jaxpr))
    assert found
    for product in found:
        if all(factor.aval.dtype == jnp.float32 for factor in product.invars):
            assert product.params["precision"] == (FULL, FULL), product


@pytest.mark.parametrize("name", [name for name in LAYERS if set(SIZES) & set(own_fields(load_layer(name)))])
def test_fields_that_do_not_fit_are_refused_where_the_layer_is_made(name):
    fields = own_fields(load_layer(name))
    wrong = next(field for field in SIZES if field in fields)
    with pytest.raises(UserError, match=f"model.layer.{wrong}=0 must be at least 1"):
        load_layer(name)(width=16, **{wrong: 0})


def test_fields_that_are_traced_are_not_compared():
    """Float fields are values of a program that several runs share."""

    @jax.jit
    def run(tau):
        layer = load_layer("gla")(width=16, gate_normaliser=tau)
        return layer.init(jax.random.key(0), jnp.zeros((1, 2, 16)))

    assert jax.tree.leaves(run(2.0))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_in_bfloat16_are_sums_over_every_row(name):
    """Equal rows have equal gradients. A sum over them that is kept in bfloat16 stops growing after a few hundred."""
    rows, row = 512, jnp.asarray([[0, 1, 2, 2, 0, 1, 1, 2]], jnp.int32)
    fields = {"width": 8, "depth": 1, "norm": "rmsnorm", "mixer": "mlp", "mixer_hidden": 8, "vocab_size": 3, "outputs": 3}
    model = Backbone(layer_class=load_layer(name), layer_fields=(), dtype=jnp.bfloat16, **fields)
    params = compile_quickly(model.init)(jax.random.key(0), row)["params"]
    pull = compile_quickly(jax.grad(lambda p, tokens: jnp.sum((model.apply({"params": p}, tokens)[0] - 1.0) ** 2)))
    one, many = pull(params, row), pull(params, jnp.tile(row, (rows, 1)))
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(many), strict=True):
        error = float(jnp.linalg.norm((y / rows - x).ravel()) / jnp.linalg.norm(x.ravel()))
        assert error < 0.02, f"{jax.tree_util.keystr(path)}: {error:.3f}"
