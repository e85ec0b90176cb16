"""What every layer refuses when it is made, and what it multiplies and adds up in float32 whatever its compute dtype."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from lrnn_jax.config.fields import own_fields
from lrnn_jax.errors import UserError
from lrnn_jax.models.backbone import Backbone
from lrnn_jax.registry import LAYERS, load_layer

EVERY_METHOD = [(name, method) for name in LAYERS for method in load_layer(name).METHODS]
FULL = jax.lax.Precision.HIGHEST
# a sum over each channel's own states, where nothing is a matrix product
ELEMENTWISE = (("s4", "sequential"), ("s4d", "sequential"), ("s4d", "associative"))
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
    x, state = jnp.zeros((2, 40, 16), jnp.bfloat16), layer.init_state(2) if layer.METHODS[method].state else None
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def loss(variables, x, state):
        y, state = layer.apply(variables, x, state=state, scan=method)
        return sum(jnp.sum(part.astype(jnp.float32)) for part in jax.tree.leaves((y, state)))

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(variables, x, state)
    found = list(products(program.jaxpr))
    assert bool(found) != ((name, method) in ELEMENTWISE)
    for product in found:
        if all(factor.aval.dtype == jnp.float32 for factor in product.invars):
            assert product.params["precision"] == (FULL, FULL), product


@pytest.mark.parametrize("name", [name for name in LAYERS if set(SIZES) & set(own_fields(load_layer(name)))])
def test_fields_that_do_not_fit_are_refused_where_the_layer_is_made(name):
    fields = own_fields(load_layer(name))
    wrong = next(field for field in SIZES if field in fields)
    with pytest.raises(UserError, match=f"{wrong}=0 must be at least [12]"):
        load_layer(name)(width=16, **{wrong: 0})


def test_fields_that_are_traced_are_not_compared():
    """Float fields are values of a program that several runs share."""

    @jax.jit
    def run(tau):
        layer = load_layer("gla")(width=16, gate_normaliser=tau)
        return layer.init(jax.random.key(0), jnp.zeros((1, 2, 16)))

    assert jax.tree.leaves(run(2.0))


def additions(jaxpr):
    """Every sum over axes and every scattered addition of a program, inside its loops and functions too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("reduce_sum", "scatter-add"):
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from additions(inner)


@pytest.mark.parametrize(
    ("name", "method", "mixer", "vocabulary"),
    [*((name, method, "mlp", 3) for name, method in EVERY_METHOD), ("lru", "associative", "glu", 0)],
)
def test_gradients_in_bfloat16_are_summed_over_the_batch_in_float32(name, method, mixer, vocabulary):
    """Such a sum in bfloat16 stops growing after a few hundred terms."""
    fields = {"width": 16, "depth": 1, "mixer": mixer, "mixer_hidden": 8, "vocab_size": vocabulary, "outputs": 3}
    model = Backbone(layer_class=load_layer(name), layer_fields=(), scan=method, dtype=jnp.bfloat16, **fields)
    x = jnp.zeros((4, 40), jnp.int32) if vocabulary else jnp.zeros((4, 40, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    program = jax.make_jaxpr(jax.grad(lambda params: jnp.sum(model.apply({"params": params}, x)[0])))(params)
    found = list(additions(program.jaxpr))
    assert found
    for addition in found:
        (total,) = addition.outvars
        alone = addition.primitive.name == "reduce_sum" and addition.invars[0].aval.size == total.aval.size
        assert alone or total.aval.dtype != jnp.bfloat16, f"{addition}\n{addition.source_info.traceback}"
