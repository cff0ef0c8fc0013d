"""Tokenizers from elsewhere: damaged files, vocabularies that do not fit the backbone, classes and chat formats."""

import json

import numpy as np
import pytest
import torch
from small_llama import labelling as llama_labelling
from small_llama import save_causal
from small_llama import tokenizer as llama_tokenizer
from tokenizers import processors
from transformers import BertConfig, BertModel
from word_pieces import LETTERS, SPECIAL, WORDS, word_pieces

from genre_lightning.__main__ import main
from genre_lightning.commands.fit import fit
from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.data.tokens import encode, encode_with_places
from genre_lightning.errors import ConfigError
from genre_lightning.models import chat_format, chat_renderer
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.llama_qlora import LlamaQLoraClassifier
from genre_lightning.models.zero_shot import ZeroShotLlama
from genre_lightning.vocabulary import vocabulary_size


def save_bert(place):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    return place


@pytest.fixture
def folder(tmp_path):
    """A BERT and its tokenizer."""
    word_pieces().save_pretrained(save_bert(tmp_path / "bert"))
    return tmp_path / "bert"


def not_loaded(place, *words):
    with pytest.raises(ConfigError) as error:
        load_tokenizer(str(place))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def change(file, **values):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))


def test_the_tokenizers_here_are_loaded(folder):
    known = load_tokenizer(str(folder))
    assert vocabulary_size(known) == len(WORDS) == len(known)


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "roberta", "electra", "mpnet", "xlm-roberta", "modernbert", "llama", "qwen2", "gpt2"]
)
def test_a_folder_without_tokenizer_files(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    not_loaded(tmp_path, "tokenizer")


def test_a_vocabulary_of_special_tokens_alone(folder):
    word_pieces(SPECIAL).save_pretrained(folder)
    not_loaded(folder, "has no vocabulary", "copy the tokenizer's files")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"[" * 100_000], ids=["empty", "bytes", "list", "deep"])
def test_damaged_files(folder, file, content):
    (folder / file).write_bytes(content)
    not_loaded(folder, str(folder))


@pytest.mark.parametrize("content", [b"", b"\0junk" * 99, b"PK\3\4", b"\xff" * 1000])
def test_damaged_tokenizer_model(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    not_loaded(tmp_path, str(tmp_path))


def test_damaged_parts_of_tokenizer_json(folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    for name in ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor"):
        for value in (5, {"type": "NoSuch"}, [{"id": -1}]):
            (folder / "tokenizer.json").write_text(json.dumps({**whole, name: value}))
            not_loaded(folder, "no tokenizer could be loaded")


@pytest.mark.parametrize(
    "name", ["AutoModel", "AutoModelForCausalLM", "pipeline", "Trainer", "RagRetriever", "os.system", 5, ["x"], "a b"]
)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_a_class_that_is_not_a_tokenizer(folder, monkeypatch, file, name):
    """transformers takes the name for any of its classes, and calls what that loads from the folder."""
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda *arguments, **options: pytest.fail("it was loaded")
    )
    change(folder / "tokenizer_config.json", tokenizer_class=None)
    change(folder / file, tokenizer_class=name)
    not_loaded(folder, file, f"tokenizer_class {name!r}", "not a tokenizer of transformers")


def test_code_beside_a_tokenizer_is_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (folder / "stranger.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Model: pass\n")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["stranger.Model", "stranger.Model"]})
    for kind in ("bert", "no_such"):
        change(folder / "config.json", model_type=kind, auto_map={"AutoConfig": "stranger.Model"})
        try:
            load_tokenizer(str(folder))
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017  # either is right, as long as nothing runs
    assert not (tmp_path / "it ran").exists()


# Vocabularies and backbones


@pytest.mark.parametrize("kind", ["added", "post_processor", "gap"])
def test_ids_beyond_the_embeddings(folder, kind):
    known = word_pieces()
    if kind == "added":
        known.add_tokens(["detective", "spaceship"])
    elif kind == "post_processor":
        known.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 9_999)]
        )
    known.save_pretrained(folder)
    if kind == "gap":
        content = json.loads((folder / "tokenizer.json").read_text())
        content["model"]["vocab"]["zebra"] = 500
        (folder / "tokenizer.json").write_text(json.dumps(content))
    needed = {"added": len(WORDS) + 2, "post_processor": 10_000, "gap": 501}[kind]
    loaded = load_tokenizer(str(folder))
    assert vocabulary_size(loaded) == needed
    model = DistilBertClassifier(backbone=str(folder))
    with pytest.raises(ConfigError, match=f"the tokenizer has {needed:,} tokens and .* knows {len(WORDS)}: leave"):
        model.check_tokenizer(loaded)
    model.bind(llama_labelling(vocab_size=needed, max_tokens=24))
    with pytest.raises(ConfigError, match="resize_token_embeddings"):
        model.configure_model()


