"""Config files and experiment files: where they are, and running what they define."""

import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.errors import UserError, suggest


def data_folder(name: str) -> Path:
    """Returns the folder ``configs`` or ``experiments``: of the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / name
    return checkout if (package.parent / "pyproject.toml").exists() else package / name


def find_config(path: str) -> Path:
    """Returns the config file that ``path`` means: as given, or by name among the project's own.

    Raises:
      UserError: no such file; names the nearest of the project's configs.
    """
    given = Path(path)
    own = data_folder("configs")
    for candidate in (given, own.parent / given, own / given, own / f"{given}.py"):
        if candidate.suffix == ".py" and candidate.is_file():
            return candidate
    names = [f"configs/{file.name}" for file in sorted(own.glob("*.py"))]
    raise UserError(f"no config file {path!r}{suggest(path, names)} (`lrnn list configs` shows all)")


def load_config(spec: str) -> ConfigDict:
    """Runs ``get_config`` of the file in ``FILE[:ARG]`` and returns the locked config, overrides not yet applied.

    Raises:
      UserError: no such file, an argument that the file refuses, or a file that fails.
    """
    path, _, arg = spec.partition(":")
    file = find_config(path)
    get_config = _find_function(file, "get_config")
    if get_config is None:
        raise UserError(f"{file} defines no get_config(arg)")
    config = _call(file, get_config, arg or None)
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {file} returns no ConfigDict but {type(config).__name__}")
    return config.lock()


def load_own_config(spec: str) -> ConfigDict:
    """As `load_config`, but only ever from the project's own files, whatever the working directory holds."""
    path, colon, arg = spec.partition(":")
    return load_config(f"{data_folder('configs').parent / path}{colon}{arg}")


def load_sweep(path: str, name: str) -> list[dict[str, Any]]:
    """Runs ``sweep_<name>`` of a config file (``sweep`` where the name is empty) and returns its points.

    Raises:
      UserError: no such sweep; names the nearest. Or an empty one.
    """
    file = find_config(path)
    function = _find_function(file, f"sweep_{name}" if name else "sweep")
    if function is None:
        names = [key.removeprefix("sweep").removeprefix("_") for key in vars(_load_module(file)) if key.startswith("sweep")]
        shown = ", ".join(f"--sweep={known}" if known else "one without a name" for known in names) or "none"
        raise UserError(f"{file} has no sweep {name!r}{suggest(name, names)} (it has {shown})")
    points = _call(file, lambda: list(function()))
    for point in points:
        if not isinstance(point, dict) or not all(isinstance(field, str) for field in point):
            raise UserError(f"{file}: a point of the sweep {name!r} is {point!r}, not a mapping from fields to values")
    if not points:
        raise UserError(f"the sweep {name!r} of {file} is empty")
    return points


def _load_module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    _call(file, spec.loader.exec_module, module)
    return module


def _find_function(file: Path, name: str) -> Callable[..., Any] | None:
    return getattr(_load_module(file), name, None)


def _call(file: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a user's code; what it raises becomes one line that names the file's own line."""
    try:
        return function(*arguments)
    except UserError as error:
        raise UserError(_first_line(error)) from error
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f"{file}:{lines[-1]}" if lines else str(file)
        raise UserError(f"{where}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
