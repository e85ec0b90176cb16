"""Item `correct`: scans against float64 on the CPU, decoding against all at once, and a killed run against a whole one."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrnn_jax.bench.cases import Case, Sizes, make_cases, run_reference
from lrnn_jax.bench.measuring import largest_error
from lrnn_jax.registry import LAYERS, load_layer
from scripts.gpu.pieces import Compiled, Piece, Row, attempt

Tree = Any

BATCH = 2
# More positions than any scan works on at once (512), and no multiple of a chunk.
STEPS, TINY_STEPS = 530, 20
SIZES = Sizes(width=32, heads=2, key=40, value=24, states=8, matrix=4, window=48)
WIDTH, TOKENS = 64, 17
# Errors allowed, relative to the largest entry of the array. A bfloat16 input's gradient is rounded to 8 bits at the end.
# Products that follow JAX's default precision have factors of 11 bits in float32 on a GPU (TF32).
EXACT, ROUNDED, DEFAULT, DEFAULT_ROUNDED = 2e-5, 2e-5 + 2**-8, 5e-3, 3e-2
PRECISIONS = {"float32": EXACT, "default": DEFAULT}
# The longest that a training command may take.
COMMAND_S = 100
QUICKLY = "--xla_backend_optimization_level=0"


def list_pieces(tiny: bool) -> list[Piece]:
    """Returns one piece per scan family and per layer that decodes, and kills with JAX's default and deterministic kernels."""
    steps = TINY_STEPS if tiny else STEPS
    cases = make_cases(SIZES)
    scans = [
        Piece(
            f"scan {name}", functools.partial(check_scan, name, case, steps), functools.partial(lower_scan, name, case, steps)
        )
        for name, case in cases.items()
    ]
    layers = [
        Piece(f"layer {name}", functools.partial(check_layer, name), functools.partial(lower_layer, name))
        for name in LAYERS
        if load_layer(name)(WIDTH).causal
    ]
    flags = (QUICKLY,) if tiny else ("", "--xla_gpu_deterministic_ops=true")
    kills = [Piece(f"kill {flag}".strip(), functools.partial(check_kill, flag, tiny), seconds=60.0) for flag in flags]
    return [*scans, kills[0], *layers, *kills[1:]]


@contextlib.contextmanager
def float64_on_cpu() -> Any:
    """Where the reference is made and run, whatever the default device is."""
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True):
        yield