def test_ids_beyond_a_decoders_embeddings(tmp_path):
    place, known = save_causal(tmp_path), llama_tokenizer()
    known.add_tokens(["detective"])
    with pytest.raises(ConfigError, match="the tokenizer has"):
        LlamaQLoraClassifier(backbone=str(place), quantization="none").check_tokenizer(known)
    LlamaQLoraClassifier(backbone=str(place), quantization="none").check_tokenizer(llama_tokenizer())


def fit_words(tmp_path, place, csv, **options):
    settings = {
        "model.backbone": place, "data.csv": csv, "run_dir": tmp_path / "run", "data.max_tokens": 24,
        "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.max_epochs": 1, **options,
    }  # fmt: skip
    return ["fit", *(f"--{name}={value}" for name, value in settings.items())]


def refused(capfd, words):
    """Runs the command, which must end with status 2; gives its last line."""
    assert main([str(word) for word in words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("genre-lightning: ")
    return line


def lose_tokenizer(place):
    for file in place.glob("tokenizer*"):
        file.unlink()


def add_tokens(place):
    known = word_pieces()
    known.add_tokens(["detective"])
    known.save_pretrained(place)


def add_layers(place):
    change(place / "config.json", num_hidden_layers=3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lose_tokenizer, "has no vocabulary"),
        (add_tokens, "the tokenizer has 60 tokens"),
        (add_layers, "32 missing"),
        (lambda place: (place / "tokenizer.json").write_text("{"), "no tokenizer could be loaded"),
    ],
    ids=["no tokenizer", "added tokens", "missing layers", "damaged"],
)
def test_the_command_refuses_before_data_are_read(folder, tmp_path, sample_csv, capfd, monkeypatch, spoil, words):
    spoil(folder)
    monkeypatch.setattr(
        "genre_lightning.data.datamodule.MovieDataModule.prepare", lambda self: pytest.fail("the data were read")
    )
    assert words in refused(capfd, fit_words(tmp_path, folder, sample_csv))
    assert not (tmp_path / "run").exists()


def test_a_foreign_tokenizer_is_reported(folder, tmp_path, sample_csv, capfd, monkeypatch):
    other = tmp_path / "other"
    word_pieces([*SPECIAL, *reversed(LETTERS), ".", ","]).save_pretrained(other)

    class StopError(Exception):
        pass

    def stop(self):
        raise StopError

    monkeypatch.setattr("genre_lightning.data.datamodule.MovieDataModule.prepare", stop)
    with pytest.raises(StopError):
        fit(fit_words(tmp_path, folder, sample_csv, **{"data.tokenizer": "wordpiece"})[1:])
    assert "a vocabulary that" in capfd.readouterr().err
    for name, reported in ((other, True), (folder, False)):
        with pytest.raises(StopError):
            fit(fit_words(tmp_path, folder, sample_csv, **{"data.tokenizer": name})[1:])
        assert ("numbers 52 of its 59 tokens differently" in capfd.readouterr().err) == reported


def test_texts_that_the_tokenizer_has_no_words_for(folder, tmp_path, capfd):
    letters = [chr(code) for code in range(ord("α"), ord("ω"))]
    words = np.random.default_rng(0).choice(letters, (80, 9, 6))
    plots = [" ".join("".join(word) for word in plot) for plot in words]
    rows = [f"{n},Ω{n},{plot},\"[{{'id': 1, 'name': '{'DW'[n % 2]}'}}]\"" for n, plot in enumerate(plots)]
    (tmp_path / "greek.csv").write_text("\n".join(["id,title,overview,genres", *rows]) + "\n", encoding="utf-8")
    line = refused(capfd, fit_words(tmp_path, folder, tmp_path / "greek.csv"))
    assert "of the texts' tokens are unknown to the tokenizer" in line
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "64"])
def test_weights_in_other_than_32_bits(folder, tmp_path, sample_csv, capfd, precision):
    line = refused(capfd, fit_words(tmp_path, folder, sample_csv, **{"trainer.precision": precision}))
    assert "set trainer.precision=" in line
    assert line.count("trainer.precision is") == 1
    assert not (tmp_path / "run").exists()


