"""Zero-shot: a shared film gives what each question gives alone."""

import numpy as np
import pytest
import torch
from small_llama import labelling, padded, save_causal, tokenizer
from torch.testing import assert_close

from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.errors import ConfigError
from genre_lightning.models.zero_shot import ZeroShotLlama, continuation, first_tokens

FILMS = ("A girl finds a dog.", "War.", "Two men rob a bank and run from the law, and each other, for years.")
GENRES = ("Drama", "Science Fiction", "War")
CHAT = "<s>[INST] {{ messages[0]['content'] }} [/INST]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("causal"))


def build(folder, known=None, **options):
    model = ZeroShotLlama(backbone=str(folder), **{"quantization": "none", **options})
    model.check(128)
    known = known or load_tokenizer(str(folder))
    model.bind(labelling(genres=GENRES, vocab_size=len(known), tokenizer=known, max_tokens=128))
    model.configure_model()
    return model.eval()


def batch_of(films, known):
    return padded([np.array(known(film)["input_ids"], dtype=np.int32) for film in films])


@torch.no_grad()
def alone(model, known):
    """Each question in a prompt of its own, through transformers' own attention, without a cache."""
    asked = model.questions
    plain = model.backbone
    rows = []
    for film in FILMS:
        row = []
        for genre in range(len(GENRES)):
            tail = asked.tokens[asked.question == genre]
            whole = torch.cat([asked.head, torch.tensor(known(film)["input_ids"][1:]), tail])
            logits = plain(input_ids=whole[None], use_cache=False).logits[0, -1].float()
            probabilities = logits.softmax(-1)
            row.append(probabilities[asked.yes].sum().log() - probabilities[asked.no].sum().log())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("chat", [False, True])
def test_shared_film_equals_each_question_alone(folder, quantization, chat):
    known = load_tokenizer(str(folder))
    known.chat_template = CHAT if chat else None
    model = build(folder, known, quantization=quantization)
    with torch.no_grad():
        shared = model(batch_of(FILMS, known))
    plain = alone(model, known)
    # int8 matmuls round each batch by its own outliers
    tolerance = 0.05 if quantization == "int8" else 1e-4
    assert_close(shared, plain, rtol=tolerance, atol=tolerance)
    assert shared.std() > 0.01


def test_against_the_plain_model_of_transformers(folder):
    from transformers import AutoModelForCausalLM

    known = load_tokenizer(str(folder))
    model = build(folder, known)
    with torch.no_grad():
        shared = model(batch_of(FILMS, known))
    model.backbone = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert_close(shared, alone(model, known), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 400, 100_000])
def test_the_size_of_a_batch_changes_nothing(folder, batch_tokens):
    known = load_tokenizer(str(folder))
    model = build(folder, known, batch_tokens=batch_tokens)
    with torch.no_grad():
        together = model(batch_of(FILMS, known))
        apart = torch.cat([model(batch_of([film], known)) for film in FILMS])
    assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_the_prompt_reads_as_it_is_written(folder):
    known = load_tokenizer(str(folder))
    model = build(folder, known, prompt="Film: {text}\nIs it {genre}?")
    asked = model.questions
    film = known(FILMS[0])["input_ids"][1:]
    whole = [*asked.head.tolist(), *film, *asked.tokens[asked.question == 1].tolist()]
    assert known.decode(whole) == "<s> Film:  A girl finds a dog.\nIs it Science Fiction?"
    assert {known.convert_ids_to_tokens(int(t)) for t in asked.yes} == {"y", "Y", "▁y", "▁Y"}
    assert {known.convert_ids_to_tokens(int(t)) for t in asked.no} == {"n", "N", "▁n", "▁N"}


def test_continuation_adds_no_space():
    known = tokenizer()
    assert known.convert_ids_to_tokens(continuation(known, "\nab")) == ["<0x0A>", "a", "b"]
    assert first_tokens(known, ":", ["yes"]) == set(known.convert_tokens_to_ids(["y", "▁y"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{text}"}, "{genre} 0 times"),
        ({"prompt": "{genre} {text}"}, "put it after"),
        ({"prompt": "{text} {text} {genre}"}, "{text} 2 times"),
        ({"yes": []}, "model.yes"),
        ({"batch_tokens": 0}, "batch_tokens"),
    ],
    ids=str,
)
def test_bad_prompts_are_named_before_any_work(options, message):
    with pytest.raises(ConfigError) as error:
        ZeroShotLlama(backbone="random", **options).check(64)
    assert message in str(error.value)


def test_what_only_the_tokenizer_shows_is_named_before_weights_load(folder, tmp_path):
    with pytest.raises(ConfigError, match="start with the same token"):
        build(folder, yes=["never"], no=["nope"])
    with pytest.raises(ConfigError, match="no chat format"):
        build(folder, chat=True)
    save_causal(tmp_path, positions=150)
    with pytest.raises(ConfigError, match=r"set data\.max_tokens="):
        build(tmp_path)


def test_nothing_is_trained_or_kept(folder):
    model = build(folder, quantization="nf4")
    assert not any(p.requires_grad for p in model.parameters())
    assert model.trained_names() == set()
    kinds = {name: type(p).__name__ for name, p in model.named_parameters()}
    assert kinds["backbone.lm_head.weight"] == "Parameter"
    assert sum(kind == "Params4bit" for kind in kinds.values()) == 14


@pytest.mark.real_model
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_real_small_llama(llama_tiny, quantization):
    known = load_tokenizer(str(llama_tiny))
    model = build(llama_tiny, known, quantization=quantization)
    with torch.no_grad():
        assert_close(model(batch_of(FILMS, known)), alone(model, known), rtol=1e-3, atol=1e-3)
