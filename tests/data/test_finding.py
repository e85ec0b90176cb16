"""Which files a path, a folder or a pattern means: links, loops, hidden ones, odd names, and what is never walked."""

import pytest

from lrnn_jax.data import finding
from lrnn_jax.data.finding import find_files
from lrnn_jax.errors import UserError


def find(data, root, data_dir=""):
    files = find_files(str(data), str(data_dir), field="task.data", reads=lambda path: path.suffix == ".txt")
    return [path.relative_to(root).as_posix() for path in files]


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_folders_behind_links_are_read_like_others_and_each_once(tmp_path, pattern):
    root = tmp_path / "root"
    write(root / "a.txt", root / "sub" / "b.txt", tmp_path / "elsewhere" / "c.txt", tmp_path / "file.txt")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "first").symlink_to(root / "sub")  # its real folder comes later by name, and counts
    (root / "linked.txt").symlink_to(tmp_path / "file.txt")
    assert find(root / pattern, root) == ["a.txt", "again/c.txt", "linked.txt", "sub/b.txt"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_loops_end(tmp_path, pattern):
    write(tmp_path / "a" / "1.txt", tmp_path / "b" / "2.txt")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "over").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "over").symlink_to(tmp_path / "a")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert find(tmp_path / pattern, tmp_path) == ["a/1.txt", "b/2.txt"]


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    write(tmp_path / "a.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"task\.data: .*gone\.txt is a link that leads nowhere"):
        find(tmp_path, tmp_path)


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_what_is_hidden_is_left_out_and_said(tmp_path, pattern, caplog):
    write(tmp_path / "a.txt", tmp_path / ".ipynb_checkpoints" / "a-checkpoint.txt", tmp_path / "b" / "._b.txt", tmp_path / ".x")
    assert find(tmp_path / pattern, tmp_path) == ["a.txt"]
    (record,) = caplog.records
    assert ".ipynb_checkpoints" in record.getMessage() and "._b.txt" in record.getMessage() and "/.x" not in record.getMessage()
    assert find(tmp_path / ".ipynb_checkpoints", tmp_path) == [".ipynb_checkpoints/a-checkpoint.txt"]
    assert find(tmp_path / ".ipy*" / "*.txt", tmp_path) == [".ipynb_checkpoints/a-checkpoint.txt"]


def test_files_of_other_kinds_in_a_folder_are_said(tmp_path, caplog):
    write(tmp_path / "a.txt", *(tmp_path / f"{i}.csv" for i in range(5)))
    assert find(tmp_path, tmp_path) == ["a.txt"]
    assert "0.csv" in caplog.text and "and 2 more" in caplog.text
    caplog.clear()
    assert find(tmp_path / "*.txt", tmp_path) == ["a.txt"] and not caplog.records


@pytest.mark.parametrize("name", ["notes[1].txt", "a*.txt", "what?.txt", "~x.txt"])
def test_a_file_that_is_there_is_no_pattern(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, tmp_path / "notes1.txt", tmp_path / "ab.txt", tmp_path / "whatx.txt")
    assert find(tmp_path / name, tmp_path) == find(name, tmp_path) == [name]


def test_a_folder_that_is_there_is_no_pattern(tmp_path):
    write(tmp_path / "br[x]" / "sub" / "a.txt", tmp_path / "brx" / "b.txt")
    for data in ("br[x]", "br[x]/**/*.txt", "br[x]/*/a.txt"):
        assert find(data, tmp_path, data_dir=tmp_path) == ["br[x]/sub/a.txt"]
    assert find("br[xy]/*.txt", tmp_path, data_dir=tmp_path) == ["brx/b.txt"]


def test_patterns_mean_what_a_shell_means(tmp_path):
    write(*(tmp_path / name for name in ("a.txt", "s/b.txt", "s/t/c.txt", "s/t/c.md", "u/t/d.txt")))
    for pattern, found in [
        ("*.txt", ["a.txt"]),
        ("*/*.txt", ["s/b.txt"]),
        ("*/t/*.txt", ["s/t/c.txt", "u/t/d.txt"]),
        ("s/**", ["s/b.txt", "s/t/c.md", "s/t/c.txt"]),
        ("**/t/[cd].*", ["s/t/c.md", "s/t/c.txt", "u/t/d.txt"]),
        ("s/**/*.txt", ["s/b.txt", "s/t/c.txt"]),
        ("t/*.txt", []),
        ("a.tx", []),
    ]:
        assert find(tmp_path / pattern, tmp_path) == found, pattern


def test_a_name_that_no_file_can_have_is_not_there(tmp_path):
    for name in ("x" * 256, "x" * 5000, "x\0y", "a/" * 3000 + "*.txt"):
        assert find(tmp_path / name, tmp_path) == []


@pytest.mark.parametrize("data", ["/", "//", "/**/*.txt", "/../", "/etc/.."])
def test_the_whole_disk_is_refused_at_once(tmp_path, data, monkeypatch):
    monkeypatch.setattr("os.scandir", lambda path: pytest.fail(f"walked {path}"))
    with pytest.raises(UserError, match=r"task\.data is the whole disk"):
        find(data, tmp_path)


def test_too_many_files_are_refused_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "MOST", 9)
    write(*(tmp_path / f"{i % 3}" / f"{i}.txt" for i in range(6)))
    assert len(find(tmp_path, tmp_path)) == 6
    write(tmp_path / "one_more.txt")
    with pytest.raises(UserError, match="more than 9 files and folders"):
        find(tmp_path, tmp_path)
