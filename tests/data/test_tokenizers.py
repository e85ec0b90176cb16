"""Tokenizers give every text back, know how many bytes a token stands for, and refuse what they do not know."""

from unittest import mock

import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from lrnn_jax.data import tokenizers
from lrnn_jax.data.tokenizers import UnknownText, byte_counts, byte_tokenizer, check_tokenizer, load_tokenizer, train_bpe
from lrnn_jax.errors import UserError

TEXTS = ["def f(x):\n    return x\n", "the other thing and the other one\n", "naïve é 日本"] * 20
TRAINED = train_bpe(TEXTS, 290)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), TRAINED], ids=["bytes", "bpe"])
@given(text=st.text())
def test_decoding_gives_the_text_back(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens.tolist()) == text.encode()
    assert sum(byte_counts(tokenizer)[token] for token in tokens) == len(text.encode())
    assert all(token != tokenizer.start for token in tokens)


def test_bytes_are_themselves():
    assert byte_tokenizer().encode("aé\n").tolist() == [0x61, 0xC3, 0xA9, 0x0A]
    assert (byte_tokenizer().size, byte_tokenizer().start) == (257, 256)


def test_training_is_deterministic_and_makes_longer_tokens():
    again = train_bpe(iter(TEXTS), 290)
    assert (again.pieces, again.file) == (TRAINED.pieces, TRAINED.file)
    assert TRAINED.size == 290
    assert b" other" in TRAINED.pieces
    assert len(set(TRAINED.pieces)) == 290
    assert len(TRAINED.encode(TEXTS[1])) < 0.5 * len(TEXTS[1])


def test_a_trained_tokenizer_is_the_same_when_it_is_loaded(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(TRAINED.file)
    assert load_tokenizer(str(file), field="task.tokenizer") == TRAINED


def test_what_would_cut_pad_or_roll_dice_is_switched_off_and_said(tmp_path, caplog):
    own = library.Tokenizer.from_str(TRAINED.file)
    own.enable_truncation(4)
    own.enable_padding(length=64)
    own.model.dropout = 0.5
    own.save(str(tmp_path / "trained.json"))
    tokenizer = load_tokenizer(str(tmp_path / "trained.json"), field="task.tokenizer")
    assert tokenizer == TRAINED
    (record,) = caplog.records
    for part in ("task.tokenizer=", "trained.json", "truncation, padding, dropout"):
        assert part in record.getMessage()
    texts = [tokenizer.encode(TEXTS[1]).tolist() for _ in range(5)]
    assert texts == [TRAINED.encode(TEXTS[1]).tolist()] * 5 and len(texts[0]) > 4


PIECES = st.sampled_from(["def f(x)", " ", "  ", "\n", "\n\n", "foo's", "é日本 ", "123", " bar,\n", "x =  3.\n", "\t", "…\n"])


@given(pieces=st.lists(PIECES, max_size=60), least=st.integers(1, 40))
def test_a_text_in_parts_has_the_tokens_of_the_whole(pieces, least):
    text = "".join(pieces)
    whole = [tokenizer.encode(text).tolist() for tokenizer in (TRAINED, byte_tokenizer())]
    with mock.patch.object(tokenizers, "_PART", least):
        assert [tokenizer.encode(text).tolist() for tokenizer in (TRAINED, byte_tokenizer())] == whole


def test_training_on_parts_is_training_on_the_whole():
    with mock.patch.object(tokenizers, "_PART", 10):
        assert train_bpe(["".join(TEXTS)], 290) == train_bpe(TEXTS, 290)


def test_a_tokenizer_that_looks_at_the_whole_text_is_given_it(tmp_path):
    own = library.Tokenizer(library.models.BPE({"a": 0, "\u2581": 1, "a\u2581": 2}, [("a", "\u2581")]))
    own.normalizer = library.normalizers.Replace(" ", "\u2581")
    own.decoder = library.decoders.Replace("\u2581", " ")
    own.save(str(tmp_path / "whole.json"))
    tokenizer = load_tokenizer(str(tmp_path / "whole.json"), field="task.tokenizer")
    with mock.patch.object(tokenizers, "_PART", 3):
        assert tokenizer.encode("a a a a a a").tolist() == [2, 2, 2, 2, 2, 0]


def test_a_tokenizer_with_a_space_mark_and_names_for_bytes(tmp_path):
    """As SentencePiece's tokenizers are written."""
    vocabulary = {"<unk>": 0, **{f"<0x{i:02X}>": i + 1 for i in range(256)}, "\u2581": 257, "a": 258, "\u2581a": 259}
    own = library.Tokenizer(library.models.BPE(vocabulary, [("\u2581", "a")], unk_token="<unk>", byte_fallback=True))
    own.normalizer = library.normalizers.Replace(" ", "\u2581")
    own.decoder = library.decoders.Sequence([library.decoders.Replace("\u2581", " "), library.decoders.ByteFallback()])
    own.save(str(tmp_path / "x.json"))
    tokenizer = load_tokenizer(str(tmp_path / "x.json"), field="task.tokenizer")
    tokens = tokenizer.encode("a aé")
    assert tokens.tolist() == [258, 259, 0xC3 + 1, 0xA9 + 1]
    assert [byte_counts(tokenizer)[token] for token in tokens] == [1, 2, 1, 1]


def test_a_tokenizer_that_does_not_know_a_character_says_which(tmp_path):
    own = library.Tokenizer(library.models.WordLevel({"?": 0, "one": 1, "two": 2, " ": 3}, unk_token="?"))
    own.pre_tokenizer = library.pre_tokenizers.Split(" ", "isolated")
    own.save(str(tmp_path / "words.json"))
    tokenizer = load_tokenizer(str(tmp_path / "words.json"), field="task.tokenizer")
    assert tokenizer.encode("two one").tolist() == [2, 3, 1]
    with pytest.raises(UnknownText, match="'t' at character 4"):
        tokenizer.encode("two three")


def test_half_a_character_is_no_text():
    with pytest.raises(UnknownText, match="at character 1 is no text"):
        byte_tokenizer().encode("a\udcff")


@pytest.mark.parametrize("spec", ["", "bpe:", "bpe:x", "bpe:257", "bpe:-3", "bpe:1e4", "bpe:9999999"])
def test_names_that_cannot_be_a_tokenizer(spec):
    with pytest.raises(UserError, match=r"task\.tokenizer=.*must be"):
        check_tokenizer(spec, field="task.tokenizer")


@pytest.mark.parametrize("spec", ["bytes", "bpe:258", "bpe:32000", "some/file.json"])
def test_names_that_can(spec):
    check_tokenizer(spec, field="task.tokenizer")


def test_files_that_are_no_tokenizer(tmp_path):
    with pytest.raises(UserError, match="cannot read that file"):
        load_tokenizer(str(tmp_path / "none.json"), field="task.tokenizer")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer file") as caught:
        load_tokenizer(str(tmp_path / "broken.json"), field="task.tokenizer")
    assert "\n" not in str(caught.value)
