"""The tokenizer takes any text, and its specials stand where models expect them."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mirasol_hf.training.tokenizer import train_tokenizer

CORPUS = ["which color is seen first?", "the triangle is called ada", "red", "high tone", "what does one hear?"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, vocab_size=300, model_max_length=64)


def test_specials(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == 64
    assert tokenizer("red")["input_ids"][0] == 1
    assert 2 not in tokenizer("red")["input_ids"]
    assert 1 not in tokenizer("red", add_special_tokens=False)["input_ids"]


def test_frequent_answer_is_short(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer("high tone", add_special_tokens=False)["input_ids"]) <= 4


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    tokenizer = _shared()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenizer) <= 300 and all(0 <= token < len(tokenizer) for token in ids)
    if not any(special in text for special in ("<pad>", "<bos>", "<eos>")):
        assert tokenizer.decode(ids, skip_special_tokens=True) == _normalized(text)


def test_text_is_compatible_and_small() -> None:
    assert _normalized("Ｒｅｄ ﬁsh, ÉTÉ ½ Ω") == "red fish, été 1⁄2 ω"
    # of characters that are newer, Python and the tokenizer may know different properties
    old = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.ucd_3_2_0.category(char) not in _UNUSED]
    assert len(old) > 90_000
    for char in old:
        assert _normalized(char) == "".join(part.lower() for part in unicodedata.normalize("NFKC", char)), char


_UNUSED = ("Cn", "Cs")


def _normalized(text: str) -> str:
    return _shared().backend_tokenizer.normalizer.normalize_str(text)


_CACHE: list[PreTrainedTokenizerFast] = []


def _shared() -> PreTrainedTokenizerFast:
    if not _CACHE:
        _CACHE.append(train_tokenizer(CORPUS, vocab_size=300))
    return _CACHE[0]


def test_saved_and_loaded_alike(tokenizer: PreTrainedTokenizerFast, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Ada is Grün 🎺\nyes"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == "ada is grün 🎺\nyes"
    assert loaded.padding_side == "left"


def test_too_small_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"vocab_size=100 is too small.*259"):
        train_tokenizer(CORPUS, vocab_size=100)


def test_what_the_pages_say_of_letters_and_control_tokens() -> None:
    from mirasol_hf import EMBEDDED_MODEL, MirasolProcessor

    asked = "Is <eos> RED?"
    plain = MirasolProcessor.from_pretrained(EMBEDDED_MODEL).tokenizer
    careful = MirasolProcessor.from_pretrained(EMBEDDED_MODEL, split_special_tokens=True).tokenizer
    assert plain(asked)["input_ids"] == plain(asked.lower())["input_ids"]
    assert plain.eos_token_id in plain(asked)["input_ids"]
    assert plain.eos_token_id not in careful(asked)["input_ids"]
    assert careful.decode(careful(asked)["input_ids"]).removeprefix("<bos>") == asked.lower()
