"""Checkpoints on disks that fail: what is damaged is noticed, and what is intact is used."""

import gc
import random
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.runs import checkpoints as module
from lrnn_jax.runs.checkpoints import Checkpoints
from lrnn_jax.runs.files import seal

INFO = {"step": 2, "lines": ['{"loss": 0.123456}'], "best": None}


def make_state(step):
    rng = np.random.default_rng(step)
    return {"w": rng.normal(size=(8, 5)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32), "n": np.int32(step)}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intact") / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), {**INFO, "step": step})
            checkpoints.wait()
    return folder


def restore(folder, **how):
    with Checkpoints(folder, **{"keep": 2, **how}) as checkpoints:
        return checkpoints.restore_newest(make_state(0))


def is_step(restored, step):
    state, info = restored
    return info == {**INFO, "step": step} and all(np.array_equal(state[name], x) for name, x in make_state(step).items())


def test_what_was_saved_comes_back(intact):
    assert is_step(restore(intact, read_only=True), 2)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(intact, tmp_path, flips):
    rng, noticed = random.Random(flips), 0
    for i in range(flips):
        folder = shutil.copytree(intact, tmp_path / str(i))
        files = sorted(file for file in (folder / "2").rglob("*") if file.is_file() and file.stat().st_size)
        # by size, so that each bit is as likely as another
        (file,) = rng.choices(files, [file.stat().st_size for file in files])
        place = rng.randrange(8 * file.stat().st_size)
        flip(file, place)
        restored = restore(folder)
        noticed += is_step(restored, 1)
        assert is_step(restored, 1) or is_step(restored, 2), f"silent: bit {place} of {file.relative_to(folder)}"
    assert noticed > flips / 10


def test_saving_again_and_again_keeps_nothing_in_memory(tmp_path):
    """Two dozen lists were kept of every save once, 15 kB."""

    def count():
        gc.collect()
        return sum(type(each) is list for each in gc.get_objects())

    with Checkpoints(tmp_path) as checkpoints:
        counts = []
        for step in range(30):
            checkpoints.save(step, make_state(0), INFO)
            if step % 15 == 14:
                checkpoints.wait()
                counts.append(count())
    assert counts[1] - counts[0] < 60, counts


def test_a_flipped_bit_of_the_info_is_noticed(intact, tmp_path, caplog):
    """It would still be JSON: one digit of a line of metrics."""
    folder = shutil.copytree(intact, tmp_path / "it")
    file = folder / "2" / "info" / "metadata"
    flip(file, 8 * file.read_text().index("3456"))
    assert is_step(restore(folder), 1)
    assert [record.message for record in caplog.records] == [
        "checkpoint of step 2 cannot be read (it is not what was written: its sha256 is another); using the one of step 1"
    ]
    assert (tmp_path / "corrupt" / "2").is_dir()


DAMAGES = {
    "emptied": lambda file: file.write_bytes(b""),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "zeroed": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "missing": lambda file: file.unlink(),
    "a list": lambda file: file.write_text("[]"),
    "an object": lambda file: file.write_text("{}"),
    "nested": lambda file: file.write_text("[" * 100_000),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_file_damaged_in_any_way_means_the_one_before_or_nothing(intact, tmp_path, damage, caplog):
    names = [file.relative_to(intact) for file in sorted((intact / "2").rglob("*")) if file.is_file()]
    assert len(names) > 5
    for i, name in enumerate(names):
        folder = shutil.copytree(intact, tmp_path / f"{i}" / "checkpoints")
        DAMAGES[damage](folder / name)
        caplog.clear()
        restored = restore(folder)
        assert is_step(restored, 1) or is_step(restored, 2), name
        assert len(caplog.records) == is_step(restored, 1)
    # without another there is one line that says what to do
    shutil.rmtree(folder / "1")
    for file in (folder / "2" / "info").iterdir():
        DAMAGES[damage](file)
    with pytest.raises(UserError, match=r"no checkpoint can be read \(step 2: .*\); remove the folder to start over"):
        restore(folder)


@pytest.mark.parametrize("digests", [False, True])
def test_a_checkpoint_that_is_older_than_packing_or_digests_is_taken_as_it_is(tmp_path, monkeypatch, digests):
    monkeypatch.setattr(module, "_pack", lambda state: state)
    if digests:
        monkeypatch.setattr(module, "seal", lambda fields: seal({k: v for k, v in fields.items() if k != "packed"}))
    else:
        monkeypatch.setattr(module, "_seal", lambda state, info: info)
    with Checkpoints(tmp_path / "it") as checkpoints:
        checkpoints.save(2, make_state(2), INFO)
    assert is_step(restore(tmp_path / "it"), 2)


def test_a_name_that_could_be_two_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r"\['a', 'b/c'\]: a name with '/'"):
        checkpoints.save(1, {"a": {"b/c": jnp.zeros(1)}}, INFO)


