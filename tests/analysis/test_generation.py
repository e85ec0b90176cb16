"""Generation: the same as the full forward, repeatable by seed, and nothing beside what sampling allows."""

import contextlib
import gzip
import io
import json
import math
import random
import runpy
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrnn_jax.analysis.generation import LanguageModel, Sampling, choose, generate, load_language_model
from lrnn_jax.cli.main import main
from lrnn_jax.config.files import load_own_config
from lrnn_jax.data.tokenizers import UnknownText, byte_tokenizer
from lrnn_jax.errors import UserError
from lrnn_jax.layers.diagonal import Diagonal
from lrnn_jax.registry import build_model, build_task
from lrnn_jax.training.loop import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_with_gzip.py"
PROMPT = "def ü("


def untrained(layer, scale=3.0):
    """A model with random weights, large enough for sharp and varied answers; the opening token is never the likeliest."""
    config = load_own_config(f"configs/language_modeling.py:{layer},smoke")
    task = build_task(config.task)
    model = build_model(config.model, task)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
    variables = jax.tree.map(lambda x: scale * x, variables)
    variables["params"]["head"]["bias"] = jnp.zeros(257).at[256].set(-1e9)
    return LanguageModel(byte_tokenizer(), model, variables, task)


@pytest.fixture(scope="module", params=["deltanet", "lstm", "mamba"])
def language(request):
    return untrained(request.param)


@pytest.fixture(scope="module")
def one():
    return untrained("diagonal")


def sample(language, prompt=PROMPT, tokens=20, **how):
    return list(generate(language, prompt, tokens=tokens, sampling=Sampling(**how)))


def test_greedy_is_the_argmax_of_the_full_forward_at_every_step(language):
    drawn = sample(language, temperature=0.0)
    tokens = jnp.asarray([[256, *PROMPT.encode(), *drawn]])
    logits, _ = language.model.apply(language.variables, tokens)
    assert len(set(drawn)) > 1
    assert drawn == jnp.argmax(logits[0], axis=-1)[len(PROMPT.encode()) : -1].tolist()


def test_the_same_seed_the_same_text(one):
    assert sample(one, seed=3) == sample(one, seed=3) != sample(one, seed=4)


def test_more_positions_than_the_model_has_are_refused(one):
    short = one._replace(model=one.model.clone(max_length=10))
    assert sample(short, tokens=3, seed=1) == sample(one, tokens=3, seed=1)
    with pytest.raises(UserError, match=r"the prompt and 4 tokens are 11 positions.*max_length=10"):
        sample(short, tokens=4)


def test_the_likeliest_alone_is_greedy(one):
    greedy = sample(one, temperature=0.0)
    assert sample(one, top_k=1, seed=5) == greedy
    assert sample(one, top_p=1e-9, seed=5) == greedy
    assert sample(one, temperature=1e-4, seed=5) == greedy
    assert sample(one, seed=5) != greedy


def test_fewer_tokens_are_the_beginning_of_more(one):
    assert sample(one, tokens=20, seed=1)[:7] == sample(one, tokens=7, seed=1)


def test_the_end_of_a_document_ends_the_text(one):
    params = {**one.variables["params"]}
    params["head"] = {**params["head"], "bias": jnp.zeros(257).at[256].set(1e9)}
    assert sample(one._replace(variables={**one.variables, "params": params})) == []


def test_a_prompt_that_is_no_text_is_refused(one):
    with pytest.raises(UnknownText, match="at character 1"):
        sample(one, prompt="a\udc80")


LOGITS = np.log([0.1, 0.4, 0.2, 0.3])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        # 4/7 and 3/7 once two are left
        ({"top_k": 2, "top_p": 0.5}, [0, 1, 0, 0]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(how, expected):
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    drawn = jax.vmap(lambda key: choose(jnp.asarray(LOGITS, jnp.float32), key, Sampling(**how)))(keys)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / count, expected, atol=5 * math.sqrt(0.25 / count))


# --- the command, and the comparison with gzip ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    moment = random.Random(0)
    rows = ["".join(moment.choice("abc") for _ in range(moment.randint(20, 60))) for _ in range(300)]
    rows.append("ü" * 1500)
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    config = load_own_config("configs/language_modeling.py:diagonal,smoke").unlock()
    fields = {"task.data": str(folder / "text.jsonl"), "train.length": [16, 16], "eval.lengths": [[16, 16]]}
    fields |= {"eval.headline": [16, 16], "eval.examples": 8, "eval.batch_size": 8, "model.width": 8}
    config.update_from_flattened_dict(fields)
    train(config.lock(), folder / "run")
    (folder / "text.jsonl").rename(folder / "away.jsonl")
    return folder / "run"


