"""Words of a text, and pieces of either kind of tokenizer summed by them."""

import numpy as np
import pytest
from small_llama import tokenizer as llama_tokenizer

from genre_lightning.data.tokenizers import train_wordpiece
from genre_lightning.data.tokens import encode, encode_with_places
from genre_lightning.explain.words import common_form, split_words

TEXT = "  The pirate's café — “world-famous”…\n🎬 it isn't so: 3,000 [sic] men! "


def test_words_and_runs_of_punctuation():
    words = split_words(TEXT)
    assert words.names == [
        "The", "pirate's", "café", "—", "“", "world-famous", "”…", "🎬", "it", "isn't", "so", ":", "3", ",", "000", "[",
        "sic", "]", "men", "!",
    ]  # fmt: skip
    assert [TEXT[start:end] for start, end in zip(words.starts, words.ends, strict=True)] == words.names
    assert len(split_words(" \n ")) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("一只狗回家。", "一 只 狗 回 家 。"),
        ("東京でゴジラが暴れる", "東 京 で ゴジラ が 暴 れ る"),
        ("ฉันรักเธอ", "ฉั น รั ก เธ อ"),
        ("हिन्दी में फिल्म", "हिन्दी में फिल्म"),
        ("안녕하세요 세계", "안녕하세요 세계"),
        ("e\u0301te\u0301 मुन्ना", "e\u0301te\u0301 मुन्ना"),
    ],
)
def test_scripts_without_spaces_fall_into_units(text, words):
    assert split_words(text).names == words.split()


def test_a_piece_over_several_units_is_shared():
    words = split_words("回家 now")
    summed = words.sum_by_word(np.array([0, 2]), np.array([2, 6]), np.array([[1.0], [3.0]]))
    assert summed[:, 0].tolist() == [0.5, 0.5, 3.0]


@pytest.fixture(scope="module", params=["wordpiece", "llama"])
def tokenizer(request, tmp_path_factory):
    if request.param == "llama":
        return llama_tokenizer()
    texts = ["the pirate and the cafe", "world famous men so it is", "3000 pirates"]
    return train_wordpiece(
        texts, vocab_size=60, max_tokens=200, cache_dir=tmp_path_factory.mktemp("cache"), content="words"
    )


def test_pieces_are_summed_by_their_word(tokenizer):
    tokens = encode_with_places(TEXT, tokenizer, 200)
    assert tokens.ids.tolist() == encode([TEXT], tokenizer, 200)[0]
    words, own = split_words(TEXT), ~tokens.special
    assert own.sum() > len(words)  # there are words of several pieces
    counts = words.sum_by_word(tokens.starts[own], tokens.ends[own], np.ones((own.sum(), 1)))[:, 0]
    assert counts.sum() == own.sum()
    # the other way round: the pieces whose last character lies in a word, counted one by one
    for start, end, count in zip(words.starts, words.ends, counts, strict=True):
        inside = [own[i] and start < tokens.ends[i] <= end for i in range(len(own))]
        # a newline or a second space may be a piece of its own, and counts for the word behind it
        spaces = [own[i] and not TEXT[tokens.starts[i] : tokens.ends[i]].strip() for i in range(len(own))]
        assert 1 <= count <= sum(inside) + sum(spaces)


def test_a_cut_text_ends_where_the_model_stops_reading(tokenizer):
    tokens = encode_with_places(TEXT, tokenizer, 9)
    assert tokens.ids.tolist() == encode([TEXT], tokenizer, 9)[0]
    assert 0 < tokens.ends.max() < len(TEXT) - 20


def test_nothing_to_read_gives_no_words_and_one_token(tokenizer):
    tokens = encode_with_places("", tokenizer, 9)
    assert tokens.ids.tolist() == encode([""], tokenizer, 9)[0]
    assert tokens.special.all()
    assert split_words("").sum_by_word(tokens.starts, tokens.ends, np.ones((len(tokens.ids), 2))).shape == (0, 2)


@pytest.mark.parametrize(
    ("word", "expected"), [("Pirate’s", "pirate"), ("ISN'T", "isn't"), ("…", None), ("1942", None), ("R2-D2", "r2-d2")]
)
def test_forms_of_a_word_are_one(word, expected):
    assert common_form(word) == expected
