"""What linear recurrences with eigenvalues in [-1, 1] can track, as explicit weights run on this project's scans.

Every function takes one sequence of letters ``[T]`` and returns the tracked state after each of them ``[T]``; nothing is
learned. The recurrences are those of the layers: `scan_diagonal` with A in {-1, 1}, and `scan_delta_rule` with beta in
{0, 1, 2}, where a first position (BOS) writes the initial state, so that the scan itself begins at zero.

Source: Grazzi et al. 2025, Section 4 and App. C and D; what follows from other places is said where it stands.
"""

import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from lrnn_jax.scans import scan_delta_rule, scan_diagonal
from lrnn_jax.tasks.word_problem import make_group

Letters = Int[np.ndarray, " T"]
States = Int[np.ndarray, " T"]


def track_parity(bits: Letters) -> States:
    """Parity by one scalar: ``h_t = (1 - 2 x_t) h_{t-1}`` from ``h_0 = 1``; the parity is odd where h is -1 (Theorem 1)."""
    a = jnp.asarray(1.0 - 2.0 * bits, jnp.float32)[None, :, None]
    h, _ = scan_diagonal(a, jnp.zeros_like(a), h0=jnp.ones((1, 1), jnp.float32))
    return np.asarray(h[0, :, 0] < 0).astype(int)


def count_by_two_reflections(numbers: Letters, modulus: int) -> States:
    """Sums modulo m by one layer with two reflections per token, which turn the plane by 2 pi x / m (Theorem 3, App. C.1)."""
    half = np.pi * numbers / modulus
    first = np.stack([np.zeros_like(half), np.ones_like(half)], axis=-1)
    second = np.stack([-np.sin(half), np.cos(half)], axis=-1)
    h = run_reflections(np.array([1.0, 0.0]), np.stack([first, second], axis=1))
    return _nearest(h, _directions(2 * np.pi * np.arange(modulus) / modulus))


def count_by_two_layers(numbers: Letters, modulus: int) -> States:
    """Sums modulo m by two layers with one reflection per token (Theorem 6).

    The first layer, ``h_t = 1 - h_{t-1}``, says whether t is odd. The second reflects at the line of angle theta / 2, theta =
    (1 - 2 x) pi / m at odd t and (1 + 2 x) pi / m at even t, from (1, 0): after an odd number of reflections the sum s
    stands at the angle (1 - 2 s) pi / m, after an even number at 2 s pi / m.
    """
    a = jnp.full((1, len(numbers), 1), -1.0, jnp.float32)
    odd = np.asarray(scan_diagonal(a, jnp.ones_like(a))[0][0, :, 0]) > 0.5
    theta = np.where(odd, 1 - 2 * numbers, 1 + 2 * numbers) * np.pi / modulus
    h = run_reflections(np.array([1.0, 0.0]), _mirror(theta)[:, None])
    sums = np.arange(modulus)
    # each sum has two places, one for odd t and one for even; together 2 m directions
    places = _directions(np.concatenate([2 * sums, 1 - 2 * sums]) * np.pi / modulus)
    return _nearest(h, places) % modulus


def track_permutations(letters: Letters, group: str, *, reflections: int) -> States:
    """Products in a group of permutations of n points, by one layer of swaps: a swap is a reflection (Theorem 3).

    The state (1, ..., n) is permuted with each letter and is the one-line notation of ``x_1 o ... o x_t``.

    Args:
      letters: numbers of elements, as in `lrnn_jax.tasks.word_problem`.
      group: its name, such as "S5".
      reflections: swaps per token: at least one less than the points that any letter moves.

    Raises:
      ValueError: a letter needs more swaps.
    """
    elements = make_group(group).elements
    n = elements.shape[1]
    vectors = np.zeros((len(elements), reflections, n))
    for number, images in enumerate(elements.tolist()):
        swaps = swaps_of(images)
        if len(swaps) > reflections and number in letters:
            raise ValueError(f"element {number} of {group} needs {len(swaps)} swaps")
        for j, (a, b) in enumerate(swaps[:reflections]):
            vectors[number, j, [a, b]] = np.sqrt(0.5), -np.sqrt(0.5)
    h = run_reflections(np.arange(1.0, n + 1), vectors[letters])
    numbers = {tuple(images): number for number, images in enumerate(elements.tolist())}
    return np.array([numbers[tuple(line)] for line in (np.rint(h).astype(int) - 1).tolist()])


