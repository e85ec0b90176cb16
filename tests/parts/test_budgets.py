"""Sizes at equal parameters, against the numbers in the notes on Dubinin et al. 2026 and its released configurations."""

import subprocess
import sys

import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.parts.budgets import count_blocks, count_channels, fit_blocks, fit_channels


@pytest.mark.parametrize(("blocks", "size", "thousands"), [(1024, 1, 526), (512, 2, 658), (192, 4, 692), (192, 5, 989)])
def test_blocks_of_the_synthetic_tasks(blocks, size, thousands):
    assert round(count_blocks(128, blocks, size) / 1000) == thousands


@pytest.mark.parametrize(("channels", "order"), [(1536, 1), (1024, 2), (768, 3), (512, 5)])
def test_channels_of_the_synthetic_tasks(channels, order):
    assert count_channels(128, channels, order) == 789_504
    assert fit_channels(128, order, 789_504) == channels


@pytest.mark.parametrize(
    ("blocks", "size", "millions"), [(2112, 1, 6.492), (844, 2, 6.487), (302, 4, 6.5), (96, 8, 6.495), (28, 16, 6.545)]
)
def test_blocks_of_the_language_models(blocks, size, millions):
    count = count_blocks(768, blocks, size)
    assert round(count / 1e6, 3) == millions
    assert fit_blocks(768, size, count) == blocks


def test_channels_of_the_language_model():
    assert round(count_channels(768, 242, 16) / 1e6, 3) == 6.323


def test_the_nearest_count_is_taken():
    one = count_blocks(8, 1, 2)
    assert [fit_blocks(8, 2, parameters) for parameters in (one, int(1.4 * one), int(1.6 * one), 10 * one)] == [1, 1, 2, 10]


@pytest.mark.parametrize(
    ("fit", "arguments", "message"),
    [
        (fit_blocks, (8, 2, 85), "parameters=85 must be at least 86, those of one block with block_size=2, width=8"),
        (fit_blocks, (8, 0, 1000), "block_size=0 must be at least 1"),
        (fit_blocks, (0, 2, 1000), "width=0 must be at least 1"),
        (fit_channels, (8, 2, 50), "parameters=50 must be at least 51, those of one channel with order=2, width=8"),
        (fit_channels, (8, -1, 1000), "order=-1 must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(fit, arguments, message):
    with pytest.raises(UserError) as refusal:
        fit(*arguments)
    assert str(refusal.value) == message


def test_tables_can_use_it_without_jax():
    program = "import sys, lrnn_jax.parts.budgets; print([n for n in ('jax', 'flax') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
