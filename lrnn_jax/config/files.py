"""Config files and experiment files: where they are, and running what they define."""

import ast
import functools
import importlib.util
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lrnn_jax.config.checks import check_types
from lrnn_jax.config.fields import COMPONENTS, default_fields, flatten, set_field, thaw
from lrnn_jax.config.rule_checks import check_rules
from lrnn_jax.config.settings import Choices, Origin, Setting
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
    given = Path(os.path.expanduser(path))  # noqa: PTH111 - it leaves the ~ where there is no such home
    own = data_folder("configs")
    for candidate in (given, own.parent / given, own / given, own / f"{given}.py"):
        if candidate.suffix == ".py" and candidate.is_file():
            return candidate
    names = [f"configs/{file.name}" for file in sorted(own.glob("*.py"))]
    raise UserError(f"no config file {path!r}{suggest(path, names)} (`lrnn list configs` shows all)")


def load_config(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Runs ``get_config`` of the file in ``FILE[:ARG]`` and returns the locked config.

    Args:
      spec: ``FILE[:ARG]``.
      overrides: dotted path -> value. The name of a layer means what the file's settings say for that layer, as if it stood
        in ``ARG``; names come first, whatever their place.

    Raises:
      UserError: no such file, an argument that the file refuses, a file that fails, a rule of it that says nothing (see
        `check_rules`), or an override that does not fit.
    """
    path, _, arg = spec.partition(":")
    file = find_config(path)
    get_config = load_get_config(file)
    fields = dict(overrides or {})
    more = {"layer": fields["model.layer.name"]} if "model.layer.name" in fields and isinstance(get_config, Choices) else {}
    config = _call(file, lambda: get_config(arg or None, **more))
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {file} returns no ConfigDict but {type(config).__name__}")
    config = thaw(config).lock()
    # before any override, which is read as what the file holds
    check_types(config)
    names = [f"{component}.name" for component in COMPONENTS if f"{component}.name" in fields]
    for field in dict.fromkeys([*names, *fields]):
        set_field(config, field, fields[field])
    return config


def explain_config(spec: str, overrides: Mapping[str, Any]) -> dict[str, Origin]:
    """Returns what set each field of `load_config` with the same arguments, by dotted path.

    Raises:
      UserError: as there.
    """
    path, _, arg = spec.partition(":")
    file = find_config(path)
    get_config = load_get_config(file)
    values = dict(flatten(load_config(spec, overrides)))
    if isinstance(get_config, Choices):
        _, origins = get_config.resolve(get_config.parse(arg, layer=overrides.get("model.layer.name", "")))
        if "task.name" in overrides:
            origins |= {field: Origin("default") for field in values if field.startswith("task.")}
    else:
        defaults = default_fields(values["task.name"], values["model.layer.name"])
        origins = {field: Origin("default" if values[field] == defaults.get(field) else "config file") for field in values}
    return {field: Origin("command line") if field in overrides else origins[field] for field in values}


def load_own_config(spec: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """As `load_config`, but only ever from the project's own files, whatever the working directory holds."""
    path, colon, arg = spec.partition(":")
    return load_config(f"{data_folder('configs').parent / path}{colon}{arg}", overrides)


def load_get_config(file: Path) -> Callable[..., Any]:
    """Returns the function ``get_config`` of a config file; a `Choices` where the file declares settings.

    Raises:
      UserError: the file fails, or has none, or a rule of it says nothing: see `check_rules`.
    """
    get_config = _find_function(file, "get_config")
    if get_config is None:
        raise UserError(f"{file} defines no get_config(arg)")
    if isinstance(get_config, Choices):
        _check_once(get_config, file.name)
    return get_config


def load_settings(name: str) -> dict[str, Setting]:
    """Returns the ``SETTINGS`` of another of the project's configs, for a config that begins where that one ends."""
    return _load_module(data_folder("configs") / f"{name}.py").SETTINGS


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


_check_once = functools.lru_cache(check_rules)


def _load_module(file: Path) -> Any:
    return _run_module(file, _call(file, lambda: file.read_text(encoding="utf-8")))


@functools.lru_cache
def _run_module(file: Path, text: str) -> Any:
    """Runs a file; a table asks for one hundreds of times."""
    _call(file, _check_settings, file, text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    _call(file, spec.loader.exec_module, module)
    return module


def _check_settings(file: Path, text: str) -> None:
    """Refuses two settings of one name, of which Python would silently take the second."""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if ast.unparse(target) == "SETTINGS":
            names = [ast.literal_eval(key) for key in node.value.keys if isinstance(key, ast.Constant)]
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{file}:{node.lineno}: two settings are called {name!r}")


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