def test_arrays_of_any_dtype_and_size_come_back_bit_for_bit_in_any_tree(tmp_path):
    class Pair(NamedTuple):
        a: Any
        b: Any

    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, 4 * 30, np.uint8).view(np.float32)  # some are not a number
    state = {
        "pair": Pair(jnp.asarray(bits.reshape(5, 6)), (jnp.asarray(rng.normal(size=3), jnp.bfloat16), jnp.float32(-0.0))),
        "a": {"flag": jnp.asarray([True, False]), "none": jnp.zeros((0, 4)), "key": jnp.asarray([7, 8], jnp.uint32)},
        "empty": {},
        "n": jnp.int32(-3),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, INFO)
        checkpoints.wait()
        found, info = checkpoints.restore_newest(jax.eval_shape(lambda: state))
        plain, _ = checkpoints.restore_newest(None)
    assert info == INFO and jax.tree.structure(found) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    assert plain["a"]["key"].tolist() == [7, 8] and plain["pair"]["b"]["1"] == 0.0


def test_an_info_may_be_refused_before_the_state_is_read(intact):
    def refuse(info):
        raise UserError(f"not {info['step']}")

    with Checkpoints(intact, read_only=True) as checkpoints, pytest.raises(UserError, match="not 2"):
        checkpoints.restore_newest(None, refuse)


def test_a_folder_that_is_removed_under_a_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="was it removed while the run went on") as error, Checkpoints(tmp_path / "c") as c:
        shutil.rmtree(tmp_path / "c")
        c.save(1, make_state(1), INFO)
    assert "\n" not in str(error.value)


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "c").write_text("")
    with pytest.raises(UserError, match=r"cannot use .*/c: Not a directory") as error:
        Checkpoints(tmp_path / "c", read_only=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("files", "free", "refused"), [(1000, 31, True), (1000, 32, False), (0, 0, False)])
def test_a_disk_without_room_for_more_files_is_one_line(tmp_path, monkeypatch, files, free, refused):
    """A file system without such a limit says 0."""
    disk = type(
        "Disk", (), {"f_files": files, "f_favail": free, "f_bavail": 1000, "f_blocks": 1000, "f_bfree": 1000, "f_frsize": 4096}
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        monkeypatch.setattr("lrnn_jax.runs.checkpoints.os.statvfs", lambda _: disk)
        if refused:
            with pytest.raises(
                UserError, match=r"needs about 32 files and the disk has room for 31 more \(intact: steps none\)"
            ):
                checkpoints.save(1, make_state(1), INFO)
        else:
            checkpoints.save(1, make_state(1), INFO)


CANNOT_MAKE_FOLDERS = """
import errno, os, pathlib, sys
import numpy as np
from lrnn_jax.errors import UserError
from lrnn_jax.runs.checkpoints import Checkpoints
try:
    with Checkpoints(pathlib.Path(sys.argv[1])) as checkpoints:
        make, left = os.mkdir, [int(sys.argv[2])]
        def refuse(path, *rest, **how):
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            left[0] -= 1
            return make(path, *rest, **how)
        os.mkdir = refuse
        checkpoints.save(1, {"w": np.ones(5, np.float32)}, {})
        checkpoints.wait()
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("left", [0, 1])
def test_a_save_that_cannot_make_a_folder_ends_within_seconds(tmp_path, left):
    """As where inodes run out while it is saved. Threads of the writer would wait for the folder for twenty minutes."""
    command = [sys.executable, "-c", CANNOT_MAKE_FOLDERS, str(tmp_path / "c"), str(left)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 1 and "No space left on device" in done.stdout
