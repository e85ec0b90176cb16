"""How much memory a program may use: what the limits of its control groups leave, as the kernel's documentation has it."""

import math

import pytest

from lrnn_jax.errors import UserError
from lrnn_jax.training import memory
from lrnn_jax.training.memory import free_memory


def put_group(folder, names, limit, used, cached=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    if cached is not None:
        stat = f"anon 7\nactive_file 9\nworkingset_refault_{names[2]} 5\n{names[2]} {cached}\ninactive_anon 3\n"
        (folder / "memory.stat").write_text(stat)


NAMES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
NO_LIMIT = {2: "max", 1: "9223372036854771712"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit", "used", "cached", "left"),
    [(1000, 400, None, 600), (1000, 1200, None, 0), (1000, 990, 800, 810), (1000, 400, 500, 1000), (None, 400, 0, math.inf)],
)
def test_a_containers_limit_counts_and_what_it_read_from_disk_does_not(tmp_path, version, limit, used, cached, left):
    root = tmp_path / "cgroup"
    put_group(root / ("memory" if version == 1 else ""), NAMES[version], limit or NO_LIMIT[version], used, cached)
    (tmp_path / "self").write_text("0::/\n" if version == 2 else "5:cpu,cpuacct:/\n4:memory:/\n0::/\n")
    assert min(memory._container_memory(root, tmp_path / "self"), 2**62) == min(left, 2**62)
    if version == 2:
        # where the system does not say which group this is, it is the one that is seen
        assert memory._container_memory(root, tmp_path / "missing") == left


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tightest", ["", "user.slice", "user.slice/job", None])
def test_the_tightest_of_the_groups_around_a_process_counts(tmp_path, version, tightest):
    root = tmp_path / "cgroup"
    for place in ["", "user.slice", "user.slice/job"]:
        put_group((root / "memory" if version == 1 else root) / place, NAMES[version], 700 if place == tightest else 5000, 100)
    put_group((root / "memory" if version == 1 else root) / "other", NAMES[version], 300, 100)
    text = "0::/user.slice/job\n" if version == 2 else "3:cpuset:/other\n2:hugetlb,memory:/user.slice/job\n0::/other\n"
    (tmp_path / "self").write_text(text)
    assert memory._container_memory(root, tmp_path / "self") == (4900 if tightest is None else 600)


def test_a_path_that_only_the_host_sees_leaves_the_containers_root(tmp_path):
    put_group(tmp_path, NAMES[2], 1000, 300)
    (tmp_path / "self").write_text("0::/docker/0123\n")
    assert memory._container_memory(tmp_path, tmp_path / "self") == 700
    (tmp_path / "self").write_text("0::/../../outside\n")
    assert memory._container_memory(tmp_path, tmp_path / "self") == 700
    assert memory._container_memory(tmp_path / "none", tmp_path / "none") == math.inf


def test_free_memory_is_more_than_nothing():
    assert 2**20 < free_memory() < 2**50


def test_what_certainly_does_not_fit_is_refused_by_the_fields_that_ask_for_most(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 0.8 * 2**30)
    memory.refuse_too_large({"a": 2**29, "b": 2**29})
    with pytest.raises(UserError, match=r"^b: at least 1\.5 GiB of memory are needed, and 1 are free$"):
        memory.refuse_too_large({"a": 2**29, "b": 2**30})


def test_an_error_that_is_not_of_memory_stays_what_it_is():
    for error in (RuntimeError("INVALID_ARGUMENT: x"), ValueError("RESOURCE_EXHAUSTED")):
        with pytest.raises(type(error), match=str(error)), memory.said_if_exhausted():
            raise error
