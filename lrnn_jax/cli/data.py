"""The command ``lrnn data``."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from lrnn_jax.cli.flags import define_path
from lrnn_jax.cli.text import align
from lrnn_jax.errors import Interrupted, UserError, suggest

# What is done, and which flags it takes beside --data_dir.
ACTIONS: dict[str, tuple[str, ...]] = {
    "list": (),
    "prepare": ("seed", "examples", "processes", "archive"),
    "check": (),
    "show": ("split", "index", "count", "out"),
}
_SECONDS_BETWEEN_LINES = 10.0


def define_data(values: flags.FlagValues) -> None:
    """Adds the command's flags."""
    define_path("data_dir", None, "folder of all data (default: LRNN_DATA_DIR)", values)
    flags.DEFINE_integer("seed", 0, "prepare: of the random numbers; the files depend on it alone", 0, flag_values=values)
    flags.DEFINE_integer(
        "examples", None, "prepare: of all splits together (default: as many as released)", 1, flag_values=values
    )
    flags.DEFINE_integer("processes", None, "prepare: at a time (default: cores)", 1, flag_values=values)
    define_path("archive", None, "prepare: the release's downloaded file, to take the data set out of", values)
    flags.DEFINE_string("split", None, "show: such as train, val or test (default: the first)", values)
    flags.DEFINE_integer("index", 0, "show: the first example, from 0", 0, flag_values=values)
    flags.DEFINE_integer("count", None, "show: examples (default: 1 text, or 32 images)", 1, flag_values=values)
    define_path("out", None, "show: PNG file of the images (default: NAME.png here)", values)


def run_data(values: flags.FlagValues, positional: list[str]) -> int:
    """Lists, prepares, checks or shows data sets."""
    action, name = _read_words(positional)
    _refuse_foreign_flags(action, values)
    data_dir = values.data_dir or ""
    if action == "list":
        _list(data_dir)
        return 0
    from lrnn_jax.data.catalogue import get_data_set

    get_data_set(name)
    if action == "prepare":
        _prepare(name, data_dir, values)
    elif action == "check":
        _check(name, data_dir)
    else:
        _show(name, data_dir, values)
    return 0


def _read_words(positional: list[str]) -> tuple[str, str]:
    words = ", ".join(ACTIONS)
    if not positional:
        raise UserError(f"lrnn data needs one of {words}")
    action, *names = positional
    if action not in ACTIONS:
        raise UserError(f"cannot {action!r} data{suggest(action, ACTIONS)} (one of {words})")
    if action == "list" and names:
        raise UserError("`lrnn data list` takes no name")
    if action != "list" and len(names) != 1:
        raise UserError(f"lrnn data {action} needs one NAME; `lrnn data list` lists them")
    return action, "".join(names)


def _refuse_foreign_flags(action: str, values: flags.FlagValues) -> None:
    for other, names in ACTIONS.items():
        for name in names:
            if other != action and values[name].present:
                raise UserError(f"lrnn data {action} takes no --{name}; {other} does")


def _list(data_dir: str) -> None:
    from lrnn_jax.data.catalogue import DATA_SETS, expected_place, find_data_set

    rows = [("data set", "task", "what", "here", "where", "from")]
    has_root = bool(data_dir or os.environ.get("LRNN_DATA_DIR"))
    for name, found in DATA_SETS.items():
        source = found.source + (f", or `lrnn data prepare {name}`" if found.generated else "")
        try:
            here, where = "yes", str(find_data_set(name, data_dir))
        except UserError:
            here, where = "no", str(expected_place(name, data_dir)) if has_root else "give --data_dir or LRNN_DATA_DIR"
        rows.append((name, found.task, found.what, here, where, source))
    print(align(rows))


