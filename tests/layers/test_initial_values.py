"""Initial values of the papers' code, which are fields of ours: from its formulas, at the width 128 of its configurations."""

import numpy as np
import pytest
from flax import traverse_util

from helpers import init_params
from lrnn_jax.config.fields import own_fields
from lrnn_jax.errors import UserError
from lrnn_jax.layers.slstm import SLSTM
from lrnn_jax.registry import LAYERS, load_layer

WIDTH = 128
WITH_FIELD = [name for name in LAYERS if "initial_values" in own_fields(load_layer(name))]


def draw(name, width=WIDTH, **fields):
    """{path: initial values}."""
    layer = load_layer(name)(width, **fields)
    return traverse_util.flatten_dict(init_params(layer), sep="/")


def assert_uniform(values, bound):
    """Within +-bound, near it somewhere, with the deviation of a uniform draw."""
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > (1 - 10 / values.size) * bound
    np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=4 / values.size**0.5)


def xavier(inputs, outputs):
    """Bound of Xavier's uniform draw with gain 2^-2.5."""
    return 2**-2.5 * (6 / (inputs + outputs)) ** 0.5


DELTA = {
    "q/kernel": (128, 128),
    "k/kernel": (128, 128),
    "v/kernel": (128, 128),
    "beta/kernel": (128, 4),
    "out/kernel": (128, 128),
}
WIDE = {"v/kernel": (128, 256), "gate/kernel": (128, 256), "decay/kernel": (128, 4), "out/kernel": (256, 128)}


@pytest.mark.parametrize(
    ("name", "fields", "matrices"),
    [
        ("deltanet", {}, DELTA),
        ("gated_deltanet", {"expand_v": 2}, {**DELTA, **WIDE}),
        ("deltaproduct", {"householders": 3, "gated": True, "output_gate": True, "expand_v": 2}, {**DELTA, **WIDE}),
    ],
)
def test_delta_rule_draws_matrices_by_xavier_with_gain_2_to_the_minus_2_5(name, fields, matrices):
    found = draw(name, initial_values="released", **fields)
    assert {path for path in found if path.endswith("kernel")} == {*matrices, "conv/kernel"}
    for path, (inputs, outputs) in matrices.items():
        assert_uniform(found[path], xavier(inputs, outputs))
    # as measured in the released code
    np.testing.assert_allclose(found["q/kernel"].std(), 0.0156, rtol=0.02)
    np.testing.assert_allclose(found["beta/kernel"].std(), 0.0221, rtol=0.06)


def test_mamba_draws_projections_as_torch():
    found = draw("mamba", initial_values="released")
    for path, inputs in {"in_proj/kernel": 128, "x_proj/kernel": 256, "out_proj/kernel": 256, "dt_proj/kernel": 8}.items():
        assert_uniform(found[path], inputs**-0.5)
    usual = draw("mamba")
    for path in ("in_proj/kernel", "x_proj/kernel", "out_proj/kernel"):
        np.testing.assert_allclose(usual[path].std() / found[path].std(), 1.73, rtol=0.03)


def test_lstm_draws_everything_as_torch():
    found = draw("lstm", initial_values="released")
    for path in ("input/kernel", "recurrent_kernel"):
        assert_uniform(found[path], WIDTH**-0.5)
    bias = found["input/bias"]  # the sum of two uniform draws
    assert np.abs(bias).max() <= 2 * WIDTH**-0.5
    np.testing.assert_allclose(bias.std(), (2 / 3 / WIDTH) ** 0.5, rtol=0.15)


def test_diagonal_draws_small_matrices_and_biases():
    found = draw("diagonal", width=10, initial_values="released")
    for path in ("decay", "input"):
        assert_uniform(found[f"{path}/kernel"], 0.1)
        assert 0.15 < np.abs(found[f"{path}/bias"]).max() <= 0.3163


@pytest.mark.parametrize(("index", "mean"), [(0, -4.09), (1, 0.34)])
def test_slstm_forgets_more_in_its_first_block(index, mean):
    """The released code's mean in both of two blocks of width 128 with 4 heads; all other biases are zero."""
    bias = draw("slstm", depth=2, index=index, bias_init="powerlaw_by_block")["bias"]
    np.testing.assert_allclose(bias[:, 1].mean(), mean, atol=0.005)
    share = np.linspace(0, 1, 32)
    np.testing.assert_allclose(bias[:, 1], np.tile(5 - 12 * share ** (0.3 + 1.3 * index), (4, 1)), atol=1e-5)
    assert not np.delete(bias, 1, axis=1).any()


def test_slstm_starts_in_the_middle_block_in_between_and_in_all_blocks_alike_by_default():
    middle = SLSTM(8, heads=2, depth=3, index=1, bias_init="powerlaw_by_block")
    bias = np.asarray(init_params(middle)["bias"])
    np.testing.assert_allclose(bias[0, 1], 5 - 12 * np.linspace(0, 1, 4) ** 0.95, atol=1e-5)
    for bias_init in ("powerlaw", "powerlaw_by_block"):
        alone = draw("slstm", bias_init=bias_init)["bias"]
        np.testing.assert_array_equal(alone, draw("slstm", depth=2, index=0, bias_init=bias_init)["bias"])
    np.testing.assert_array_equal(alone, draw("slstm", depth=2, index=1)["bias"])


@pytest.mark.parametrize("index", [0, 2])
def test_rwkv7_starts_by_block(index):
    found = draw("rwkv7", depth=3, index=index, initial_values="released")
    share, fading = np.arange(128) / 127, 1 - index / 3
    zigzag = (np.arange(128) % 32 - 15.5) / 15.5
    zigzag = zigzag * np.abs(zigzag)
    for name, power in {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}.items():
        np.testing.assert_allclose(found[f"x_{name}"], 1 - (np.arange(128) / 128) ** (power * fading), atol=1e-6)
    decay = -6 + 6 * share ** (1 + (index / 2) ** 0.3) + 0.5 + 2.5 * zigzag
    np.testing.assert_allclose(found["w_lora/bias"], decay, atol=1e-5)
    for path in ("w_lora/down", "a_lora/down", "g_lora/down", "o_proj/kernel"):
        assert not found[path].any()


def test_blocks_that_start_differently_say_so():
    assert load_layer("slstm")(8, bias_init="powerlaw_by_block").indexed
    assert load_layer("rwkv7")(8, initial_values="released").indexed
    assert not any(load_layer(name)(8).indexed for name in LAYERS)


@pytest.mark.parametrize("name", WITH_FIELD)
def test_other_initial_values_are_refused(name):
    with pytest.raises(UserError, match="initial_values='relased' is not one of default, released; did you mean 'released'"):
        load_layer(name)(WIDTH, initial_values="relased")