# Chat formats

CHAT = "<s>[INST] {{ messages[0]['content'] }} [/INST]"


def ask(place, template, **options):
    known = load_tokenizer(str(place))
    known.chat_template = template
    model = ZeroShotLlama(backbone=str(place), quantization="none", **options)
    model.check_tokenizer(known)
    return known


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_causal(tmp_path_factory.mktemp("llama"))


def test_a_chat_format_reads_as_transformers_renders_it(llama):
    known = ask(llama, CHAT + "{{ eos_token }}{% if add_generation_prompt %}A:{% endif %}")
    message = "Is {text} a {genre}?"
    expected = known.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    assert chat_format.render_chat(known, message) == expected == f"<s>[INST] {message} [/INST]</s>A:"


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def cannot_be_used(place, template, words):
    with pytest.raises(ConfigError) as error:
        ask(place, template)
    assert words in str(error.value)
    assert "set model.chat=false" in str(error.value)
    assert "\n" not in str(error.value)
    ask(place, template, chat=False)  # the fix that is named


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LOOP, "does not end within 1 s"),
        ("{{ 'a' * 10**11 }}", "too much memory"),
        ("{% for %}", "TemplateSyntaxError"),
    ],
    ids=["loop", "memory", "syntax"],
)
def test_a_chat_format_without_limits(llama, monkeypatch, template, words):
    monkeypatch.setattr(chat_format, "_CPU_SECONDS", 1)
    cannot_be_used(llama, template, words)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(99999) %}aaaaaaaaaaaaaaaa{% endfor %}", "characters of a short message"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ raise_exception('no\nsystem role') }}", "TemplateError: no system role"),
        ("a" * 300_000, "longer than 262,144 characters"),
        ({"tool_use": CHAT}, "no default"),
        ("nothing of it", "does not repeat model.prompt"),
        (CHAT * 2, "does not repeat model.prompt"),
    ],
    ids=range(8),
)
def test_a_chat_format_that_cannot_be_used(llama, monkeypatch, template, words):
    # rendered here, which saves the start of a process
    monkeypatch.setattr(chat_renderer, "limit", lambda **limits: None)
    monkeypatch.setattr(chat_format, "_answer_of_process", chat_renderer.answer)
    cannot_be_used(llama, template, words)


def test_a_chat_format_that_waits(llama, monkeypatch):
    monkeypatch.setattr(chat_format, "_WALL_SECONDS", 0.01)
    with pytest.raises(ConfigError, match="does not end"):
        ask(llama, CHAT + "never rendered before")


# Texts that a tokenizer makes huge, or never ends with

LONG = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
EVERYWHERE = {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "y" * 1000}
TOKEN = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("normalizer", {"type": "Sequence", "normalizers": [LONG] * 6}, "lengthen a text"),
        ("normalizer", EVERYWHERE, "lengthen a text"),
        ("normalizer", {"type": "Prepend", "prepend": "y" * 1000}, "lengthen a text"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 1000}, "more than 64"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 1000}, "more than 64"),
        (
            "post_processor",
            {"type": "TemplateProcessing", "single": [TOKEN] * 1000, "pair": [], "special_tokens": {}},
            "adds more than 64 tokens",
        ),
        (
            "post_processor",
            {
                "type": "TemplateProcessing",
                "single": [TOKEN, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2] * 1000, "tokens": ["[CLS]"] * 1000}},
            },
            "adds more than 64 tokens",
        ),
    ],
)
def test_a_text_that_grows_without_limit(folder, monkeypatch, part, value, words):
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda *arguments, **options: pytest.fail("it was loaded")
    )
    change(folder / "tokenizer.json", **{part: value})
    not_loaded(folder, "tokenizer.json is refused", words)


def test_a_pattern_that_backtracks_without_end(folder):
    endless = {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": "a"}
    change(folder / "tokenizer.json", normalizer=endless)
    known = load_tokenizer(str(folder))
    for read in (lambda text: encode([text], known, 16), lambda text: encode_with_places(text, known, 16)):
        with pytest.raises(ConfigError, match="fails on a text") as error:
            read("a" * 60 + "b")
        assert "\n" not in str(error.value)
