"""What Pathfinder's images are made of: the rules of each size, paddles at every angle, dots; `pathfinder.py` uses them."""

import functools
import math
from typing import NamedTuple

import numpy as np

_SUPERSAMPLING = 2


class Rules(NamedTuple):
    """How images of one size are drawn; lengths in pixels.

    Attributes:
      padding: border that curves avoid.
      margins: free space around a paddle; each image draws one of them.
      length: of a paddle.
      thickness: of a paddle; a multiple of a half.
      marker_radius: of the two dots.
      seed_distance: between the starts of the two long curves.
      continuity: how straight curves are; a turn of 90 degrees over this is the sharpest.
      contrast: of a long curve.
      distractor_contrast: of a short one.
      distractors: paddles of all short curves, about.
    """

    padding: int
    margins: tuple[int, ...]
    length: int
    thickness: float
    marker_radius: float
    seed_distance: int
    continuity: float
    contrast: float
    distractor_contrast: float
    distractors: int


# By the width of the image. How many short curves the release has is not known: its program counts them once, for curves of 6,
# and its documentation for each length, as is done here. At 32 short curves are brighter than long ones, as in the original,
# which forgets a factor there.
RULES = {
    32: Rules(1, (1,), 2, 0.5, 1.5, 7, 1.0, 0.75 * 2.0, 2.0, 20),
    64: Rules(1, (1,), 5, 1.0, 2.5, 12, 1.8, 0.8, 0.8, 22),
    128: Rules(1, (2, 3), 5, 1.5, 3.0, 20, 1.8, 0.9, 0.9, 35),
    256: Rules(22, (3,), 5, 2.0, 5.0, 27, 1.8, 1.0, 1.0, 30),
}

Point = tuple[int, int]
"""Row and column."""


class Paddles:
    """The paddles of one size and margin at every angle at which one can lie, and how curves go on from each.

    Angles are numbered: those of first paddles, in whole degrees from -180, then those that lead to a pixel around the end of
    a curve. A paddle that leads on is drawn from there backwards.

    Attributes:
      reach: half the width of a drawing, without its middle.
      lines: [patch, 2 reach + 1, 2 reach + 1] float32, drawings in 0 to 1.
      masks: the same, with the free space around them.
      first: patch of a first paddle, by its angle.
      next: patch of a paddle that leads on, by its pixel.
      step: [angle, 2] from one turning point to the next.
      head: [angle, 2] from a first paddle's free end to its other end, of the first angles.
      back: [angle, 2] from there to the turning point.
      around: [K, 2] pixels around a turning point.
      weights: [angle, K] how much each is preferred after an angle.
      fits: [angle] where a first paddle needs pixels to be free: offsets [n, 2] from its free end; none where it never fits.
    """

    def __init__(self, width: int, margin: int) -> None:
        """Draws them."""
        rules = RULES[width]
        self._rules, self._margin = rules, margin
        self.reach = rules.length + math.ceil(rules.thickness) + margin
        self._patches: dict[Point, int] = {}
        self._drawn: list[tuple[np.ndarray, np.ndarray]] = []

        degrees = [degree * np.pi / 180 for degree in range(-180, 180)]
        self.around, angles = _ring(rules.length + margin)
        every = np.array([*degrees, *angles])
        self.first = [self._draw(angle) for angle in degrees]
        self.next = [self._draw(_turn_round(angle)) for angle in angles]
        self.step = _directions(every) * (rules.length + 2 * margin)
        self.head = _directions(np.array(degrees)) * rules.length
        self.back = _directions(np.array([_turn_round(angle) for angle in degrees])) * (rules.length + margin)
        turn = np.abs(every[:, None] - angles)
        turn = np.minimum(np.minimum(turn, 2 * np.pi - turn) * rules.continuity, np.pi / 2)
        self.weights = np.cos(turn) ** 2
        self.lines = np.stack([line for line, _ in self._drawn])
        self.masks = np.stack([mask for _, mask in self._drawn])
        self.fits = [self._fit(patch) for patch in self.first]

    def _draw(self, angle: float) -> int:
        """Returns the patch of a paddle that lies along an angle from the middle."""
        middle = self.reach * _SUPERSAMPLING
        y, x = _directions(np.array([angle]))[0] * (self._rules.length * _SUPERSAMPLING)
        head = (math.ceil(middle + y), math.ceil(middle + x))
        if head not in self._patches:
            self._patches[head] = len(self._drawn)
            self._drawn.append(_draw_paddle(self.reach, head, self._rules.thickness, self._margin))
        return self._patches[head]

    def _fit(self, patch: int) -> np.ndarray:
        """Returns the pixels, from a paddle's free end, that it wholly covers.

        The original places them one pixel off, and gives up where the paddle would be wholly outside of the image at any
        pixel, wanted there or not: with most angles at a corner. So it begins few short curves, and so do we.
        """
        side = self._rules.length + self._margin
        covered = np.argwhere(self.masks[patch] == 1.0) - self.reach + 1
        covered = covered[(np.abs(covered) <= side).all(1)]
        at_corners = all((covered * corner >= 0).all(1).any() for corner in ((1, 1), (1, -1), (-1, 1), (-1, -1)))
        return covered if at_corners else covered[:0]


@functools.lru_cache(maxsize=8)
def load_paddles(width: int, margin: int) -> Paddles:
    """Returns the paddles of one size and margin, drawn once per process."""
    return Paddles(width, margin)


def _turn_round(angle: float) -> float:
    return angle + np.pi if angle < 0 else angle - np.pi


def _directions(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(angles), np.cos(angles)], 1)


def _ring(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pixels of a circle, one step of a pixel after the other, sorted, and their angles."""
    angles = np.arange(0, 360, 360.0 / (2 * radius * np.pi)) * np.pi / 180
    pixels = np.unique(np.floor(radius * _directions(angles)).astype(int), axis=0)
    return pixels, np.arctan2(pixels[:, 0], pixels[:, 1])


def _draw_paddle(reach: int, head: Point, thickness: float, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a line from the middle to ``head``, which is in a finer grid, and the mask of what is near it."""
    from PIL import Image, ImageDraw

    fine = 2 * reach * _SUPERSAMPLING + 1
    canvas = Image.new("L", (fine, fine))
    middle = reach * _SUPERSAMPLING
    ends = [(middle, middle), (head[1], head[0])]
    ImageDraw.Draw(canvas).line(ends, fill=255, width=round(thickness * _SUPERSAMPLING))
    line = np.asarray(canvas)
    far = margin * _SUPERSAMPLING
    padded = np.pad(line, far)
    near = [
        padded[far + y : far + y + fine, far + x : far + x + fine]
        for y in range(-far, far + 1)
        for x in range(-far, far + 1)
        if y * y + x * x <= far * far
    ]
    side = 2 * reach + 1
    return _shrink(line, side), _shrink(np.max(near, 0), side)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    return (np.asarray(small) / 255.0).astype(np.float32)


def draw_dot(width: int, dot: Point, radius: float) -> np.ndarray:
    """Returns a disc, drawn finely and then shrunk."""
    y, x = np.ogrid[: width * _SUPERSAMPLING, : width * _SUPERSAMPLING]
    middle_y, middle_x = (place * _SUPERSAMPLING for place in dot)
    fine = (y - middle_y) ** 2 + (x - middle_x) ** 2 <= (radius * _SUPERSAMPLING) ** 2
    return _shrink(fine * np.uint8(255), width).astype(float)
