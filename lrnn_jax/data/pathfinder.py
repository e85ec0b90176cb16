"""Pathfinder: two long dashed curves among short ones, and two dots; are the dots the ends of one curve?

Source: Linsley et al. 2018 (the task and the way it is drawn); Tay et al. 2021, Long Range Arena (the parameters of its sizes).
Differs: what never changes is drawn once (paddles at every angle, the dots, where a first paddle fits), and a step looks at the
  pixels near a curve's end instead of at whole images. Distributions and pixels of a drawn paddle are those of the original,
  with the scaling to bytes that its first release took from SciPy; random numbers are drawn in another order.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from lrnn_jax.data.paddles import RULES, Point, draw_dot, load_paddles

# Curves are this many paddles long; the last is the task of the Long Range Arena.
CONTOURS = {"curv_baseline": 6, "curv_contour_length_9": 9, "curv_contour_length_14": 14}
_TRIALS = 3  # of a paddle
_SNAKE_TRIALS = 5  # of a short curve
_FREE = 0.3  # a pixel of the mask up to here is free
_OVERLAP = 1.8  # two paddles whose masks add up to this cross
_WHOLE = (slice(None), slice(None))
_FEWEST_FREE = 0.01  # of all pixels; short curves are not begun where fewer are left


class Curve(NamedTuple):
    """One curve, from its first paddle to its last.

    Attributes:
      starts: where each paddle is drawn from; of the first its free end, of the others the end that leads on.
      patches: the number of each paddle's drawing in `Paddles`.
    """

    starts: list[Point]
    patches: list[int]


class Picture(NamedTuple):
    """A drawn example.

    Attributes:
      image: [width width] uint8.
      label: 1 where both dots are on one curve, else 0.
      margin: which of the margins.
      curves: the two long ones.
      distractors: the short ones.
      dots: where the two dots are.
    """

    image: np.ndarray
    label: int
    margin: int
    curves: list[Curve]
    distractors: list[Curve]
    dots: list[Point]


def draw(width: int, contour: int, random: np.random.Generator) -> Picture:
    """Returns one example.

    Args:
      width: 32, 64, 128 or 256.
      contour: paddles of a long curve, at least 3; short ones have a third, cut.
      random: where randomness comes from; only its ``random`` is called.
    """
    rules = RULES[width]
    label = _choose(random, 2)
    margin = rules.margins[_choose(random, len(rules.margins))]
    field = Field(width, margin)
    while True:
        curves = field.draw_pair(contour, random)
        if curves:
            break
    short = contour // 3
    distractors = [curve for _ in range(rules.distractors // short) if (curve := field.draw_distractor(short, random))]
    first = _choose(random, 2)
    dots = [curves[first].starts[0], curves[first if label else 1 - first].starts[-1]]
    image = np.zeros((width, width))
    for curve in curves:
        field.paint(image, curve, rules.contrast)
    for curve in distractors:
        field.paint(image, curve, rules.distractor_contrast)
    for dot in dots:
        np.maximum(image, draw_dot(width, dot, rules.marker_radius), out=image)
    return Picture(scale_to_bytes(image), label, margin, curves, distractors, dots)


def draw_numbered(width: int, contour: int, *, seed: int, number: int) -> Picture:
    """Returns one of a seed's images, see `draw`: it depends on the seed and its number alone."""
    key = np.random.SeedSequence(seed, spawn_key=(width, contour, number))
    return draw(width, contour, np.random.Generator(np.random.PCG64(key)))


