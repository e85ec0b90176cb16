"""Data sets in the release's layout, generated or unpacked from its archive: there whole or not at all.

One that is generated is made of chunks by many processes; each depends on the seed and its own number alone. Chunks are kept in
a folder beside the data set's, ``.NAME.part``; when all are there, the files are put together in it, verified, and the folder
is renamed. A process that is stopped loses the chunk that it is at.
"""

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lrnn_jax.data import listops, pathfinder
from lrnn_jax.errors import UserError

# How the files were made stands in a file beside them; another revision would make others from the same seed.
RECORD = "prepared.json"
_REVISION = 1
_LISTOPS_CHUNK = 250
_PATHFINDER_CHUNK = 50
# Images in a folder, as in the release.
BATCH = 1000
# Of 100,000 rows, as in the release: training, validation, test.
_LISTOPS_SHARES = {"val": 0.02, "test": 0.02}

T = TypeVar("T")


class Recipe(NamedTuple):
    """What is made.

    Attributes:
      kind: "listops" or "pathfinder".
      seed: at least 0.
      examples: of all splits together.
      width: Pathfinder's.
      contour: Pathfinder's.
    """

    kind: str
    seed: int
    examples: int
    width: int = 0
    contour: int = 0

    def chunk_size(self) -> int:
        """Returns the examples of a chunk."""
        return _LISTOPS_CHUNK if self.kind == "listops" else _PATHFINDER_CHUNK

    def chunks(self) -> int:
        """Returns how many chunks there are."""
        return -(-self.examples // self.chunk_size())


def write_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    processes: int,
    verify: Callable[[Path], T],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> T:
    """Makes a data set, or goes on where an earlier process was stopped; returns what ``verify`` does.

    Args:
      recipe: what to make.
      folder: where; must not be there yet.
      processes: how many at a time; the files do not depend on it.
      verify: raises where the files in the folder that it is given are wrong.
      progress: is told how many examples are done, of how many.

    Raises:
      UserError: the folder is there; the chunks there are of another recipe; another process is at it; the disk is full.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or choose another --data_dir")
    part = folder.with_name(f".{folder.name}.part")
    try:
        (part / "chunks").mkdir(parents=True, exist_ok=True)
        with _lock(part):
            _check_begun(part, recipe)
            _write_chunks(recipe, part, processes, progress)
            made = part / "made"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            sums = (_put_listops if recipe.kind == "listops" else _put_pathfinder)(recipe, part / "chunks", made)
            record = {"revision": _REVISION, **recipe._asdict(), "sha256": sums}
            (made / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            found = verify(made)
            made.rename(folder)
            shutil.rmtree(part)
            return found
    except OSError as error:
        raise UserError(f"cannot write {error.filename or part}: {error.strerror}") from error


def unpack_archive(archive: Path, part: str, folder: Path, *, verify: Callable[[Path], T]) -> T:
    """Takes one part out of the release's archive; returns what ``verify`` does.

    Args:
      archive: the file, packed with gzip or not.
      part: path inside the release, such as "tsv_data". The release holds itself twice; the inner one is taken.
      folder: where it is put; must not be there yet.
      verify: raises where the files in the folder that it is given are wrong.

    Raises:
      UserError: the folder is there; the archive cannot be read, is damaged, or does not have the part; the disk is full.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; remove it, or choose another --data_dir")
    # below a folder of the part's own name, as checks look at it
    aside = folder.with_name(f".{folder.name}.unpacked")
    made = aside / folder.parent.name / folder.name
    shutil.rmtree(aside, ignore_errors=True)
    try:
        made.mkdir(parents=True)
        if not _unpack_files(archive, f"lra_release/lra_release/{part}/", made):
            raise UserError(f"{archive} has no lra_release/lra_release/{part}")
        found = verify(made)
        made.rename(folder)
        return found
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} is no archive, or is damaged: {error}") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive} in {folder.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unpack_files(archive: Path, prefix: str, folder: Path) -> int:
    """Writes the plain files below ``prefix``; returns how many."""
    count = 0
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # gzip's own reader compares the checksum at the end, tarfile's does not
    with gzip.open(archive) if packed else archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if not (member.isfile() and name.startswith(prefix)):
                continue
            path = folder / name.removeprefix(prefix)
            if not path.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{archive} has a file that would lie outside: {member.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            count += 1
        while raw.read(1 << 20):
            pass
    return count


@contextlib.contextmanager
def _lock(part: Path) -> Iterator[None]:
    with (part / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is preparing this data set in {part}") from error
        yield


def _check_begun(part: Path, recipe: Recipe) -> None:
    """Says what is made here, or refuses to mix two recipes."""
    wanted = {"revision": _REVISION, **recipe._asdict()}
    file = part / "recipe.json"
    if file.exists():
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            begun = {}
        if begun != wanted:
            differs = ", ".join(f"{key}={begun.get(key)}" for key in wanted if begun.get(key) != wanted[key])
            raise UserError(f"{part} was begun with {differs}; go on with that, or remove the folder")
        return
    _write_whole(file, json.dumps(wanted).encode())


def _write_whole(file: Path, raw: bytes) -> None:
    aside = file.with_name(f"{file.name}.{os.getpid()}")
    with aside.open("wb") as opened:
        opened.write(raw)
        opened.flush()
        os.fsync(opened.fileno())
    aside.replace(file)


def _write_chunks(recipe: Recipe, part: Path, processes: int, progress: Callable[[int, int], object]) -> None:
    chunks = part / "chunks"
    have = {file.name for file in chunks.iterdir()}
    missing = [number for number in range(recipe.chunks()) if f"{number:06}" not in have]
    done = (recipe.chunks() - len(missing)) * recipe.chunk_size()
    progress(min(done, recipe.examples), recipe.examples)
    # closed at once where this is interrupted, which ends the processes
    with contextlib.closing(_run(recipe, chunks, missing, processes)) as results:
        for _ in results:
            done += recipe.chunk_size()
            progress(min(done, recipe.examples), recipe.examples)


def _run(recipe: Recipe, chunks: Path, numbers: list[int], processes: int) -> Generator[None, None, None]:
    """Yields as each chunk is written; ends the processes when it is left early."""
    if processes == 1 or len(numbers) < 2:
        for number in numbers:
            _write_chunk(recipe, chunks, number)
            yield
        return
    # processes of their own from the start: a fork would copy locks that threads of this one hold
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(processes, len(numbers)), context, _follow_parent)
    try:
        for future in as_completed([pool.submit(_write_chunk, recipe, chunks, number) for number in numbers]):
            future.result()
            yield
    except BrokenProcessPool as error:
        raise UserError("a process ended early, for want of memory perhaps; the same command goes on") from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leaves Ctrl-C, which reaches all processes of a terminal, to the first one, and ends when that has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_chunk(recipe: Recipe, chunks: Path, number: int) -> None:
    make = _make_listops if recipe.kind == "listops" else _make_pathfinder
    _write_whole(chunks / f"{number:06}", make(recipe, number))


# --- ListOps -------------------------------------------------------------------------------------------------------


def count_splits(examples: int) -> dict[str, int]:
    """Returns ListOps's rows by split: 96 % train, and 2 % each validation and test, of 3 rows or more."""
    held_out = {name: max(1, round(examples * share)) for name, share in _LISTOPS_SHARES.items()}
    return {"train": examples - sum(held_out.values()), **held_out}


def _make_listops(recipe: Recipe, number: int) -> bytes:
    size = recipe.chunk_size()
    left = recipe.examples - number * size
    # further chunks, for rows that are there twice, are full
    rows = listops.draw_rows(recipe.seed, number, min(left, size) if left > 0 else size)
    return "".join(f"{text}\t{value}\n" for text, value in rows).encode()


def _put_listops(recipe: Recipe, chunks: Path, folder: Path) -> dict[str, str]:
    """Writes the splits: rows in the chunks' order, each once; what is missing then comes from further chunks."""
    rows = _each_once(recipe, chunks)
    sums = {}
    for split, count in count_splits(recipe.examples).items():
        name = f"basic_{split}.tsv"
        digest = hashlib.sha256()
        with (folder / name).open("wb") as file:
            for line in (b"Source\tTarget\n", *(next(rows) for _ in range(count))):
                file.write(line)
                digest.update(line)
        sums[name] = digest.hexdigest()
    return sums


def _each_once(recipe: Recipe, chunks: Path) -> Iterator[bytes]:
    seen = set()
    number = 0
    while True:
        file = chunks / f"{number:06}"
        if not file.exists():
            _write_chunk(recipe, chunks, number)
        for line in file.read_bytes().splitlines(keepends=True):
            key = hashlib.blake2b(line, digest_size=16).digest()
            if key not in seen:
                seen.add(key)
                yield line
        number += 1


# --- Pathfinder ----------------------------------------------------------------------------------------------------


def redraw(recipe: Recipe, number: int) -> pathfinder.Picture:
    """Returns the image of a number, counted over all batches."""
    return pathfinder.draw_numbered(recipe.width, recipe.contour, seed=recipe.seed, number=number)


def _make_pathfinder(recipe: Recipe, number: int) -> bytes:
    """Returns a chunk's images and their lines of metadata, packed together."""
    raw = io.BytesIO()
    start = number * recipe.chunk_size()
    lines = []
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for i in range(start, min(start + recipe.chunk_size(), recipe.examples)):
            picture = redraw(recipe, i)
            batch, place = divmod(i, BATCH)
            lines.append(pathfinder.describe(recipe.width, recipe.contour, picture, batch, place) + "\n")
            _add(tar, f"imgs/{batch}/sample_{place}.png", encode_png(picture.image))
        _add(tar, "lines", "".join(lines).encode())
    return raw.getvalue()


def encode_png(image: np.ndarray) -> bytes:
    """Returns an image [height width] uint8 as a PNG file."""
    from PIL import Image

    raw = io.BytesIO()
    Image.fromarray(image).save(raw, "PNG")
    return raw.getvalue()


def _add(tar: tarfile.TarFile, name: str, raw: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(raw)
    tar.addfile(member, io.BytesIO(raw))


def _put_pathfinder(recipe: Recipe, chunks: Path, folder: Path) -> dict[str, str]:
    """Unpacks the images, and writes one file of metadata for each batch."""
    (folder / "metadata").mkdir()
    digests: dict[str, Any] = {}
    for number in range(recipe.chunks()):
        batch = str(number * recipe.chunk_size() // BATCH)
        (folder / "imgs" / batch).mkdir(parents=True, exist_ok=True)
        digest = digests.setdefault(batch, hashlib.sha256())
        with tarfile.open(chunks / f"{number:06}") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                raw = file.read()
                if member.name == "lines":
                    with (folder / "metadata" / f"{batch}.npy").open("ab") as lines:
                        lines.write(raw)
                else:
                    (folder / member.name).write_bytes(raw)
                    digest.update(raw)
    return {f"imgs/{batch}": digest.hexdigest() for batch, digest in digests.items()}
