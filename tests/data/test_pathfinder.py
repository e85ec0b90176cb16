"""Pathfinder: the geometry of what is drawn, SciPy's bytes, and images like those of the original program."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from lrnn_jax.data import paddles, pathfinder
from lrnn_jax.data.checking import read_image
from lrnn_jax.data.lra import read_pathfinder
from lrnn_jax.data.paddles import RULES, load_paddles
from lrnn_jax.data.pathfinder import draw_numbered
from scripts.compare_generators import measure_images

SHARED = os.environ.get("LRNN_DATA_DIR", "")
RELEASED = Path(SHARED, "lra_release", "pathfinder32")


@pytest.fixture(scope="module")
def pictures():
    return [draw_numbered(32, 14, seed=1, number=i) for i in range(60)]


def test_the_same_seed_and_number_draw_the_same_image(pictures):
    again = draw_numbered(32, 14, seed=1, number=7)
    np.testing.assert_array_equal(again.image, pictures[7].image)
    assert again.dots == pictures[7].dots
    assert len({picture.image.tobytes() for picture in pictures}) == len(pictures)
    for other in [draw_numbered(32, 14, seed=2, number=7), draw_numbered(32, 9, seed=1, number=7)]:
        assert (other.image != again.image).any()


def test_the_label_says_whether_the_dots_are_the_ends_of_one_curve(pictures):
    assert {picture.label for picture in pictures} == {0, 1}
    for picture in pictures:
        start, end = picture.dots
        starts, ends = [[curve.starts[i] for curve in picture.curves] for i in (0, -1)]
        assert start in starts
        assert end in ends
        assert (starts.index(start) == ends.index(end)) == bool(picture.label)
        # both are there to be seen
        assert min(picture.image[dot] for dot in picture.dots) > 200


@pytest.mark.parametrize("width", [32, 64, 128, 256])
def test_curves_are_of_the_rules(width, pictures):
    drawn = pictures if width == 32 else [draw_numbered(width, 14, seed=0, number=0)]
    rules = RULES[width]
    for picture in drawn:
        assert picture.image.shape == (width, width)
        assert picture.image.dtype == np.uint8
        assert (picture.image.min(), picture.image.max()) == (0, 255)
        assert picture.margin in rules.margins
        assert [len(curve.starts) for curve in picture.curves] == [14, 14]
        assert len(picture.distractors) <= rules.distractors // 4
        assert {len(curve.starts) for curve in picture.distractors} <= {4}
        first, second = np.array([curve.starts[0] for curve in picture.curves])
        assert np.hypot(*(first - second)) == pytest.approx(rules.seed_distance, abs=1)
        for curve in [*picture.curves, *picture.distractors]:
            check_curve(curve, picture, rules)


def check_curve(curve, picture, rules):
    """Each paddle begins a gap after the one before, and none turns back; all are drawn."""
    length, margin = rules.length, picture.margin
    places = np.array(curve.starts)
    far = np.hypot(*np.diff(places, axis=0).T)
    # of the first the free end is known, of the others the far one; three roundings to pixels, each less than a diagonal
    assert far[0] < 2 * length + 2 * margin + 3 * np.sqrt(2)
    # straight on; at a right angle it is nearer
    assert far[1:].max(initial=0.0) < length + 2 * margin + 3 * np.sqrt(2)
    assert far[1:].min(initial=np.inf) > np.hypot(margin, length + margin) - 3 * np.sqrt(2)
    steps = np.diff(places, axis=0)
    cosines = (steps[1:] * steps[:-1]).sum(1) / (far[1:] * far[:-1])
    assert cosines.min(initial=1.0) > -0.5
    within = ((places >= 0) & (places < len(picture.image))).all(1)
    assert picture.image[tuple(places[within].T)].min() > 20


def test_paddles_are_free_of_each_other(pictures):
    """All but neighbours on a curve, by the masks that the drawing keeps: no sum reaches 1.8."""
    shapes = load_paddles(32, 1)
    reach = shapes.reach
    for picture in pictures[:10]:
        masks = []
        for curve in picture.curves:
            for (y, x), patch in zip(curve.starts, curve.patches, strict=True):
                mask = np.zeros((32 + 2 * reach, 32 + 2 * reach))
                mask[y : y + 2 * reach + 1, x : x + 2 * reach + 1] = shapes.masks[patch]
                masks.append(mask[reach:-reach, reach:-reach])
        one, other = masks[:14], masks[14:]
        # turn by turn, a paddle sees all before it but the last of each curve
        for i, j in itertools.product(range(14), range(14)):
            if i - j > 1:
                assert max((one[i] + one[j]).max(), (other[i] + other[j]).max()) < 1.8
                assert max((one[i] + other[j]).max(), (other[i] + one[j]).max()) < 1.8


def dilate(image, offsets, outside=-np.inf):
    """Whole images, as the original looks at them: the greatest value at any offset; ``outside`` where none is inside."""
    height, width = image.shape
    found = np.full(image.shape, outside)
    for y, x in offsets:
        for row in range(max(0, -y), min(height, height - y)):
            columns = slice(max(0, -x), min(width, width - x))
            shifted = slice(max(0, -x) + x, min(width, width - x) + x)
            found[row, columns] = np.maximum(found[row, columns], image[row + y, shifted])
    return found


def covered_pixels(shapes, patch, side):
    """Of a paddle that begins one pixel off the middle of a square, what is wholly covered there, from the middle."""
    canvas = np.zeros((2 * side + 1 + 4 * shapes.reach,) * 2)
    start = side + 1 + 2 * shapes.reach
    canvas[start - shapes.reach : start + shapes.reach + 1, start - shapes.reach : start + shapes.reach + 1] = shapes.masks[
        patch
    ]
    inner = slice(2 * shapes.reach, 2 * shapes.reach + 2 * side + 1)
    return np.argwhere(canvas[inner, inner] == 1.0) - side


@pytest.mark.parametrize(("width", "margin"), [(32, 1), (64, 1), (128, 3)])
def test_first_paddles_go_where_whole_images_say(width, margin):
    rules, shapes, layout = RULES[width], load_paddles(width, margin), pathfinder.load_layout(width, margin)
    band = 2 * rules.seed_distance
    taken = np.ones((width, width))
    taken[band:-band, band:-band] = 0.0
    some = np.where(np.random.default_rng(0).random((width, width)) < 0.1, 0.5, 0.2)
    for angle in range(0, 360, 13):
        offsets = covered_pixels(shapes, shapes.first[angle], rules.length + margin)
        dilated = dilate(taken, offsets)
        # the original takes a pixel below 0 for a fault, and finds no place at all
        places = np.argwhere(dilated <= 0.3) if dilated.min() >= 0.0 else np.zeros((0, 2), int)
        (top, left), rows, columns = layout.first_places[angle]
        expected = [(top + i, left + j) for i in range(rows) for j in range(columns)]
        assert [tuple(place) for place in places.tolist()] == expected
        if len(shapes.fits[angle]):
            np.testing.assert_array_equal(pathfinder.find_fits(some <= 0.3, offsets), dilate(some, offsets) <= 0.3)
        else:
            assert dilated.min() < 0.0


def test_the_way_on_is_weighed_as_by_whole_images():
    field, shapes = pathfinder.Field(128, 3), load_paddles(128, 3)
    field.mask[:] = np.random.default_rng(0).random((128, 128)) * (np.random.default_rng(1).random((128, 128)) < 0.02)
    disc = [(y, x) for y in range(-3, 4) for x in range(-3, 4) if y * y + x * x <= 9]
    dilated = dilate(field.mask, disc)
    for turning, angle in [((64, 60), 200), ((3, 5), 100), ((126, 127), 10), ((-2, 40), 300)]:
        weights = field.weigh(turning, angle)
        for (dy, dx), weight in zip(shapes.around.tolist(), weights, strict=True):
            y, x = turning[0] + dy, turning[1] + dx
            turn = abs(np.arctan2(dy, dx) - np.deg2rad(angle - 180))
            turn = min(1.8 * min(turn, 2 * np.pi - turn), np.pi / 2)
            inside = 0 <= y < 128 and 0 <= x < 128
            expected = (1.0 - dilated[y, x]) * np.cos(turn) ** 2 if inside else 0.0
            assert weight == pytest.approx(expected, abs=1e-12)


def test_bytes_are_scaled_as_scipy_did():
    # halves up: 0.5 of 255 is 127.5, and -1, 1, 3 are 0, 0.5, 1 of the way
    np.testing.assert_array_equal(pathfinder.scale_to_bytes(np.array([-1.0, 1.0, 3.0])), [0, 128, 255])
    np.testing.assert_array_equal(pathfinder.scale_to_bytes(np.array([0.0, 0.25, 1.5])), [0, 43, 255])
    assert pathfinder.scale_to_bytes(np.zeros((2, 2))).max() == 0


def test_a_curve_goes_on_straight_rather_than_round_a_corner():
    shapes = load_paddles(128, 2)
    right, left = 180, 0  # degrees from -180: 0 and -180
    best = shapes.around[shapes.weights[right].argmax()]
    assert best[0] == 0 and best[1] in (6, 7)  # length 5 and margin 2 to the right
    assert shapes.around[shapes.weights[left].argmax()][1] <= -7
    behind = shapes.around[:, 1] < 0
    np.testing.assert_allclose(shapes.weights[right][behind], 0.0, atol=1e-12)
    # 30 degrees off, times the continuity of 1.8
    angles = np.arctan2(shapes.around[:, 0], shapes.around[:, 1])
    nearest = np.abs(angles - np.pi / 6).argmin()
    assert shapes.weights[right][nearest] == pytest.approx(np.cos(1.8 * angles[nearest]) ** 2)


def test_metadata_are_those_of_the_release(pictures):
    label = pictures[3].label
    assert pathfinder.describe(32, 14, pictures[3], 2, 17) == f"imgs/2 sample_17.png 17 {label} 1.0 14 4 2 0.5 1 1"


def test_dots_are_discs_also_at_the_border():
    inner, corner = paddles.draw_dot(32, (16, 16), 1.5), paddles.draw_dot(32, (0, 0), 1.5)
    assert inner.max() == corner.max() == 1.0
    # in a grid twice as fine, 29 points are within 3 of the middle, and 11 of them, edges included, in a quarter
    assert inner.sum() == pytest.approx(29 / 4, rel=0.05)
    assert corner.sum() == pytest.approx(11 / 4, rel=0.05)
    assert np.argwhere(inner > 0.5).mean(0) == pytest.approx([16, 16], abs=0.26)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED or not RELEASED.is_dir(), reason="no LRNN_DATA_DIR with pathfinder32")
def test_images_are_like_those_of_the_original_program():
    """Ink within 3 %, pieces and dots within 5 %: three standard errors of 300 images and 500."""
    rows = read_pathfinder(RELEASED / "curv_contour_length_14")
    assert len(rows) == 4000
    assert {row.label for row in rows} == {0, 1}
    theirs = measure_images(np.stack([read_image(path, 32) for path, _ in rows[::8]]))
    ours = measure_images(np.stack([draw_numbered(32, 14, seed=0, number=i).image for i in range(300)]))
    assert ours["ink"].mean() == pytest.approx(theirs["ink"].mean(), rel=0.03)
    assert ours["ink"].std() == pytest.approx(theirs["ink"].std(), rel=0.15)
    assert ours["pieces"].mean() == pytest.approx(theirs["pieces"].mean(), rel=0.05)
    assert ours["dots"].mean() == pytest.approx(theirs["dots"].mean(), rel=0.05)
