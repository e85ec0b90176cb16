"""Every text file is UTF-8, whatever the locale; nothing of it depends on a home or on the length of a name."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = {"read_text", "write_text", "open"}
# What these open or read are bytes, or the system's own ASCII.
BYTES = {"lrnn_jax/training/memory.py"}


def opens_text_by_locale(call):
    """Whether a call reads or writes text in an encoding that it does not name."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name not in TEXT or any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name != "open":
        return True
    modes = [
        a.value
        for a in call.args
        if isinstance(a, ast.Constant) and isinstance(a.value, str) and set(a.value) <= set("rwax+bt")
    ]
    return bool(modes) and "b" not in modes[-1]


def test_no_file_is_read_or_written_in_the_locales_encoding():
    found = []
    for folder in ("lrnn_jax", "configs", "experiments"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
            found += [f"{name}:{call.lineno}" for call in calls if opens_text_by_locale(call) and name not in BYTES]
    assert found == []


def test_a_corpus_in_a_locale_that_is_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_text("zwölf Boxkämpfer 日本 " * 200, encoding="utf-8")
    (tmp_path / "own.py").write_text("# für später\ndef get_config(arg=None):\n    return 'ü'\n", encoding="utf-8")
    code = """
import sys
from lrnn_jax.cli.main import main
from lrnn_jax.data.packing import load_corpus
from lrnn_jax.runs.files import replace_text
corpus = load_corpus("a.txt", data_dir="", text_field="text", tokenizer="bpe:300", skip_short=False)
replace_text(corpus.folder / "x", "\\xfc")
assert corpus.tokenizer.decode(corpus.document("train", 0)[1:]).decode().startswith("zw\\xf6lf")
load_corpus.cache_clear()
load_corpus("a.txt", data_dir="", text_field="text", tokenizer="bpe:300", skip_short=False).names("train")
print(main(["config", "own.py"]), main(["config", "\\u65e5"]), main(["list", "tasks"]))
"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    environment = {**os.environ, **plain, "LRNN_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("2 2 0\n") and "returns no ConfigDict but str" in done.stderr