def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(words))
    return code, out.getvalue(), err.getvalue()


def test_a_layer_that_reads_both_ways_writes_nothing(run, monkeypatch):
    monkeypatch.setattr(Diagonal, "CAUSAL", False)
    with pytest.raises(UserError, match="Diagonal reads to both sides, and LanguageModeling has the answer among the inputs"):
        load_language_model(run, which="last")


def test_the_command_needs_no_data_and_prints_whole_characters(run, tmp_path):
    flags = ["generate", f"--workdir={run}", "--tokens=40", "--seed=2"]
    code, out, err = call(*flags, "--prompt=abc")
    assert (code, err) == (0, "")
    tokens = sample(load_language_model(run, which="last"), "abc", tokens=40, seed=2)
    assert out == bytes(tokens).decode(errors="replace") + "\n"
    (tmp_path / "prompt").write_text("abc")
    assert call(*flags, f"--prompt_file={tmp_path / 'prompt'}")[1] == out
    assert call(*flags, "--prompt=abc", "--checkpoint=best")[0] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt=a\udcff"], "--prompt='a\\udcff': '\\udcff' at character 1"),
        (["--prompt=a", "--prompt_file=b"], "exclude each other"),
        (["--prompt_file=/nowhere"], "--prompt_file=/nowhere: cannot read it"),
        (["--tokens=0"], "--tokens"),
        (["--temperature=-1"], "--temperature"),
        (["--temperature=nan"], "--temperature=nan must be a finite number"),
        (["--temperature=inf"], "--temperature=inf must be a finite number"),
        (["--top_p=1.5"], "--top_p"),
        (["--top_p=nan"], "--top_p=nan must be a finite number"),
        (["--top_k=-1"], "--top_k"),
    ],
)
def test_flags_that_cannot_be(run, flags, said):
    code, out, err = call("generate", f"--workdir={run}", *flags)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert said in err


def test_a_folder_without_a_language_model(run, tmp_path):
    assert "needs --workdir" in call("generate")[2]
    assert "is not a run" in call("generate", f"--workdir={tmp_path}")[2]
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "no checkpoint yet" in call("generate", f"--workdir={tmp_path}")[2]
    config["task"] = {"name": "parity"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "no language model" in call("generate", f"--workdir={tmp_path}")[2]


def test_bits_of_files_are_those_of_the_full_forward(run):
    language = load_language_model(run, which="last")
    documents = [np.array([256, *text.encode()]) for text in ("abcab", "c", "ü" * 700)]
    bits = runpy.run_path(str(SCRIPT))["count_bits"](language, documents)
    for document, found in zip(documents, bits, strict=True):
        logits, _ = language.model.apply(language.variables, jnp.asarray(document[None], jnp.int32))
        log_p = jax.nn.log_softmax(np.asarray(logits[0], np.float64).astype(np.float32))
        targets = [*document[1:], 256]
        expected = -sum(float(log_p[i, target]) for i, target in enumerate(targets)) / math.log(2.0)
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_table_names_every_held_out_file(run, monkeypatch, capsys):
    data = run.parent / "text.jsonl"
    (run.parent / "away.jsonl").rename(data)
    monkeypatch.setattr(sys, "argv", ["compare_with_gzip.py", str(run)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    out = capsys.readouterr().out.splitlines()
    corpus = load_language_model(run, which="last").task.corpus()
    names = corpus.names("test")
    assert len(out) == len(names) + 3 and [line.split()[0] for line in out[1:-2]] == names
    texts = [corpus.tokenizer.decode(corpus.document("test", i)[1:].tolist()) for i in range(len(names))]
    total = sum(8 * len(gzip.compress(text, 9, mtime=0)) for text in texts) / sum(map(len, texts))
    assert float(out[-2].split()[-1]) == pytest.approx(total, abs=1e-3)
    model = float(out[-2].split()[-2])
    assert ended.value.code == int(model >= total)
    data.rename(run.parent / "away.jsonl")


def test_an_exported_model_writes_the_same_text_and_takes_its_tokenizer_along(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    flags = ["generate", "--tokens=20", "--seed=2", "--prompt=abc"]
    assert call("export", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}")[0] == 0
    assert call(*flags, f"--workdir={tmp_path / 'out'}") == call(*flags, f"--workdir={run}")
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    assert call("export", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'with'}")[0] == 0
    assert sorted(path.name for path in (tmp_path / "with").iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
