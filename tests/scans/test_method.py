"""Which algorithm runs a scan: what ``auto`` takes, and which calls a method refuses."""

import jax
import pytest

from lrnn_jax.scans.method import Serves, choose_method

METHODS = {"sequential": Serves(), "convolution": Serves(reset=False), "stateless": Serves(state=False, reset=False)}


@pytest.mark.parametrize(("platform", "expected"), [("cpu", "sequential"), ("gpu", "convolution"), ("tpu", "convolution")])
def test_auto_takes_the_loop_on_a_cpu_and_the_parallel_method_elsewhere(monkeypatch, platform, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert choose_method("auto", METHODS, accelerator="convolution") == expected


@pytest.mark.parametrize(
    ("state", "reset", "expected"),
    [(False, False, "stateless"), (True, False, "sequential"), (False, True, "sequential"), (True, True, "sequential")],
)
def test_auto_avoids_what_cannot_serve_the_call(monkeypatch, state, reset, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_method("auto", METHODS, accelerator="stateless", state=state, reset=reset) == expected
    assert choose_method("auto", METHODS, accelerator="convolution", state=state) == "convolution"


@pytest.mark.parametrize(
    ("method", "needs", "message"),
    [
        ("chunky", {}, "method 'chunky' is not one of auto, sequential, convolution, stateless"),
        ("convolution", {"reset": True}, "method 'convolution' takes no reset; use one of auto, sequential"),
        ("stateless", {"state": True, "reset": True}, "method 'stateless' takes no state and no reset; use one of auto, seq"),
        ("stateless", {"state": True}, "method 'stateless' takes no state; use one of auto, sequential, convolution"),
    ],
)
def test_a_named_method_that_cannot_serve_the_call_is_refused_in_one_line(method, needs, message):
    with pytest.raises(ValueError, match=message) as refusal:
        choose_method(method, METHODS, accelerator="sequential", **needs)
    assert "\n" not in str(refusal.value)


def test_a_named_method_that_serves_is_taken():
    assert choose_method("convolution", METHODS, accelerator="sequential", state=True) == "convolution"


@pytest.mark.parametrize("method", ["auto", "convolution"])
def test_a_call_that_nothing_serves_is_refused(method):
    with pytest.raises(ValueError, match=f"method '{method}' takes no reset, nor does any other"):
        choose_method(method, {"convolution": Serves(reset=False)}, accelerator="convolution", reset=True)
