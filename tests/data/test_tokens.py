"""Token ids: the tokenizer's own, cut where we say, made once and mapped from then on."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from genre_lightning.data import tokens
from genre_lightning.data.tokenizers import load_tokenizer, train_wordpiece
from genre_lightning.data.tokens import encode, tokenise, tokenizer_digest
from genre_lightning.errors import ConfigError

WORDS = "a man walks home and finds the old war film under his bed while it rains".split()  # noqa: SIM905


def made_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(count)]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    cache = tmp_path_factory.mktemp("tokenizers")
    return train_wordpiece(made_texts(200), vocab_size=120, max_tokens=32, cache_dir=cache, content="x")


def test_ids_are_the_tokenizers_own(wordpiece, tmp_path):
    texts = [*made_texts(40), "", "Ünknown 字 words"]
    store = tokenise(texts, wordpiece, max_tokens=16, cache_dir=tmp_path, content="c")
    assert len(store) == len(texts)
    for place, text in enumerate(texts):
        own = wordpiece(text)["input_ids"]
        ids = store[place].tolist()
        assert ids == (own if len(own) <= 16 else [*own[:15], own[-1]])
        assert store.lengths[place] == len(ids)
    assert store.lengths.dtype == np.int32
    assert store.lengths.max() == 16


def test_several_record_batches(wordpiece, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "_BATCH_TEXTS", 7)
    texts = made_texts(40)
    told = []
    store = tokenise(texts, wordpiece, max_tokens=16, cache_dir=tmp_path, content="c", progress=told.append)
    assert told == [7] * 5 + [5]
    expected = encode(texts, wordpiece, 16)
    assert [store[place].tolist() for place in range(40)] == expected
    assert store.lengths.tolist() == list(map(len, expected))


def test_the_second_call_does_not_tokenise(wordpiece, tmp_path, monkeypatch):
    calls = []

    def counted(texts, *rest):
        calls.append(len(texts))
        return encode(texts, *rest)

    monkeypatch.setattr(tokens, "encode", counted)
    texts = made_texts(30)
    options = {"max_tokens": 16, "cache_dir": tmp_path, "content": "c"}
    first = tokenise(texts, wordpiece, **options)
    again = tokenise([], wordpiece, **options)  # the texts are not even looked at
    assert calls == [30]
    assert [again[n].tolist() for n in range(30)] == [first[n].tolist() for n in range(30)]
    tokenise(texts, wordpiece, **{**options, "max_tokens": 8})
    tokenise(texts, wordpiece, **{**options, "content": "d"})
    assert calls == [30, 30, 30]
    file = next((tmp_path / "tokens").rglob("tokens.arrow"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    for name, value in (("max_tokens", 16), ("max_tokens", 8), ("content", "d")):
        tokenise(texts, wordpiece, **{**options, name: value})
    assert calls == [30] * 4  # the damaged one is made again


def test_the_digest_is_of_what_decides_the_output(wordpiece, tmp_path):
    before = tokenizer_digest(wordpiece)
    wordpiece(["a man"], truncation=True, max_length=3, padding=True)
    assert tokenizer_digest(wordpiece) == before
    other = train_wordpiece(made_texts(50, 9), vocab_size=80, max_tokens=32, cache_dir=tmp_path, content="y")
    assert tokenizer_digest(other) != before
    other.truncation_side = "left"
    side = tokenizer_digest(other)
    other.truncation_side = "right"
    assert tokenizer_digest(other) != side


def test_a_vocabulary_is_trained_once(tmp_path, monkeypatch):
    options = {"vocab_size": 100, "max_tokens": 24, "cache_dir": tmp_path, "content": "x"}
    first = train_wordpiece(made_texts(100), **options)
    monkeypatch.setattr("genre_lightning.data.tokenizers._trained", None)
    again = train_wordpiece(iter(()), **options)
    assert again.get_vocab() == first.get_vocab()
    assert len(first) <= 100
    ids = first("A MAN walks")["input_ids"]
    assert first.convert_ids_to_tokens(ids)[0] == "[CLS]"
    assert first.convert_ids_to_tokens(ids)[-1] == "[SEP]"
    assert first.decode(ids, skip_special_tokens=True) == "a man walks"
    assert (first.pad_token_id, first.model_max_length) == (0, 24)


def test_a_text_without_tokens_still_has_one():
    words = Tokenizer(models.WordLevel({"a": 5, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert encode(["a a", ""], PreTrainedTokenizerFast(tokenizer_object=words), 9) == [[5, 5], [0]]


def test_a_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer could be loaded") as caught:
        load_tokenizer(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


@pytest.mark.real_model
def test_the_truncation_and_padding_of_a_file_are_overruled(encoder_dir, tmp_path):
    tokenizer = load_tokenizer(str(encoder_dir))
    texts = ["film " * 300, "A short film.", "word " * 150]
    store = tokenise(texts, tokenizer, max_tokens=200, cache_dir=tmp_path, content="c")
    assert store.lengths.tolist() == [200, 6, 152]  # its own file cuts at 128 and pads to it
    backend = load_tokenizer(str(encoder_dir)).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    for place in (1, 2):
        assert store[place].tolist() == backend.encode(texts[place]).ids


def test_a_vocabulary_is_the_same_however_often_it_is_trained(tmp_path):
    options = {"vocab_size": 150, "max_tokens": 32, "content": "x"}
    trained = [train_wordpiece(made_texts(20), cache_dir=tmp_path / str(time), **options) for time in range(4)]
    assert len({tokenizer_digest(tokenizer) for tokenizer in trained}) == 1
    known = {str(token) for token in trained[0].added_tokens_decoder.values()}
    assert known == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
