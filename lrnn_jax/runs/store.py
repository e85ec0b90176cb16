"""The run store: a folder of runs, each in a folder named by the hash of its resolved config."""

import ast
import fcntl
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.checks import validate_config
from lrnn_jax.config.fields import flatten
from lrnn_jax.config.identity import config_hash, restore_config
from lrnn_jax.errors import UserError, suggest
from lrnn_jax.runs.folder import RunFolder, is_result_of, read_object
from lrnn_jax.runs.naming import HEADLINES, differing_fields
from lrnn_jax.runs.origin import describe_origin, find_changes

Row = dict[str, Any]
COLUMNS = ("run", "status", "task.name", "model.layer.name", "seed", "steps", "wall_time_s")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}


def default_workdir(config: ConfigDict, store: Path = Path("runs")) -> Path:
    """Returns ``store/<hash of the resolved config>``."""
    return store / config_hash(config)


def read_status(config: ConfigDict, store: Path) -> str:
    """Returns "finished", "failed", "started" or "missing"."""
    folder = RunFolder(default_workdir(config, store))
    result = folder.read_result(config)
    if result:
        return result["status"]
    return "started" if folder.config_file.exists() else "missing"


def describe_changes(configs: Sequence[ConfigDict], store: Path) -> str:
    """Returns a line on finished runs that other code, versions, settings or devices have made, and how to train them again.

    It is empty where there are none.
    """
    results = {
        config_hash(config): (RunFolder(default_workdir(config, store)).read_result(config), config) for config in configs
    }
    found = {}
    for name, (result, config) in results.items():
        if result and result["status"] == "finished":
            found[name] = find_changes(result, describe_origin(config))
    changed = {name: changes for name, changes in found.items() if changes}
    if not changed:
        return ""
    name, changes = next(iter(changed.items()))
    return (
        f"{len(changed)} of the {len(found)} finished runs in {store} were made before this: {changes} ({name}); "
        "remove their folders to train them again"
    )


@contextmanager
def locked_store(store: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the store for one sweep or table; with ``shared``, beside others that share it (the parts of one array job).

    Raises:
      UserError: another sweep holds it, it is a run's own folder, or it cannot be made or locked.
    """
    if (store / "config.json").exists():
        raise UserError(
            f"--workdir={store} is the folder of one run; a sweep or table needs a folder of runs, such as {store.parent}"
        )
    try:
        store.mkdir(parents=True, exist_ok=True)
        file = (store / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write in --workdir={store}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another sweep or table is writing {store}; wait or choose another --workdir") from error
        except OSError as error:
            raise UserError(f"--workdir={store} is on a disk that gives no lock: {error.strerror}") from error
        yield


def read_rows(store: Path) -> list[Row]:
    """Returns one row per run in the store: its config's fields by dotted path, its result's, and its metrics by name.

    ``status`` is "finished", "failed" (with ``reason``), "started", "stale" where the folder's name or its result's hash is not
    that of its config, or its config is no longer one, as after a field was added, or "unreadable" (with ``reason``).

    Raises:
      UserError: no such folder, or no run in it.
    """
    if not store.is_dir():
        raise UserError(f"{store} holds no runs: there is no such folder")
    folders = [RunFolder(path.parent) for path in sorted(store.glob("*/config.json"))]
    if not folders:
        raise UserError(f"{store} holds no runs")
    return [_read_row(folder) for folder in folders]


def _read_row(folder: RunFolder) -> Row:
    try:
        config = restore_config(read_object(folder.config_file))
        result: Any = folder.load_result() if folder.result_file.exists() else {"status": "started"}
    except (OSError, ValueError) as error:
        return {"run": folder.path.name, "status": "unreadable", "reason": str(error)}
    row: Row = {"run": folder.path.name, **dict(flatten(config))}
    row |= {name: value for name, value in result.items() if not isinstance(value, dict)}
    row |= result.get("metrics", {})
    best = result.get("best") or {}
    row |= {f"best/{name}": value for name, value in best.get("metrics", {}).items()}
    named_by_hash = re.fullmatch(r"[0-9a-f]{12}", folder.path.name)
    others = (named_by_hash and config_hash(config) != folder.path.name) or not is_result_of(config, result)
    if others or not _is_current(config):
        row["status"] = "stale"
    return row


def _is_current(config: ConfigDict) -> bool:
    try:
        validate_config(config)
    except (UserError, TypeError, ValueError, AttributeError, KeyError):
        return False  # rules are written for fields of the right type
    return True


def select_rows(rows: Sequence[Row], where: Sequence[str]) -> list[Row]:
    """Returns the rows for which every condition holds, such as "model.layer.name=mamba" or "scaled_accuracy>=0.9".

    A row that lacks the field does not satisfy the condition.

    Raises:
      UserError: not FIELD, comparison, VALUE; a field that no run has; or a value of another type than in any run.
    """
    every, known = rows, {name for row in rows for name in row}
    for condition in where:
        match = re.fullmatch(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|<|>|=)=?\s*(.*?)\s*", condition)
        if not match:
            raise UserError(f"--where={condition!r} must be FIELD=VALUE, or with one of != < <= > >=")
        field, compare, text = match[1], _COMPARISONS[match[2]], match[3]
        check_column(field, known)
        present = [row[field] for row in every if row.get(field) is not None]
        if present and not any(_can_be_compared(value, text) for value in present):
            raise UserError(
                f"--where={condition!r}: {text!r} is not of the kind of {field}, which is {present[0]!r} in one run"
            )
        rows = [row for row in rows if _holds(compare, row.get(field), text)]
    return list(rows)


def check_column(name: str, known: set[str]) -> None:
    """Refuses a column that no run has.

    Raises:
      UserError: names the nearest.
    """
    if name not in known:
        raise UserError(f"no run has a field {name!r}{suggest(name, known)}")


def default_columns(rows: Sequence[Row]) -> list[str]:
    """Returns `COLUMNS`, the fields that differ and that the layer alone does not decide, and the headline metrics."""
    headline = [name for name in HEADLINES if any(name in row for row in rows)]
    reason = ["reason"] if any(row.get("reason") for row in rows) else []
    return list(dict.fromkeys([*COLUMNS, *differing_fields(rows), *headline, *reason]))


def _holds(compare: Callable[[Any, Any], bool], value: Any, text: str) -> bool:
    try:
        return value is not None and compare(value, _parse_like(value, text))
    except (ValueError, TypeError):
        return False


def _can_be_compared(value: Any, text: str) -> bool:
    try:
        _parse_like(value, text)
    except ValueError:
        return False
    return True


def _parse_like(value: Any, text: str) -> Any:
    """Reads a condition's text as what the value is; ValueError where it is none."""
    if isinstance(value, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(value, (int, float)):
        return float(text)
    if isinstance(value, list):
        try:
            return ast.literal_eval(text)
        except (SyntaxError, TypeError) as error:
            raise ValueError(text) from error
    return text