def track_rotations(letters: Letters, group: str) -> States:
    """Products in A4, S4 or A5 by one layer with two reflections per token.

    They are the rotations of the tetrahedron, the cube and the icosahedron; every rotation is a product of two reflections.
    Source: Siems et al. 2025, DeltaProduct, remark on S4 and A5.

    Raises:
      ValueError: ``group`` is none of the three.
    """
    matrices = _rotation_matrices(group)
    vectors = np.zeros((len(matrices), 2, 3))
    for number, matrix in enumerate(matrices):
        for j, v in enumerate(mirrors_of(matrix.T)):  # of the inverse: see `track_dihedral`
            vectors[number, j] = v
    start = np.array([0.9, 0.4, 0.17])  # on no axis and on no mirror, so that no two elements take it to one place
    h = run_reflections(start, vectors[letters])
    return _nearest(h, np.einsum("gji,j->gi", matrices, start))


def track_dihedral(letters: Letters, m: int) -> States:
    """Products in D_m by two layers with one reflection per token.

    The first layer keeps the parity c of the number of rotations. The second keeps ``S^c G h_0`` with a fixed reflection S and
    G the product so far: its transition ``S^c g S^c'`` has determinant -1 for rotations g, which change c, and for
    reflections, which do not, so that it is one reflection. Source: Siems et al. 2025 state the result; the proof is ours.

    Raises:
      UserError: m is below 3, or larger than the word problems' groups.
    """
    matrices = _dihedral_matrices(m)
    turns = np.linalg.det(matrices) > 0
    c = track_parity(turns[letters].astype(int))
    before = np.concatenate([[0], c[:-1]])
    # the newest letter acts first in a product, so its inverse acts last in the product's inverse, which is what is kept
    inverses = np.swapaxes(matrices, 1, 2)[letters]
    fixed = np.stack([np.eye(2), np.diag([1.0, -1.0])])
    steps = fixed[c] @ inverses @ fixed[before]
    angle = np.arctan2(steps[:, 1, 0], steps[:, 0, 0])
    start = _directions(np.array([0.37 * np.pi / m]))[0]  # on no mirror line
    h = run_reflections(start, _mirror(angle)[:, None])
    h = np.einsum("tij,tj->ti", fixed[c], h)
    return _nearest(h, np.einsum("gji,j->gi", matrices, start))


def track_resets(letters: Letters, automaton: Int[np.ndarray, "W Q"], *, start: int = 0) -> States:
    """Any automaton whose letters each permute its states or send them all to one (Theorem 4's building block).

    The state is one-hot. A permutation is a product of swaps; a constant letter projects every coordinate to zero (n factors
    ``I - e e^T``, beta = 1) and writes the new state, which the delta rule does in the same step.

    Args:
      letters: which row of the automaton acts.
      automaton: the state that each letter sends each state to.
      start: the state at the beginning.

    Raises:
      ValueError: a letter neither permutes nor resets.
    """
    count, n = automaton.shape
    vectors, betas, values = np.zeros((count, n, n)), np.zeros((count, n)), np.zeros((count, n))
    for letter, images in enumerate(automaton.tolist()):
        if len(set(images)) == 1:
            vectors[letter], betas[letter] = np.eye(n), 1.0
            values[letter, images[0]] = 1.0
            continue
        if len(set(images)) < n:
            raise ValueError(f"letter {letter} neither permutes nor resets: {images}")
        for j, (a, b) in enumerate(swaps_of(images)):
            vectors[letter, j, [a, b]] = np.sqrt(0.5), -np.sqrt(0.5)
        # the vector moves the other way than the one-line notation does
        vectors[letter] = vectors[letter, ::-1]
        betas[letter] = 2.0
    h = run_reflections(np.eye(n)[start], vectors[letters], betas=betas[letters], values=values[letters])
    return np.argmax(h, axis=-1)


def swaps_of(images: list[int]) -> list[tuple[int, int]]:
    """Returns the swaps of places that turn the line ``h`` into ``h[images]``: points minus cycles of them, the fewest."""
    line = list(range(len(images)))
    swaps = []
    for place, image in enumerate(images):
        other = line.index(image)
        if other != place:
            line[place], line[other] = line[other], line[place]
            swaps.append((place, other))
    return swaps