def draw_case(name: str, case: Case, steps: int, dtype: str) -> tuple[tuple[Tree, Tree, Tree, np.ndarray], Tree]:
    """Returns (constants, xs, h0, reset) in ``dtype`` and float32 cotangents, the same for the same arguments."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    arrays = case.constants(rng), case.xs(rng, (BATCH, steps)), case.h0(rng, BATCH)
    reset = rng.random((BATCH, steps)) < 0.02
    reset[0, steps // 2] = True
    arrays = jax.tree.map(lambda x: np.asarray(x, jnp.dtype(dtype)), arrays)
    outputs = jax.eval_shape(functools.partial(case.scan, method="sequential"), *arrays, reset)
    return (*arrays, reset), jax.tree.map(lambda y: np.float32(rng.normal(size=y.shape)), outputs)


def pull_back(function: Any, constants: Tree, xs: Tree, h0: Tree, reset: Any, cotangents: Tree) -> tuple[Tree, Tree]:
    """Returns outputs and the gradients of constants, inputs and initial state."""
    outputs, back = jax.vjp(lambda *arrays: function(*arrays, reset), constants, xs, h0)
    return outputs, back(cotangents)


def lower_scan(name: str, case: Case, steps: int) -> Mapping[str, Any]:
    """Forward and backward in one program per method and dtype, and the reference."""
    lowered = {}
    for dtype in ("float32", "bfloat16"):
        arguments = draw_case(name, case, steps, dtype)
        for method in case.methods:
            run = functools.partial(pull_back, functools.partial(case.scan, method=method))
            lowered[f"{method} {dtype}"] = jax.jit(run).lower(*_serve(case, method, arguments[0]), arguments[1])
    with float64_on_cpu():
        run = functools.partial(pull_back, functools.partial(run_reference, case))
        arrays, cotangents = _float64(arguments)
        lowered["reference"] = jax.jit(run).lower(*arrays, cotangents)
    return lowered


def check_scan(name: str, case: Case, steps: int, compiled: Compiled) -> list[Row]:
    """One row per dtype and method: the largest errors of values (outputs and last state) and gradients."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        arrays, cotangents = draw_case(name, case, steps, dtype)
        with float64_on_cpu():
            exact, exact_cotangents = _float64((arrays, cotangents))
            references = {}
            for has_reset in {serves.reset for serves in case.methods.values()}:
                given = (*exact[:3], exact[3] & has_reset, exact_cotangents)
                references[has_reset] = jax.tree.map(np.asarray, compiled["reference"].result()(*given))
        allowed = {"float32": (EXACT, EXACT), "bfloat16": (EXACT, ROUNDED)}[dtype]
        if not case.exact:
            allowed = {"float32": (DEFAULT, DEFAULT), "bfloat16": (DEFAULT_ROUNDED, DEFAULT_ROUNDED)}[dtype]

        def measure(program: Any, args: Tree, expected: Tree, allowed: Any = allowed) -> Row:
            outputs, gradients = program.result()(*args)
            errors = largest_error(outputs, expected[0]), largest_error(gradients, expected[1])
            passed = all(error <= limit for error, limit in zip(errors, allowed, strict=True))
            return dict(zip(("values", "gradients", "limits", "passed"), (*errors, list(allowed), passed), strict=True))

        for method in case.methods:
            args = (*_serve(case, method, arrays), cotangents)
            expected = references[case.methods[method].reset]
            result = attempt(functools.partial(measure, compiled[f"{method} {dtype}"], args, expected))
            rows.append({"of": f"scan {name}", "method": method, "dtype": dtype, **result})
    return rows


def _serve(case: Case, method: str, arrays: tuple[Tree, Tree, Tree, np.ndarray]) -> tuple[Tree, Tree, Tree, np.ndarray | None]:
    """The same without resets for a method that takes none."""
    return arrays if case.methods[method].reset else (*arrays[:3], None)


def make_layer(name: str) -> tuple[nn.Module, jax.ShapeDtypeStruct]:
    """Returns a layer with its default fields and the shape of its input."""
    return load_layer(name)(width=WIDTH), jax.ShapeDtypeStruct((BATCH, TOKENS, WIDTH), jnp.float32)


def lower_layer(name: str) -> Mapping[str, Any]:
    """All at once by each method, and one token by `auto`, as generation does it; with full float32 products and without."""
    layer, x = make_layer(name)
    one = jax.ShapeDtypeStruct((BATCH, 1, WIDTH), x.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with jax.default_device(jax.devices("cpu")[0]):
        initialise = jax.jit(layer.init).lower(key, one)
    variables, state = jax.eval_shape(layer.init, key, one), jax.eval_shape(lambda: layer.init_state(BATCH))
    lowered = {"init": initialise}
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision) if precision != "default" else contextlib.nullcontext():
            for method in layer.METHODS:
                lowered[f"{method} {precision}"] = jax.jit(_make_call(layer, method)).lower(variables, x, None)
            lowered[f"decode {precision}"] = jax.jit(_make_call(layer, "auto")).lower(variables, one, state)
    return lowered


