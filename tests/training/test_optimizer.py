"""Parameter groups that miss nothing, the schedule, and AdamW against a loop in NumPy."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.training.optimizer import AdamW, assign_groups, format_groups, parameter_paths

BACKBONE = {r"(kernel|embedding)$": {"lr": 1.0, "wd": 1.0}, r"(bias|scale)$": {"lr": 1.0, "wd": 0.0}}
LAYER = {r"^nu_log$": {"lr": 0.25, "wd": 0.0}, r"^q/kernel$": {"lr": 0.5, "wd": 1.0}}


def make_params(dtype=np.float32):
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(size=shape).astype(dtype)

    return {
        "embed": {"embedding": array(3, 4)},
        "block_0": {"layer": {"nu_log": array(5), "q": {"kernel": array(4, 2)}}, "norm": {"scale": array(4)}},
        "head": {"kernel": array(4, 2), "bias": array(2)},
    }


PATHS = ["block_0/layer/nu_log", "block_0/layer/q/kernel", "block_0/norm/scale", "embed/embedding", "head/bias", "head/kernel"]


def assign(config_rules=(), layer_rules=LAYER, backbone_rules=BACKBONE, params=None):
    return assign_groups(
        make_params() if params is None else params,
        config_rules=config_rules,
        layer_name="LRU",
        layer_rules=layer_rules,
        backbone_rules=backbone_rules,
    )


def refusal(**rules):
    with pytest.raises(UserError) as caught:
        assign(**rules)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def find(groups, path):
    (group,) = [group for group in groups if path in group.paths]
    return group


def test_paths_are_those_of_the_leaves():
    assert parameter_paths(make_params()) == PATHS


def test_every_parameter_falls_in_exactly_one_group():
    groups = assign()
    assert sorted(path for group in groups for path in group.paths) == PATHS
    assert sum(sum(group.sizes) for group in groups) == sum(leaf.size for leaf in jax.tree.leaves(make_params()))


def test_groups_carry_source_multipliers_and_sizes():
    groups = assign()
    nu, kernel, scale = (find(groups, path) for path in (PATHS[0], PATHS[5], PATHS[2]))
    assert (nu.source, nu.pattern, nu.lr, nu.wd, nu.sizes) == ("LRU", "^nu_log$", 0.25, 0.0, (5,))
    assert (kernel.source, kernel.lr, kernel.wd) == ("backbone", 1.0, 1.0)
    assert (scale.source, scale.lr, scale.wd) == ("backbone", 1.0, 0.0)


def test_shapes_alone_are_enough():
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, make_params()))
    assert assign(params=shapes) == assign()


def test_layer_rules_see_the_path_within_the_layer_and_nothing_else():
    # "kernel$" of the backbone does not reach into the layer, nor the layer's into the head
    groups = assign(layer_rules={"^nu_log$": {"lr": 1.0, "wd": 0.0}, "kernel$": {"lr": 0.5, "wd": 0.0}})
    assert find(groups, "block_0/layer/q/kernel").source == "LRU"
    assert find(groups, "head/kernel").source == "backbone"


def test_a_rule_of_the_config_wins():
    groups = assign(config_rules=[[r"nu_log$", 0.1, 0.5], ["^head/", 2, 0]])
    nu, bias, kernel = (find(groups, path) for path in (PATHS[0], PATHS[4], PATHS[5]))
    assert (nu.source, nu.lr, nu.wd) == ("config", 0.1, 0.5)
    assert bias is kernel
    assert (bias.source, bias.pattern, bias.lr, bias.wd, bias.sizes) == ("config", "^head/", 2.0, 0.0, (2, 8))
    assert sorted(path for group in groups for path in group.paths) == PATHS


def test_two_rules_for_one_parameter_are_refused():
    message = refusal(layer_rules={**LAYER, "_log$": {"lr": 1.0, "wd": 0.0}})
    assert "'block_0/layer/nu_log' matches 2 groups of LRU" in message
    assert "^nu_log$, _log$" in message
    message = refusal(config_rules=[["^head/", 1, 1], ["bias$", 1, 1]])
    assert "'head/bias' matches 2 groups of config" in message


def test_a_parameter_without_a_rule_is_refused():
    message = refusal(layer_rules={"^nu_log$": {"lr": 1.0, "wd": 0.0}})
    assert "'block_0/layer/q/kernel' matches no group of LRU; add r'^q/kernel$': MATRICES, or NO_DECAY, of lrnn_jax" in message
    assert "'embed/embedding' matches no group of backbone" in refusal(
        backbone_rules={r"(kernel|bias|scale)$": {"lr": 1.0, "wd": 1.0}}
    )


def test_a_rule_of_the_config_that_matches_nothing_is_refused():
    message = refusal(config_rules=[["theta_log", 0.5, 0.0]])
    assert "optim.groups" in message
    assert "'theta_log' matches no parameter" in message


@pytest.mark.parametrize("rules", [[["nu_log(", 1, 1]], [["nu_log", 1]], [["nu_log", "fast", 1]], [3], ["nu"], [[None, 1, 1]]])
def test_a_malformed_rule_of_the_config_is_refused(rules):
    assert "optim.groups" in refusal(config_rules=rules)


@pytest.mark.parametrize("rule", [["nu_log", -1.0, 0.0], ["nu_log", 1.0, float("nan")]])
def test_multipliers_below_zero_or_not_numbers_are_refused(rule):
    assert "optim.groups" in refusal(config_rules=[rule])


def test_the_same_pattern_twice_is_refused():
    assert "nu_log" in refusal(config_rules=[["nu_log", 0.5, 0.0], ["nu_log", 0.1, 0.0]])


def test_the_table_of_groups_adds_up():
    lines = format_groups(assign()).splitlines()
    assert lines[0].split() == ["group", "parameters", "elements", "lr", "x", "wd", "x"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert next(line for line in lines if "nu_log" in line).split() == ["LRU:", "^nu_log$", "1", "5", "0.25", "0"]
    assert lines[-1].split() == ["total", "6", "39"]


# --- schedule ------------------------------------------------------------------------------------------------------


def settings(**changes):
    defaults = {
        "lr": 0.1, "final_lr": 0.001, "schedule": "cosine", "weight_decay": 0.0,
        "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "clip_norm": 0.0,
    }  # fmt: skip
    return types.SimpleNamespace(**{**defaults, **changes})


def make(optim, groups=(), *, warmup, total):
    """The optimiser, and the hyper-parameters that a step hands it."""
    fixed = {name: getattr(optim, name) for name in ("schedule", "beta1", "beta2", "eps", "clip_norm")}
    hyper = {f"optim.{name}": jnp.float32(getattr(optim, name)) for name in ("lr", "final_lr", "weight_decay")}
    if hasattr(optim, "recurrent_lr"):
        hyper["optim.recurrent_lr"] = jnp.float32(optim.recurrent_lr)
    return AdamW(tuple(groups), warmup_steps=warmup, total_steps=total, **fixed), hyper


def rates(warmup, total, **changes):
    optimizer, hyper = make(settings(**changes), warmup=warmup, total=total)
    schedule = optimizer.learning_rate(hyper)
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray([schedule(step) for step in range(total + 1)], np.float64)


def test_cosine_starts_at_zero_peaks_after_warmup_and_ends_at_the_final_rate():
    values = rates(10, 50)
    np.testing.assert_allclose(values[:11], np.linspace(0, 0.1, 11), rtol=1e-6)
    half = 0.5 * (1 + np.cos(np.pi * np.arange(41) / 40))
    np.testing.assert_allclose(values[10:], 0.001 + (0.1 - 0.001) * half, rtol=1e-5)
    assert values.argmax() == 10
    assert values[30] == pytest.approx((0.1 + 0.001) / 2)
    assert values[-1] == pytest.approx(0.001)


def test_constant_stays_at_the_peak():
    values = rates(4, 20, schedule="constant")
    np.testing.assert_allclose(values[:5], np.linspace(0, 0.1, 5), rtol=1e-6)
    np.testing.assert_allclose(values[4:], 0.1, rtol=1e-6)


def test_no_warmup_starts_at_the_peak():
    assert rates(0, 20)[0] == pytest.approx(0.1)


def test_the_final_rate_stays_after_the_end():
    optimizer, hyper = make(settings(), warmup=2, total=10)
    schedule = optimizer.learning_rate(hyper)
    with jax.numpy_dtype_promotion("standard"):
        assert float(schedule(1000)) == pytest.approx(0.001)


def test_warmup_as_long_as_the_training_and_rate_zero_stay_finite():
    assert np.isfinite(rates(10, 10)).all()
    np.testing.assert_array_equal(rates(2, 10, lr=0.0, final_lr=0.0), 0.0)


# --- AdamW ---------------------------------------------------------------------------------------------------------


def gradients(steps):
    rng = np.random.default_rng(1)
    return [jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), make_params()) for _ in range(steps)]


def flat(tree):
    return dict(zip(parameter_paths(tree), [np.asarray(leaf) for leaf in jax.tree.leaves(tree)], strict=True))


def adamw(optim, rate, multipliers, grads):
    """Five lines of the definition, in float64."""
    p = {path: leaf.astype(np.float64) for path, leaf in flat(make_params()).items()}
    m = dict.fromkeys(p, 0.0)
    v = dict.fromkeys(p, 0.0)
    for t, tree in enumerate(grads):
        g = {path: leaf.astype(np.float64) for path, leaf in flat(tree).items()}
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        scale = min(1.0, optim.clip_norm / norm) if optim.clip_norm else 1.0
        for path in p:
            m[path] = optim.beta1 * m[path] + (1 - optim.beta1) * scale * g[path]
            v[path] = optim.beta2 * v[path] + (1 - optim.beta2) * (scale * g[path]) ** 2
            m_hat, v_hat = m[path] / (1 - optim.beta1 ** (t + 1)), v[path] / (1 - optim.beta2 ** (t + 1))
            lr, wd = multipliers[path]
            update = m_hat / (np.sqrt(v_hat) + optim.eps) + optim.weight_decay * wd * p[path]
            p[path] = p[path] - rate(t) * lr * update
    return p


def run(optim, grads, groups):
    params = jax.tree.map(jnp.asarray, make_params())
    adam, hyper = make(optim, groups, warmup=2, total=8)
    optimizer = adam.transformation(hyper)

    @jax.jit
    def take(params, state, grads):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = optimizer.init(params)
    for tree in grads:
        params, state = take(params, state, tree)
    return flat(params)


def rate(t):
    """Warm-up of 2 steps, then cosine to step 8."""
    return 0.1 * t / 2 if t < 2 else 0.001 + 0.099 * 0.5 * (1 + np.cos(np.pi * (t - 2) / 6))


MULTIPLIERS = {
    **dict.fromkeys(PATHS, (1.0, 1.0)),
    "block_0/layer/nu_log": (0.25, 0.0),
    "block_0/layer/q/kernel": (0.5, 1.0),
    "block_0/norm/scale": (1.0, 0.0),
    "head/bias": (1.0, 0.0),
}


@pytest.mark.parametrize(
    "changes",
    [{}, {"weight_decay": 0.5}, {"clip_norm": 1.0}, {"weight_decay": 0.5, "clip_norm": 1.0, "beta1": 0.5, "eps": 1e-3}],
    ids=["adam", "decay", "clip", "all"],
)
def test_optimizer_equals_adamw_in_numpy(changes):
    optim = settings(**changes)
    ours, expected = run(optim, gradients(5), assign()), adamw(optim, rate, MULTIPLIERS, gradients(5))
    for path in PATHS:
        np.testing.assert_allclose(ours[path], expected[path], rtol=2e-5, atol=2e-6, err_msg=path)


def test_decay_is_decoupled_from_the_gradient():
    # with no gradient at all, only the decaying groups shrink, by rate * decay
    optim = settings(weight_decay=0.5)
    none = [jax.tree.map(np.zeros_like, make_params())] * 3
    start, ours = flat(make_params()), run(optim, none, assign())
    for path, (lr, wd) in MULTIPLIERS.items():
        factor = np.prod([1 - rate(t) * lr * 0.5 * wd for t in range(3)])
        assert factor == 1.0 if wd == 0.0 else factor < 0.97
        np.testing.assert_allclose(ours[path], start[path] * factor, rtol=1e-5)


def test_multipliers_of_the_config_reach_the_update():
    frozen = assign(config_rules=[["^head/", 0.0, 1.0]])
    start, ours = flat(make_params()), run(settings(weight_decay=0.5), gradients(5), frozen)
    np.testing.assert_array_equal(ours["head/kernel"], start["head/kernel"])
    assert not np.allclose(ours["embed/embedding"], start["embed/embedding"])


@pytest.mark.parametrize(("factor", "expected"), [(-1.0, 0.25), (0.5, 0.5), (0.0, 0.0)])
def test_the_recurrent_factor_stands_in_for_that_of_recurrent_groups_alone(factor, expected):
    rules = {"^nu_log$": {"lr": 0.25, "wd": 0.0, "recurrent": True}, "^q/kernel$": {"lr": 0.5, "wd": 1.0}}
    optim, groups = settings(recurrent_lr=factor), assign(layer_rules=rules)
    found = adamw(optim, rate, {**MULTIPLIERS, "block_0/layer/nu_log": (expected, 0.0)}, gradients(5))
    ours = run(optim, gradients(5), groups)
    for path in PATHS:
        np.testing.assert_allclose(ours[path], found[path], rtol=2e-5, atol=2e-6, err_msg=path)
    shown = next(line for line in format_groups(groups, [factor, 2.0]).splitlines() if "nu_log" in line)
    assert shown.split()[-2:] == [f"{expected:g}/2", "0"]


def test_clipping_is_by_the_norm_of_all_gradients_together():
    # far above the bound, the size of the gradient no longer matters; far below, nothing is clipped
    optim = settings(clip_norm=1.0, eps=1.0)
    large, larger = (
        [jax.tree.map(lambda g, f=f: f * g, tree) for tree in gradients(5)] for f in (np.float32(10), np.float32(80))
    )
    small = [jax.tree.map(lambda g: np.float32(1e-3) * g, tree) for tree in gradients(5)]
    first, second = run(optim, large, assign()), run(optim, larger, assign())
    below, free = run(optim, small, assign()), run(settings(eps=1.0), small, assign())
    for path in PATHS:
        np.testing.assert_allclose(first[path], second[path], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(below[path], free[path])