def _prepare(name: str, data_dir: str, values: flags.FlagValues) -> None:
    from lrnn_jax.data.catalogue import RELEASED, expected_place, find_data_set, get_data_set
    from lrnn_jax.data.checking import find_check
    from lrnn_jax.data.preparing import unpack_archive

    found = get_data_set(name)
    place = expected_place(name, data_dir)
    try:
        there = find_data_set(name, data_dir)
    except UserError as error:
        missing = str(error)
    else:
        raise UserError(f"{name} is there already, in {there}; remove it, or choose another --data_dir")
    if not (found.generated or (values.archive and found.kind == RELEASED)):
        by_archive = "; or give --archive, the downloaded file" if found.kind == RELEASED else ""
        raise UserError(f"{name} cannot be made here: {missing}{by_archive}")
    if values.archive:
        for flag in ("seed", "examples", "processes"):
            if values[flag].present:
                raise UserError(f"--{flag} is for what is generated; --archive={values.archive} is unpacked")
        facts = unpack_archive(Path(values.archive), found.part, place, verify=find_check(name))
        print(f"{place}: from {values.archive}")
    else:
        facts = _generate(name, place, values)
    print(align(facts))


def _generate(name: str, place: Path, values: flags.FlagValues) -> Any:
    from lrnn_jax.data.catalogue import get_data_set
    from lrnn_jax.data.checking import find_check
    from lrnn_jax.data.pathfinder import CONTOURS
    from lrnn_jax.data.preparing import Recipe, write_recipe

    found = get_data_set(name)
    examples = values.examples or sum(found.counts.values())
    if name == "listops":
        if examples < 3:
            raise UserError(f"--examples={examples}: listops needs at least 3, one for each split")
        recipe = Recipe("listops", values.seed, examples)
    else:
        base, contour = Path(found.part).parts
        recipe = Recipe("pathfinder", values.seed, examples, int(base.removeprefix("pathfinder")), CONTOURS[contour])
    processes = values.processes or os.cpu_count() or 1
    said = Progress(name)
    try:
        facts = write_recipe(recipe, place, processes=processes, verify=find_check(name), progress=said.update)
    except KeyboardInterrupt as error:
        raise Interrupted(signal.SIGINT, f"stopped preparing {name}; the same command goes on from here") from error
    finally:
        said.close()
    print(f"{place}: {examples:,} examples, seed {values.seed}")
    return facts


def _check(name: str, data_dir: str) -> None:
    from lrnn_jax.data.catalogue import get_data_set
    from lrnn_jax.data.checking import check_data_set

    folder, facts = check_data_set(name, data_dir)
    print(align(facts))
    whole = get_data_set(name).counts
    print(f"\n{folder}: nothing wrong (of the whole: {', '.join(f'{split} {count:,}' for split, count in whole.items())})")


def _show(name: str, data_dir: str, values: flags.FlagValues) -> None:
    from lrnn_jax.data.catalogue import get_data_set
    from lrnn_jax.data.showing import Picture, draw_sheet, read_examples

    is_image = get_data_set(name).task in ("pathfinder", "image_classification")
    if values.out and not is_image:
        raise UserError(f"--out is for images; {name} is text, which is printed")
    count = values.count or (32 if is_image else 1)
    shown = read_examples(name, data_dir, values.split, values.index, count)
    pictures = [each for each in shown if isinstance(each, Picture)]
    if pictures:
        out = Path(values.out or f"{name.replace('/', '-')}.png")
        draw_sheet(pictures, out)
        print(f"{out}: examples {values.index} to {values.index + len(pictures) - 1}, each with its label")
    else:
        print("\n\n".join(str(each) for each in shown))


class Progress:
    """Examples, examples/s and time left: one live line on a terminal, else a line every ten seconds."""

    def __init__(self, what: str) -> None:
        """Writes to standard error, from the first `update` on."""
        self._what = what
        self._bar = None
        self._start: int | None = None
        self._began = self._last = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Says that ``done`` of ``total`` examples are made; the first time, how many were there before."""
        if self._start is None:
            self._start, self._began = done, time.monotonic()
            if done:
                print(f"{self._what}: goes on after {done:,} of {total:,} examples", file=sys.stderr)
            if sys.stderr.isatty():
                from tqdm import tqdm

                self._bar = tqdm(total=total, initial=done, unit="example", desc=self._what, dynamic_ncols=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        if done == total:
            self.close()
            print(f"{self._what}: {total:,} examples made; putting the files together and checking them", file=sys.stderr)
        if self._bar is not None or done in (self._start, total):
            return
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            rate = (done - self._start) / (now - self._began)
            left = time.strftime("%H:%M:%S", time.gmtime((total - done) / rate)) if rate else "?"
            print(f"{self._what}: {done:,}/{total:,}  {rate:.1f} examples/s  {left} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