def describe(width: int, contour: int, picture: Picture, batch: int, number: int) -> str:
    """Returns an image's line of metadata, as in the release."""
    rules = RULES[width]
    drawn = [rules.continuity, contour, contour // 3, rules.length, rules.thickness, picture.margin, 1]
    return " ".join(map(str, [f"imgs/{batch}", f"sample_{number}.png", number, picture.label, *drawn]))


def scale_to_bytes(values: np.ndarray) -> np.ndarray:
    """Returns uint8: the least value becomes 0 and the greatest 255, halves are rounded up.

    Source: SciPy before 1.2, ``misc.imsave`` and ``misc.imresize``.
    """
    least, most = float(values.min()), float(values.max())
    scale = 255.0 / (most - least) if most > least else 1.0
    return ((values - least) * scale + 0.5).astype(np.uint8)


def _choose(random: np.random.Generator, count: int) -> int:
    return int(random.random() * count)


# --- drawing one image ---------------------------------------------------------------------------------------------


class End(NamedTuple):
    """Where a growing curve ends: its turning point, its angle, and its last paddle, which does not bar its own way yet."""

    turning: Point
    angle: int
    start: Point
    patch: int


class Field:
    """An image in the making.

    Attributes:
      mask: [width width] how much of each pixel is taken, 0 to 1.
    """

    def __init__(self, width: int, margin: int) -> None:
        """Starts empty."""
        self._width, self._rules = width, RULES[width]
        self._paddles = load_paddles(width, margin)
        self._layout = load_layout(width, margin)
        self._taken = np.zeros(0)
        self.mask = np.zeros((0, 0))
        self._set_taken(self._layout.empty.copy())

    def _set_taken(self, taken: np.ndarray) -> None:
        """Takes pixels with a border around, in which everything is free."""
        border, width = self._layout.border, self._width
        self._taken = taken
        self.mask = taken[border : border + width, border : border + width]

    def draw_pair(self, contour: int, random: np.random.Generator) -> list[Curve] | None:
        """Draws the two long curves, turn by turn; None, and an empty field, where one of them finds no way on."""
        ends = self._seed_pair(random)
        if ends is None:
            return None
        curves = [Curve([end.start], [end.patch]) for end in ends]
        for _ in range(contour - 1):
            for i, end in enumerate(ends):
                grown = self._grow(end, random)
                if grown is None:
                    self._set_taken(self._layout.empty.copy())
                    return None
                ends[i] = self._add(curves[i], grown)
        # the original leaves the last paddle of the other curve free
        self._take(ends[1])
        return curves

    def draw_distractor(self, count: int, random: np.random.Generator) -> Curve | None:
        """Draws a short curve of ``count`` paddles anywhere; None where there is no room, or no way on in five attempts."""
        for _ in range(_SNAKE_TRIALS):
            before = self._taken.copy()
            end = self._seed_distractor(random)
            if end is None:
                continue
            curve = Curve([end.start], [end.patch])
            for _ in range(count - 1):
                end = self._grow(end, random)
                if end is None:
                    break
                self._add(curve, end)
            if end is not None:
                self._take(end)
                return curve
            self._set_taken(before)
        return None

    def paint(self, image: np.ndarray, curve: Curve, contrast: float) -> None:
        """Draws a curve into an image [width width]; the brightest stays."""
        for start, patch in zip(curve.starts, curve.patches, strict=True):
            inside, part = self._window(start)
            line = (self._paddles.lines[patch].astype(float) * contrast).astype(np.float32)
            np.maximum(image[inside], line[part], out=image[inside])

    def _add(self, curve: Curve, end: End) -> End:
        curve.starts.append(end.start)
        curve.patches.append(end.patch)
        return end

    def _grow(self, end: End, random: np.random.Generator) -> End | None:
        """Adds a paddle; the one before now bars the way."""
        paddles, layout = self._paddles, self._layout
        step_y, step_x = layout.steps[end.angle]
        y, x = math.ceil(end.turning[0] + step_y), math.ceil(end.turning[1] + step_x)
        weights = self.weigh((y, x), end.angle).cumsum()
        total = weights[-1]
        if total < 1e-4:
            return None
        for _ in range(_TRIALS):
            pixel = int(weights.searchsorted(random.random() * total, "right"))
            dy, dx = layout.pixels[pixel]
            start, patch = (y + dy, x + dx), paddles.next[pixel]
            inside, part = self._window(start)
            if np.maximum.reduce(self.mask[inside] + paddles.masks[patch][part], None) < _OVERLAP:
                self._take(end)
                return End((y, x), layout.first_angles + pixel, start, patch)
        return None

    def weigh(self, turning: Point, angle: int) -> np.ndarray:
        """Returns how much each of the pixels [K] around a turning point is preferred after an angle: less if taken nearby."""
        layout = self._layout
        middle = (turning[0] + layout.border) * layout.stride + turning[1] + layout.border
        occupied = np.maximum.reduce(self._taken.take(layout.near + middle), 0)
        return self._paddles.weights[angle] * layout.inside.take(layout.around + middle) * (1.0 - occupied)

    def _take(self, end: End) -> None:
        inside, part = self._window(end.start)
        mask = self.mask[inside]
        np.maximum(mask, self._paddles.masks[end.patch][part], out=mask)

    def _window(self, middle: Point) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Returns where a drawing around a pixel lies in the image, and which part of it that is."""
        reach, width = self._paddles.reach, self._width
        y, x = middle[0] - reach, middle[1] - reach
        side = 2 * reach + 1
        if min(y, x) >= 0 and max(y, x) + side <= width:
            return (slice(y, y + side), slice(x, x + side)), _WHOLE
        return (
            (slice(max(y, 0), y + side), slice(max(x, 0), x + side)),
            (slice(max(-y, 0), min(side, width - y)), slice(max(-x, 0), min(side, width - x))),
        )

    def _seed_pair(self, random: np.random.Generator) -> list[End] | None:
        """Draws the first paddles: one well inside, the other at a distance from it in any direction."""
        first = None
        while first is None:
            # the original begins the whole image anew where an angle does not fit
            angle = self._layout.first_that_fit[_choose(random, len(self._layout.first_that_fit))]
            (top, left), rows, columns = self._layout.first_places[angle]
            row, column = divmod(_choose(random, rows * columns), columns)
            first = self._place((top + row, left + column), angle)
        y, x = first.start
        for _ in range(_TRIALS):
            angle = _choose(random, 360)
            direction = _choose(random, 360) * np.pi / 180
            far = self._rules.seed_distance
            second = self._place((round(y + far * math.sin(direction)), round(x + far * math.cos(direction))), angle)
            if second:
                return [first, second]
        return None

    def _seed_distractor(self, random: np.random.Generator) -> End | None:
        free = self.mask <= _FREE
        if free.sum() < _FEWEST_FREE * free.size:
            return None
        free[[0, -1]] = free[:, [0, -1]] = False
        for _ in range(_TRIALS):
            angle = _choose(random, 360)
            if not len(self._paddles.fits[angle]):
                return None
            places = np.flatnonzero(find_fits(free, self._paddles.fits[angle]))
            if not len(places):
                return None
            end = self._place(divmod(int(places[_choose(random, len(places))]), self._width), angle)
            if end:
                return end
        return None

    def _place(self, start: Point, angle: int) -> End | None:
        """Returns a first paddle from its free end; None where its other end or its turning point are outside."""
        head = [math.ceil(start[i] + self._paddles.head[angle, i]) for i in range(2)]
        turning = (math.ceil(head[0] + self._paddles.back[angle, 0]), math.ceil(head[1] + self._paddles.back[angle, 1]))
        if all(0 <= place < self._width for place in (*head, *turning)):
            return End(turning, angle, start, self._paddles.first[angle])
        return None


class Layout:
    """Where pixels lie in the flat array of taken ones, which has a border, so that no step looks outside of it.

    Attributes:
      first_places: [angle] the rectangle in which the first paddle of a long curve can begin: a corner, rows, columns.
      first_that_fit: angles at which there is one.
    """

    def __init__(self, width: int, margin: int) -> None:
        paddles, rules = load_paddles(width, margin), RULES[width]
        self.border = 2 * (rules.length + 2 * margin) + 2
        self.stride = width + 2 * self.border
        self.first_angles = len(paddles.first)
        self.pixels = [(int(y), int(x)) for y, x in paddles.around]
        self.steps = [(float(y), float(x)) for y, x in paddles.step]
        self.around = paddles.around @ [self.stride, 1]
        far = range(-margin, margin + 1)
        disc = np.array([y * self.stride + x for y in far for x in far if y * y + x * x <= margin * margin])
        self.near = disc[:, None] + self.around
        self.inside = np.pad(np.ones((width, width)), self.border)
        edge = np.ones((width, width))
        edge[rules.padding : -rules.padding, rules.padding : -rules.padding] = 0.0
        self.empty = np.pad(edge, self.border)
        band = 2 * rules.seed_distance
        self.first_places = [_find_rectangle(offsets, band, width - band) for offsets in paddles.fits]
        self.first_that_fit = [angle for angle, (_, rows, columns) in enumerate(self.first_places) if rows > 0 and columns > 0]


def _find_rectangle(offsets: np.ndarray, start: int, end: int) -> tuple[Point, int, int]:
    """Returns where all ``offsets`` are inside of a square, from ``start`` to before ``end``: a corner, rows and columns."""
    if not len(offsets):
        return (0, 0), 0, 0
    (top, left), (bottom, right) = offsets.min(0).tolist(), offsets.max(0).tolist()
    return (start - top, start - left), end - start - (bottom - top), end - start - (right - left)


@functools.lru_cache(maxsize=8)
def load_layout(width: int, margin: int) -> Layout:
    """Returns the layout of one size and margin, made once per process."""
    return Layout(width, margin)


def find_fits(free: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns from which pixels all ``offsets`` are free, [width width] bool; outside of the image everything is."""
    far = int(np.abs(offsets).max())
    height, width = free.shape
    padded = np.pad(free, far, constant_values=True)
    fits = np.ones_like(free)
    for y, x in offsets.tolist():
        fits &= padded[far + y : far + y + height, far + x : far + x + width]
    return fits
