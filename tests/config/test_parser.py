"""A command line is read once, and what is wrong with it is reported before torch is loaded."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

from genre_lightning import models
from genre_lightning.cli import COMMANDS
from genre_lightning.commands.checked import parse_checked
from genre_lightning.config import parser as parser_module
from genre_lightning.config.guard import instantiate
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.parser import make_options, parse, parse_baseline, parse_model
from genre_lightning.config.trainer import TrainerOptions
from genre_lightning.config.words import for_parser, with_film_file
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.masked_language import MaskedLanguageModel
from genre_lightning.models.tfidf import TfidfNaiveBayes

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in ROOT.glob("configs/*.yaml") if "tfidf" not in path.stem)
CODE = """
import sys
from genre_lightning.__main__ import main
try:
    status = main(sys.argv[1:])
except SystemExit as leaving:
    status = leaving.code
heavy = [name for name in ("torch", "lightning", "transformers", "sklearn") if name in sys.modules]
print("loaded:", *heavy, "status:", status)
"""
HELP = tuple(COMMANDS)


def outcome(*words, code=CODE):
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.mark.parametrize("command", HELP)
def test_the_help_of_a_command_loads_no_library_that_computes(command):
    last, text = outcome(*command.split(), "--help")
    assert last == "loaded: status: 0"
    assert f"genre-lightning {command}" in text


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_the_help_of_a_training_does_without_numpy_and_rich(command):
    last, _ = outcome(command, "--help", code=CODE.replace('"sklearn"', '"numpy", "rich"'))
    assert last == "loaded: status: 0"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--model.help"], "--model.backbone"),
        (["--model.help", "--seed", "1"], "--model.backbone"),
        (["--model.help", "LlamaQLoraClassifier"], "--model.quantization"),
        (["--model.lora.help"], "--model.lora.rank"),
        (["--model.adapter.help"], "--model.adapter.method"),
        (["--model", "LlamaQLoraClassifier", "--model.lora.help"], "--model.lora.rank"),
        (["--wandb.help"], "--wandb.project"),
        (["--data.join.help"], "--data.join.file"),
    ],
)
def test_the_help_of_a_group_of_options(words, option, capfd):
    with pytest.raises(SystemExit) as leaving:
        parse("fit", words)
    assert leaving.value.code == 0
    assert option in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "--data.max_tokns", "9"], "max_tokns"),
        (["fit", "--data.csv", "nosuch.csv"], "no such file"),
        (["fit", "--config", "nosuch.yaml"], "no such configuration file"),
        (["fit", "--data.csv", "nosuch.csv", "--data.max_tokens", "many"], "max_tokens"),
        (["fit", "--model", "nosuch"], "use one of DistilBertClassifier"),
        (["fit", "--model.lrr", "1"], "unrecognized arguments: --model.lrr: did you mean --model.lr?"),
        (["fit", "--data.csv=a.csv", "--model.pooling=max"], "model.pooling is max: give mean or cls"),
        (["fit", "--data.csv=a.csv", "--model.lora.rank=x"], "model.lora.rank is x: give a whole number"),
        (["fit", "--data.csv=a.csv", "--model.ema_decay=x"], "model.ema_decay is x: give a number or null"),
        (["fit", "--data.csv=a.csv", "--model.lora=x"], "model.lora is x: give a mapping of its options or null"),
        (["fit", "--data.csv=a.csv", "--data.features=[{column: a, kind: b}]"], "data.features.kind is b: give text,"),
        (["fit", "--data.csv=a.csv", "--model.lora.rnk=3"], "unrecognized arguments: --model.lora.rnk"),
        (["fit", "--data.csv=a.csv", "--trainer.callbacks=[{a: 1}]"], "trainer.callbacks"),
        (["fit", "--data.csv", "nosuch.csv", "--trainer.max_epohcs", "3"], "max_epohcs"),
        (["fit", "--data.csv", "nosuch.csv", "--trainer.num_nodes", "many"], "num_nodes"),
        (["fit", "--data.csv", "nosuch.csv", "--model", "LlamaQLoraClassifier", "--model.packing", "4"], "packing"),
        (["fit", "--data.csv=a.csv", "--data.seed=-1", "--model.backbone=small", "--model.lora.rank=4"], "model.lora"),
        (["fit", "--config", ROOT / "configs/llama2_qlora.yaml", "--data.split", "[1, 2]"], "add up to 1"),
        (["validate", "--run_dir", "."], "is not a run directory"),
        (["test"], "needs a run"),
        (["predict", "."], "is not a run directory"),
        (["submit", "--dry-run", "--data.csv", "nosuch.csv"], "no such file"),
        (["data", "inspect", "nosuch.csv"], "no such file"),
        (["baseline", "tfidf_nb", "--data.csv", "nosuch.csv", "--model.min_flms", "3"], "min_flms"),
    ],
)
def test_a_mistake_is_reported_before_libraries_are_loaded(words, message):
    last, text = outcome(*words)
    assert last == "loaded: status: 2"
    assert message in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.backbone", "./nosuch"], "model.backbone ./nosuch is not a directory"),
        (["--model.backbone", ROOT / "configs"], "has no config.json"),
        (["--model", "LlamaQLoraClassifier", "--model.backbone=/a/b/llama"], "/a/b/llama is not a directory"),
    ],
)
def test_a_backbone_that_is_not_there_is_reported_before_libraries_are_loaded(words, message, sample_csv):
    last, text = outcome("fit", "--data.csv", sample_csv, *words)
    assert last == "loaded: status: 2"
    assert message in text


OURS = {"precision", "max_epochs", "gradient_clip_val", "log_every_n_steps", "num_sanity_val_steps",
        "enable_model_summary"}  # fmt: skip


def test_the_trainers_options_are_those_of_the_trainer():
    full = dict(inspect.signature(Trainer.__init__).parameters)
    ours = inspect.signature(TrainerOptions).parameters
    assert set(ours) == set(full) - {"self"}
    assert {name for name, option in ours.items() if option.default != full[name].default} <= OURS


def test_every_model_has_its_options():
    def leaves(kind):
        # a pretraining's model has an encoder's options: no configuration names it
        below = [leaf for sub in kind.__subclasses__() if sub is not MaskedLanguageModel for leaf in leaves(sub)]
        return below or [kind]

    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"{models.__name__}.{module.name}")
    ours = {f"{kind.__module__}.{kind.__name__}" for kind in leaves(GenreClassifier)}
    assert {path for path in ours if path.startswith("genre_lightning.")} == set(OPTIONS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_reads_the_same_with_and_without_torch(path, monkeypatch):
    words = ["--config", str(path), "--data.csv", "a.csv", "--model.lr", "0.5", "--trainer.max_epochs=7"]
    config, parser = parse("fit", words)
    text = parser.dump(config, skip_none=False)
    options = make_options("fit", config, parser)
    made = instantiate(parser, config)
    assert made.model.options == options.model.options
    assert OPTIONS[config.model.class_path] is type(made.model.options)
    monkeypatch.setattr(parser_module, "_names_object", lambda words, named: True)
    config, parser = parse("fit", words)
    assert parser.dump(config, skip_none=False) == text


def test_a_configuration_that_was_written_reads_as_itself(tmp_path):
    config, parser = parse("fit", ["--data.csv", "a.csv", "--model=LlamaQLoraClassifier", "--model.lora.rank=4"])
    text = parser.dump(config, skip_none=False)
    (tmp_path / "config.yaml").write_text(text)
    config, parser = parse("fit", ["--config", str(tmp_path / "config.yaml")])
    del config["config"]
    assert parser.dump(config, skip_none=False) == text


def test_options_of_another_model_are_left_out(tmp_path):
    (tmp_path / "c.yaml").write_text("model: {class_path: DistilBertClassifier, init_args: {pooling: cls, lr: 0.5}}")
    config, _ = parse("fit", ["--config", str(tmp_path / "c.yaml"), "--data.csv=a.csv", "--model=ZeroShotLlama"])
    assert config.model.class_path == "genre_lightning.models.zero_shot.ZeroShotLlama"
    assert config.model.init_args.lr == 0.5
    assert "pooling" not in config.model.init_args


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.callbacks+=lightning.pytorch.callbacks.Timer"],
        ["--trainer.callbacks+", "lightning.pytorch.callbacks.Timer", "--trainer.callbacks.interval", "step"],
        ["--trainer.callbacks", '[{"class_path": "lightning.pytorch.callbacks.Timer"}]'],
        ["--trainer.strategy.class_path", "genre_lightning.distributed.sharded.ShardedStrategy"],
        ["--config", str(ROOT / "configs/strategy/fsdp_offload.yaml")],
        ["--config", str(ROOT / "configs/logger/wandb.yaml")],
        ["--model", "genre_lightning.models.distilbert.DistilBertClassifier"],
        ["--model.class_path=DistilBertClassifier", "--model.init_args.pooling", "cls"],
        ['--model={"class_path": "DistilBertClassifier", "init_args": {"pooling": "cls"}}', "--model.pooling=mean"],
        ["--config", str(ROOT / "configs/quickstart.yaml"), "--model", "ZeroShotLlama", "--model.chat", "true"],
        ["--conf", str(ROOT / "configs/quickstart.yaml")],
        [f"-c{ROOT / 'configs/quickstart.yaml'}"],
        ["--trainer.limit_val_batches", "0.5", "--trainer.devices", "[0, 1]", "--trainer.max_time", "00:01:00:00"],
        ["--trainer.devices=2", "--trainer.devices+=3", "--trainer.enable_progress_bar", "null"],
        ["--trainer.max_time", "10:00:00:00", "--trainer.logger=false", "--trainer.callbacks=[]"],
        ["--trainer.max_time={hours: 8}", "--trainer.val_check_interval=3", "--trainer.profiler=simple"],
        ["--wandb.project", "films", "--tensorboard", "--json"],
    ],
)
def test_every_form_of_an_option_is_taken(sample_csv, tmp_path, words):
    config, _ = parse_checked("fit", [*words, "--data.csv", str(sample_csv)], tmp_path / "run")
    assert config.model.class_path in OPTIONS


@pytest.mark.parametrize("words", [["--print_config"], ["--model.help", "ZeroShotLlama"], ["--model.help"]])
def test_what_is_shown_ends_the_command(sample_csv, tmp_path, capsys, words):
    with pytest.raises(SystemExit) as leaving:
        parse_checked("fit", ["--data.csv", str(sample_csv), *words], tmp_path / "run")
    assert leaving.value.code == 0
    assert "model" in capsys.readouterr().out


def test_a_configuration_with_a_callback_is_shown_and_reads_as_itself(sample_csv, tmp_path, capsys):
    words = ["--data.csv", str(sample_csv), "--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:01:00:00"]
    with pytest.raises(SystemExit):
        parse("fit", [*words, "--print_config"])
    (tmp_path / "c.yaml").write_text(shown := capsys.readouterr().out)
    config, parser = parse("fit", ["--config", str(tmp_path / "c.yaml")])
    assert yaml.safe_load(shown)["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"
    assert yaml.safe_load(parser.dump(config, skip_none=False)) == yaml.safe_load(shown)


def test_a_model_from_elsewhere_is_refused_before_libraries_are_loaded(sample_csv, tmp_path):
    words = ["--data.csv", str(sample_csv), "--run_dir", str(tmp_path / "run"), "--model", "lightning.pytorch.X"]
    with pytest.raises(ConfigError, match="use one of DistilBertClassifier"):
        parse("fit", words)


def test_the_command_line_wins_over_a_configuration_wherever_it_stands():
    arguments = [
        "--data.csv",
        "a",
        "--json",
        "--config",
        "x.yaml",
        "--lr=3",
        "-cfoo",
        "--wandb",
        "--config=y",
        "-c",
        "z",
    ]
    files = ["--config", "x.yaml", "-cfoo", "--config=y", "-c", "z"]
    assert for_parser(arguments) == [*files, "--data.csv", "a", "--json=true", "--lr=3", "--wandb={}"]


def inspect_words(words, tmp_path):
    parse_checked("data inspect", with_film_file(words), tmp_path / "run")


def test_a_file_named_before_the_configuration_is_the_one_that_is_read(sample_csv, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{csv: {sample_csv}}}")
    with pytest.raises(DataError, match=r"missing\.csv"):
        inspect_words([str(tmp_path / "missing.csv"), "--config", str(config)], tmp_path)
    inspect_words([str(sample_csv), "--config", str(config)], tmp_path)


@pytest.mark.parametrize(
    "text", ["#", "~", ",", "|", " / ", "- ", "[", "{", "&", "*", '"', "'", "!", "%", "@", "`", ": ", "1"]
)
def test_a_text_is_taken_as_given(tmp_path, text):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"data": {"genre_separator": text}}))
    for arguments in (["--data.genre_separator", text], [f"--data.genre_separator={text}"], ["--config", str(config)]):
        parsed, _ = parse("fit", ["--data.csv", "a.csv", *arguments])
        assert parsed.data.genre_separator == text


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--lr", "model.lr"), ("--modle.lr", "model.lr"), ("--epochs", "trainer.max_epochs"), ("--seeed", "seed"),
     ("--batch_size", "data.global_batch_size"), ("--max_films", "data.max_films"), ("--rubbish", None)],
)  # fmt: skip
def test_an_unknown_option_is_answered_with_the_nearest(sample_csv, given, meant):
    with pytest.raises(ConfigError, match="nrecognized arguments") as caught:
        parse_checked("fit", ["--data.csv", str(sample_csv), given, "1"], Path("run"))
    assert (f"did you mean --{meant}?" in str(caught.value)) if meant else ("did you mean" not in str(caught.value))


def test_fit_refuses_a_configuration_of_a_baseline_and_a_baseline_one_of_fit():
    for name in ("baseline_tfidf_nb", "paper_tfidf_logreg"):
        command = f"genre-lightning baseline {name.partition('_')[2]}"
        with pytest.raises(ConfigError, match=f"is for '{command}', not for fit"):
            parse("fit", [f"--config={ROOT / 'configs' / name}.yaml"])
    with pytest.raises(ConfigError, match="model is DistilBertClassifier, and a baseline has a model of its own"):
        parse_baseline("tfidf_nb", TfidfNaiveBayes, [f"--config={ROOT / 'configs' / 'distilbert_rich.yaml'}"])


def test_a_file_cannot_trust_a_package(sample_csv, tmp_path):
    file = tmp_path / "trusting.yaml"
    file.write_text("trust: [os]\n")
    with pytest.raises(ConfigError, match="packages are trusted on the command line, not in a file"):
        parse("fit", [f"--config={file}", "--model.backbone=small", f"--data.csv={sample_csv}"])


def test_a_refused_object_is_shown_without_its_type(sample_csv):
    given = "{class_path: lightning.pytorch.plugins.io.TorchCheckpointIO}"
    words = ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy", "--trainer.strategy.cluster_environment"]
    with pytest.raises(ConfigError, match="cluster_environment") as refused:
        parse("fit", ["--model.backbone=small", f"--data.csv={sample_csv}", *words, given])
    assert "Given value" not in str(refused.value)


def test_wandb_alone_means_its_defaults(sample_csv):
    assert parse("fit", ["--wandb", "--data.csv", str(sample_csv)])[0].wandb.mode == "auto"


@pytest.mark.parametrize(
    "words", [["--model", "LlamaQLoraClassifier"], ["--config", ROOT / "configs/llama2_qlora.yaml"]]
)
def test_a_model_has_its_own_defaults(words):
    config, _ = parse("fit", ["--data.csv=a.csv", *map(str, words)])
    assert config.model.init_args.pooling == "last"  # an encoder's is "mean"
    settings = {"class_path": config.model.class_path, "init_args": {"backbone": "random"}}
    restored, _ = parse_model(settings)  # a run of a version without the option
    assert restored.model.init_args.pooling == "last"


def test_the_key_on_is_not_read_as_true(tmp_path):
    file = tmp_path / "on.yaml"
    file.write_text("data: {csv: a.csv, join: [{file: b.csv, key: tconst, on: imdb_id}]}\n")
    given = "[{file: b.csv, key: tconst, on: imdb_id}]"
    for words in (["--config", str(file)], ["--data.csv=a.csv", f"--data.join={given}"]):
        [join] = parse("fit", words)[0].data.join
        assert (join["on"] if isinstance(join, dict) else join.on) == "imdb_id"


@pytest.mark.parametrize("config", ["llama2_qlora", "distilbert_lora"])
def test_an_option_within_two_groups_is_taken_back_by_null(config):
    words = ["--config", str(ROOT / f"configs/{config}.yaml"), "--data.csv", "a.csv"]
    given, _ = parse("fit", [*words, "--model.lora.targets", "all-linear"])
    assert given.model.init_args.lora.targets == "all-linear"
    back, _ = parse("fit", [*words, "--model.lora.targets", "null"])
    assert back.model.init_args.lora.targets is None
