"""The table and the plot of spectra, from files written by hand."""

import numpy as np
import pytest

from lrnn_jax.analysis.spectra_plot import MOST_POINTS, MOST_TOKENS, _points, draw_spectra, list_spectra, read_spectra

NAMES = np.array(["pad", "'a'", "'$x$'", "'\\xfc'"])


def write(folder, tokens, *blocks, lengths=None, names=NAMES):
    tokens = np.asarray(tokens, np.int32)
    lengths = np.full(len(tokens), tokens.shape[1]) if lengths is None else np.asarray(lengths)
    named = {f"block_{i}": np.asarray(block, np.complex64) for i, block in enumerate(blocks)}
    np.savez_compressed(folder / "spectra.npz", tokens=tokens, lengths=lengths, names=names, **named)
    return folder / "spectra.npz"


def test_the_table_holds_each_tokens_ranges_and_no_padding(tmp_path):
    real = [[[0.5, 1.0], [-0.25, 0.75], [9.0, 9.0]], [[-1e-8, 0.5], [-0.0, 1.0], [0.125, 0.25]]]
    turned = [[[0.6 + 0.8j, 0.6 - 0.8j], [0.1, 0.2], [9.0, 9.0j]], [[-0.5, 0.5j], [0.3, 0.4], [-1.5, 0.0]]]
    file = write(tmp_path, [[1, 2, 0], [1, 1, 2]], real, turned, lengths=[2, 3])
    head, *rows = list_spectra(file)
    assert head[:3] == ("block", "token", "positions") and len(head) == 7
    assert rows == [
        ("0", "'a'", "3", "0.0000", "1.0000", "0.0000", "1.0000"),
        ("0", "'$x$'", "2", "-0.2500", "0.7500", "0.0000", "0.7500"),
        ("1", "'a'", "3", "-0.5000", "0.6000", "0.8000", "1.0000"),
        ("1", "'$x$'", "2", "-1.5000", "0.2000", "0.0000", "1.5000"),
    ]


def test_the_commonest_of_many_tokens_are_told_apart(tmp_path):
    counts = {token: 1 + token % 7 + 10 * (token >= 20) for token in range(40)}
    tokens = np.array([[token for token, count in counts.items() for _ in range(count)]])
    values = tokens[..., None] / 40
    (groups,) = read_spectra(write(tmp_path, tokens, values, names=np.arange(40).astype(str)))
    *told, others = groups
    assert len(told) == MOST_TOKENS == 12
    assert [int(group.name) for group in told] == sorted(int(group.name) for group in told)
    assert sorted(group.positions for group in told) == sorted(counts.values())[-12:]
    assert all(group.positions == counts[int(group.name)] for group in told)
    assert others.name == "28 others" and others.positions == sum(counts.values()) - sum(group.positions for group in told)
    assert sorted(np.concatenate([group.values for group in groups]).real.ravel()) == sorted(np.float32(values).ravel())


def test_a_plot_of_many_points_keeps_the_ends(tmp_path):
    values = np.random.default_rng(0).uniform(-1, 1, (1, 3, 4 * MOST_POINTS))
    (groups,) = read_spectra(write(tmp_path, [[1, 1, 2]], values))
    for group, (_, _, points) in zip(groups, _points(groups), strict=True):
        assert len(points) == MOST_POINTS
        assert (points.real.min(), points.real.max()) == (group.values.real.min(), group.values.real.max())


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_the_plot_is_the_same_for_the_same_numbers(tmp_path, blocks):
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 6, (blocks, 2, 3, 4))
    values = [np.exp(1j * part) if i % 2 else np.cos(part) for i, part in enumerate(angle)]
    file = write(tmp_path, [[1, 2, 3], [3, 3, 1]], *values)
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    draw_spectra(file, first)
    draw_spectra(file, second)
    assert first.read_bytes().startswith(b"\x89PNG") and first.read_bytes() == second.read_bytes()
    write(tmp_path, [[1, 2, 3], [3, 3, 1]], *(-part for part in values))
    draw_spectra(file, second)
    assert first.read_bytes() != second.read_bytes()