def check_layer(name: str, compiled: Compiled) -> list[Row]:
    """One row per precision and method: how far outputs and last state are from those of decoding token by token."""
    layer, shape = make_layer(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.normal(size=shape.shape).astype(np.float32)
    with jax.default_device(jax.devices("cpu")[0]):
        variables = compiled["init"].result()(jax.random.key(0), x[:, :1])
        start = jax.tree.map(np.asarray, layer.init_state(BATCH))
    # off the initial values, so that no parameter is zero or the same everywhere
    variables = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.1 * rng.normal(size=p.shape)), variables)
    rows = []
    for precision, limit in PRECISIONS.items():
        state, outputs = start, []
        for t in range(TOKENS):
            y, state = compiled[f"decode {precision}"].result()(variables, x[:, t : t + 1], state)
            outputs.append(np.asarray(y))
        expected = np.concatenate(outputs, axis=1), state

        def measure(program: Any, expected: Tree = expected, limit: float = limit) -> Row:
            errors = [largest_error(*pair) for pair in zip(program.result()(variables, x, None), expected, strict=True)]
            return {"values": errors[0], "state": errors[1], "limits": [limit], "passed": max(errors) <= limit}

        for method in layer.METHODS:
            result = attempt(functools.partial(measure, compiled[f"{method} {precision}"]))
            rows.append({"of": f"decode {name}", "method": method, "dtype": "float32", "products": precision, **result})
    return rows


def check_kill(flag: str, tiny: bool, _: Compiled) -> list[Row]:
    """A run killed after a checkpoint and resumed, beside two whole ones: whether their parameters have the same bits."""
    steps = 200 if tiny else 1000
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
    with tempfile.TemporaryDirectory() as folder:
        names = ("killed",) if tiny else ("killed", "whole", "again")
        processes = {name: _train(Path(folder, name), steps, environment) for name in names}
        saved = _wait_for_a_checkpoint(Path(folder, "killed"), processes["killed"])
        processes["killed"].kill()
        if processes["killed"].wait() != -signal.SIGKILL:
            raise RuntimeError(f"the run ended before it was killed: {_read(folder, 'killed')}")
        if tiny:
            processes["whole"] = _train(Path(folder, "whole"), steps, environment)
        processes["killed"] = _train(Path(folder, "killed"), steps, environment)
        hashes = {name: _finish(folder, name, process) for name, process in processes.items()}
    row = {"of": "kill and resume", "method": flag, "killed after step": saved, "passed": hashes["killed"] == hashes["whole"]}
    return [row if tiny else {**row, "two whole runs agree": hashes["again"] == hashes["whole"]}]


def _train(workdir: Path, steps: int, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    fields = {
        "train.duration": f"{steps} steps",
        "train.steps_per_dispatch": 20,
        "eval.every": f"{steps} steps",
        "eval.lengths": "[[40,64]]",
        "eval.examples": 64,
        "checkpoint.every": "40 steps",
        "log.every": "100 steps",
    }
    overrides = [f"--config.{field}={value}" for field, value in fields.items()]
    command = [sys.executable, "-m", "lrnn_jax", "train", "--config=configs/parity.py:deltanet,smoke", *overrides]
    with workdir.with_suffix(".log").open("a", encoding="utf-8") as log:
        return subprocess.Popen([*command, f"--workdir={workdir}"], stdout=log, stderr=log, env=environment, text=True)


def _wait_for_a_checkpoint(workdir: Path, process: "subprocess.Popen[str]") -> int:
    deadline, folder = time.monotonic() + COMMAND_S, workdir / "checkpoints"
    while process.poll() is None and time.monotonic() < deadline:
        if saved := [int(p.name) for p in folder.glob("*") if p.name.isdigit()]:
            return max(saved)
        time.sleep(0.005)
    return 0


def _finish(folder: str, name: str, process: "subprocess.Popen[str]") -> str:
    try:
        process.wait(COMMAND_S)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {_read(folder, name)}")
    return json.loads(Path(folder, name, "result.json").read_text(encoding="utf-8"))["params_sha256"]


def _read(folder: str, name: str) -> str:
    return (Path(folder, f"{name}.log").read_text(encoding="utf-8").strip().splitlines() or ["no output"])[-1]


def _make_call(layer: nn.Module, method: str) -> Any:
    return lambda variables, x, state: layer.apply(variables, x, state=state, scan=method)


def _float64(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: x if x.dtype == bool else np.asarray(x, np.float64), tree)
