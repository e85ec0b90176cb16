"""Who may write in a store or in a run's folder, and what the others are told."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys

import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.runs.folder import RunFolder
from lrnn_jax.runs.store import locked_store

HOLD = """
import pathlib, sys
from lrnn_jax.runs.store import locked_store
with locked_store(pathlib.Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(store, how):
    arguments = [sys.executable, "-c", HOLD, str(store), how]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def is_refused(store, *, shared):
    try:
        with locked_store(store, shared=shared):
            return False
    except UserError as error:
        assert "another sweep or table" in str(error) and str(store) in str(error) and "\n" not in str(error)
        return True


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ("exclusive", "exclusive", True),
        ("exclusive", "shared", True),
        ("shared", "exclusive", True),
        ("shared", "shared", False),
    ],
)
def test_two_sweeps_in_one_store(tmp_path, theirs, ours, refused):
    store = tmp_path / "new" / "store"
    with held_by_another_process(store, theirs) as process:
        assert is_refused(store, shared=ours == "shared") is refused
        # the lock goes with its process, however that ends
        process.kill()
        process.wait()
        assert not is_refused(store, shared=False)


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_is_let_go_after_an_error(tmp_path, shared):
    with pytest.raises(ZeroDivisionError), locked_store(tmp_path, shared=shared):
        assert is_refused(tmp_path, shared=False)
        raise ZeroDivisionError
    assert not is_refused(tmp_path, shared=False)


def test_stores_do_not_hinder_each_other(tmp_path):
    with locked_store(tmp_path / "a"):
        assert not is_refused(tmp_path / "b", shared=False)


def test_a_store_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in --workdir=") as error, locked_store(tmp_path / "file" / "store"):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lock", [locked_store, lambda path: RunFolder(path).locked()], ids=["store", "run"])
def test_a_disk_that_has_no_locks_is_not_taken_for_another_process(tmp_path, monkeypatch, lock):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="gives no lock: No locks available") as error, lock(tmp_path):
        pass
    assert "another" not in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_run_that_another_process_writes_is_named_with_the_process(tmp_path):
    with RunFolder(tmp_path).locked(), pytest.raises(UserError, match=f"pid {os.getpid()}"), RunFolder(tmp_path).locked():
        pass
