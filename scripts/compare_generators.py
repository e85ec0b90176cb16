"""Our ListOps and Pathfinder beside those that the original programs made: statistics, and one picture of both.

    python scripts/compare_generators.py DATA_DIR OUT.png [EXAMPLES]

DATA_DIR holds listops-1000 and pathfinder32 in the layout of the Long Range Arena's release.
"""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from scipy import ndimage, stats

from lrnn_jax.data.checking import read_image
from lrnn_jax.data.listops import Tree, draw_trees, evaluate, measure, parse
from lrnn_jax.data.lra import find_release, read_listops, read_pathfinder
from lrnn_jax.data.pathfinder import CONTOURS, draw_numbered
from lrnn_jax.data.showing import Picture, draw_sheet

# Of 0 to 255: a pixel that is part of a curve, and one that is still so bright after thin lines are taken away.
INK, DOT = 64, 100


def compare_lists(one: Sequence[Tree], other: Sequence[Tree]) -> dict[str, float]:
    """Returns p-values: Kolmogorov-Smirnov of lengths; chi-square of depths, values and the operators at the root."""
    facts = [[(*measure(tree), evaluate(tree), tree[0]) for tree in trees if isinstance(tree, tuple)] for trees in (one, other)]
    columns = [list(zip(*rows, strict=True)) for rows in facts]
    found = {"length": float(stats.ks_2samp(columns[0][0], columns[1][0]).pvalue)}
    for i, name in enumerate(("depth", "value", "root"), 1):
        a, b = columns[0][i], columns[1][i]
        table = np.array([[a.count(kind), b.count(kind)] for kind in sorted({*a, *b})])
        # kinds that hardly occur are put together, as the statistic asks
        rare = table.min(1) < 5
        table = np.vstack([table[~rare], table[rare].sum(0)])
        found[name] = float(stats.chi2_contingency(table[table.sum(1) > 0]).pvalue)
    return found


def measure_images(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns one number per image of ``images`` [n width width]: mean ink, number of connected pieces, pixels of dots."""
    plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    around = np.ones((3, 3), int)
    return {
        "ink": images.mean((1, 2)),
        "pieces": np.array([ndimage.label(image > INK, around)[1] for image in images]),
        "dots": np.array([(ndimage.grey_opening(image, footprint=plus) > DOT).sum() for image in images]),
    }


def main(arguments: Sequence[str]) -> int:
    """Prints the statistics and draws the picture."""
    data_dir, out, *rest = arguments
    count = int(rest[0]) if rest else 2000
    folder = find_release("listops-1000", data_dir)
    official = [parse(row.source) for split in ("train", "val", "test") for row in read_listops(folder / f"basic_{split}.tsv")]
    ours = list(islice(draw_trees(np.random.default_rng(0)), count))
    print(f"listops, {len(official)} rows beside {count} of ours, p-values:")
    print("  " + "  ".join(f"{name} {p:.3f}" for name, p in compare_lists(official, ours).items()))
    pictures: list[Picture] = []
    for contour, length in CONTOURS.items():
        rows = read_pathfinder(find_release(f"pathfinder32/{contour}", data_dir))
        theirs = np.stack([read_image(path, 32) for path, _ in rows])
        drawn = [draw_numbered(32, length, seed=0, number=i) for i in range(count)]
        mine = np.stack([picture.image for picture in drawn])
        print(f"pathfinder32/{contour}, {len(theirs)} images beside {count} of ours:")
        for (name, a), b in zip(measure_images(theirs).items(), measure_images(mine).values(), strict=True):
            error = float(np.sqrt(a.var() / len(a) + b.var() / len(b)))
            differ = f"{100 * (b.mean() / a.mean() - 1):+.2f} %, {(b.mean() - a.mean()) / error:+.1f} standard errors"
            print(f"  {name}: {a.mean():.3f} (sd {a.std():.3f}), ours {b.mean():.3f} (sd {b.std():.3f}); {differ}")
        pairs = zip(theirs[:8, ..., None], rows, drawn, strict=False)
        sheet = [(Picture(a, f"original {r.label}"), Picture(p.image[..., None], f"ours {p.label}")) for a, r, p in pairs]
        pictures += [*(left for left, _ in sheet), *(right for _, right in sheet)]
    draw_sheet(pictures, Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
