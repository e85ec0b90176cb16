"""Parameters by path: their names, and the digest that identifies their bits."""

import hashlib
from typing import Any

import jax
import numpy as np

Tree = Any


def parameter_paths(params: Tree) -> list[str]:
    """Returns the path of every leaf, such as ``block_0/layer/q/kernel``, in the tree's order."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def hash_params(params: Any) -> str:
    """Returns the SHA-256 of every parameter's path, dtype, shape and bits."""
    digest = hashlib.sha256()
    for path, leaf in zip(parameter_paths(params), jax.tree.leaves(params), strict=True):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