def mirrors_of(matrix: Float[np.ndarray, "N N"]) -> list[np.ndarray]:
    """Returns the fewest unit vectors whose reflections, the first vector's first, make an orthogonal matrix.

    Each is a column of I - M, with M what is left to make: its reflection leaves one more direction in place. There are
    rank(I - M) of them (Proposition 1).
    """
    vectors = []
    while np.max(norms := np.linalg.norm(np.eye(len(matrix)) - matrix, axis=0)) > 1e-6:
        v = (np.eye(len(matrix)) - matrix)[:, np.argmax(norms)] / np.max(norms)
        matrix = matrix - 2 * np.outer(v, v @ matrix)
        vectors.append(v)
    return vectors[::-1]


def run_reflections(
    start: Float[np.ndarray, " N"],
    vectors: Float[np.ndarray, "T J N"],
    *,
    betas: Float[np.ndarray, "T J"] | None = None,
    values: Float[np.ndarray, "T J"] | None = None,
) -> Float[np.ndarray, "T N"]:
    """Returns the states of ``h <- (I - beta v v^T) h + beta v value``, J times per token, by `scan_delta_rule`.

    BOS writes ``start``: key start / |start|, value |start|, beta 1. One head per coordinate reads it, with the query e_i.

    Args:
      start: the state before the first token, not zero.
      vectors: unit vectors in the order in which they act; a zero vector does nothing.
      betas: in [0, 2]; 2 (reflections) if None.
      values: what is written; 0 if None.
    """
    steps, factors, n = vectors.shape
    size = np.linalg.norm(start)
    betas = np.full((steps, factors), 2.0) if betas is None else betas
    values = np.zeros((steps, factors)) if values is None else values
    k = np.concatenate([start[None] / size, vectors.reshape(-1, n)])
    beta = np.concatenate([[1.0], betas.reshape(-1)])
    v = np.concatenate([[size], values.reshape(-1)])

    def each_head(x: np.ndarray) -> Array:
        return jnp.asarray(np.repeat(x[:, None], n, axis=1), jnp.float32)[None]

    q = jnp.broadcast_to(jnp.eye(n, dtype=jnp.float32), (1, len(k), n, n))
    o, _ = scan_delta_rule(q, each_head(k), each_head(v[:, None]), each_head(beta))
    return np.asarray(o)[0, factors::factors, :, 0]


def _directions(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _mirror(angle: np.ndarray) -> np.ndarray:
    """The unit vector whose reflection takes the angle phi to ``angle - phi``."""
    return _directions(angle / 2 + np.pi / 2)


def _nearest(h: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.argmax(h @ places.T, axis=-1)


def _dihedral_matrices(m: int) -> np.ndarray:
    """Orthogonal matrices of D_m's elements: i -> i + r turns by 2 pi r / m, i -> r - i reflects."""
    elements = make_group(f"D{m}").elements.astype(int)
    angle = 2 * np.pi * elements[:, 0] / m
    sign = np.where((elements[:, 1] - elements[:, 0]) % m == 1, 1.0, -1.0)
    return np.stack([np.cos(angle), -sign * np.sin(angle), np.sin(angle), sign * np.cos(angle)], axis=-1).reshape(-1, 2, 2)


def _rotation_matrices(group: str) -> np.ndarray:
    """Rotations of space for the elements of A4, S4 or A5, which two rotations a and b with a^2 = b^3 = (a b)^k = 1 make."""
    orders = {"A4": 3, "S4": 4, "A5": 5}
    if group not in orders:
        raise ValueError(f"group {group!r} is not one of {', '.join(orders)}: only these are such rotations")
    table, k = make_group(group).table, orders[group]
    of_order = {n: [x for x in range(len(table)) if _order(table, x) == n] for n in (2, 3)}
    a, b = next((a, b) for a in of_order[2] for b in of_order[3] if _order(table, table[a, b]) == k)
    tilt = np.arccos(np.cos(np.pi / k) / np.sin(np.pi / 3))  # between their axes, by the spherical triangle of the three
    made = {a: _turn(0.0, np.pi), b: _turn(tilt, 2 * np.pi / 3)}
    found, queue = {0: np.eye(3)}, [0]
    for x in queue:
        for letter, matrix in made.items():
            if (y := int(table[x, letter])) not in found:
                found[y] = found[x] @ matrix
                queue.append(y)
    return np.stack([found[x] for x in range(len(table))])


def _order(table: np.ndarray, x: int) -> int:
    power, order = x, 1
    while power:
        power, order = int(table[power, x]), order + 1
    return order


def _turn(tilt: float, angle: float) -> np.ndarray:
    """Rotation about an axis in the plane of x and z, ``tilt`` away from z."""
    c, s = np.cos(tilt), np.sin(tilt)
    to_axis = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    return to_axis @ about_z @ to_axis.T
