"""No class outside genre_lightning and lightning is named by a configuration, and none of its code is ever run."""

import importlib
import sys

import pytest

from genre_lightning.commands import guard
from genre_lightning.commands.guard import check_arguments, read_yaml
from genre_lightning.commands.parser import parse
from genre_lightning.errors import ConfigError

CALLBACK = "trainer: {callbacks: [{class_path: %s, init_args: {}}]}"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A package that leaves a file behind when it is imported; the tests stand in its folder."""
    package = tmp_path / "stranger"
    package.mkdir()
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Model: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    (tmp_path / "model.yaml").write_text("class_path: stranger.Model\n")
    (tmp_path / "trainer.txt").write_text("callbacks: [{class_path: stranger.Model}]\n")
    (tmp_path / "evil.yaml").write_text("data: {csv: a.csv}\nmodel: {class_path: stranger.Model}\n")
    yield tmp_path
    assert not (tmp_path / "it ran").exists()
    assert "stranger" not in sys.modules


FILES = {
    "class_path": "model: {class_path: stranger.Model}",
    "a bare name": "model: stranger.Model",
    "a dotted key": "model.class_path: stranger.Model",
    "with spaces": "model: {class_path: ' stranger.Model'}",
    "nested list": CALLBACK % "stranger.Model",
    "a list of names": "trainer: {callbacks: [lightning.pytorch.callbacks.Timer, stranger.Model]}",
    "deep": "model: {class_path: genre_lightning.X, init_args: {a: {b: [[{class_path: stranger.Model}]]}}}",
    "logger": "trainer: {logger: os.path.join}",
    "standard library": "trainer: {plugins: {class_path: subprocess.Popen}}",
    "any section": "data: {columns: {class_path: stranger.Model}}",
    "a function": "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback,"
    " init_args: {on_fit_start: stranger.Model}}]}",
    "an anchor": "x: &x {class_path: stranger.Model}\nmodel: *x",
    "another file": "model: model.yaml",
    "another file of any ending": "trainer: trainer.txt",
    "another configuration": "config: evil.yaml",
    "no package at all": "model: {class_path: no_such_package.Model}",
    "another script": "model: {class_path: érable.Model}",
    "__main__": "model: __main__.Model",
    "like an allowed one": "model: {class_path: lightning_evil.Model}",
}


@pytest.mark.parametrize("form", FILES)
def test_files(stranger, form):
    (stranger / "c.yaml").write_text(f"{FILES[form]}\n", encoding="utf-8")
    for words in (["--config", "c.yaml"], ["--config=c.yaml"], ["-c", "c.yaml"], ["-cc.yaml"], ["--conf", "c.yaml"]):
        with pytest.raises(ConfigError, match="only classes of genre_lightning and lightning") as caught:
            parse("fit", words)
        assert "\n" not in str(caught.value)


def test_a_file_that_another_one_names_is_looked_for_beside_it(stranger, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner.yaml").write_text("class_path: stranger.Model")
    (folder / "c.yaml").write_text("model: inner.yaml")
    with pytest.raises(ConfigError, match=r"inner\.yaml: model\.class_path is stranger\.Model"):
        parse("fit", ["--config", "folder/c.yaml"])


def test_files_that_name_each_other_end(stranger):
    (stranger / "a.yaml").write_text("model: b.yaml")
    (stranger / "b.yaml").write_text("x: a.yaml\ny: b.yaml")
    check_arguments(["--config", "a.yaml"])


@pytest.mark.parametrize(
    "words",
    [
        ["--model=stranger.Model"],
        ["--model", "stranger.Model"],
        ["--model=os.system"],
        ["--model.class_path=stranger.Model"],
        ["--model.class_path", "stranger.Model"],
        ["--model.help", "stranger.Model"],
        ["--model.help=stranger.Model"],
        ['--model={"class_path": "stranger.Model"}'],
        ["--model", "{class_path: stranger.Model, init_args: {}}"],
        ["--model", "model.yaml"],
        ["--trainer", '{"callbacks": [{"class_path": "stranger.Model"}]}'],
        ["--trainer", "trainer.txt"],
        ["--trainer.logger", "os.path.join"],
        ["--trainer.callbacks=stranger.Model"],
        ["--trainer.callbacks+=stranger.Model"],
        ["--trainer.callbacks+", "stranger.Model"],
        ["--trainer.callbacks=[stranger.Model]"],
        ["--trainer.callbacks", '[{"class_path": "stranger.Model"}]'],
        ["--trainer.cal", "stranger.Model"],
        ["--trainer.strategy.class_path", "stranger.Model"],
        ["--json", "-c", "evil.yaml"],  # the flag does not take -c for its value
        ["--override", "--config", "evil.yaml"],
        ["--config", "evil.yaml"],
    ],
)
def test_the_command_line(stranger, words):
    for before in ([], ["--data.csv", "a.csv"]):
        with pytest.raises(ConfigError, match="only classes of genre_lightning and lightning"):
            parse("fit", [*before, *words])


@pytest.mark.parametrize(
    "words",
    [
        ["--data.csv", "os.path"],
        ["--data.csv", "stranger/__init__.py"],
        ["--data.text", "{title}. {overview}"],
        ["--data.text", "{overview"],
        ["--data.revision", "2001-13-45"],
        ["--data.split", "[0.8, 0.2]"],
        ["--data.max_films", "-1"],
        ["--data.genre_separator", "[" * 1200],
        ["--data.tokenizer", "x" * 5000],
        ["--data.tokenizer", "a\0b"],
        ["--model", "genre_lightning.models.distilbert.DistilBertClassifier"],
        ["--model", "DistilBertClassifier"],
        ["--model.backbone", "bert.v1"],
        ["--model.backbone", "./models/all-MiniLM-L6-v2"],
        ["--model.revision", "v1.0"],
        ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger"],
        ["--trainer.callbacks+=lightning.pytorch.callbacks.Timer"],
        ["--trainer.strategy", "ddp"],
        ["--trainer.default_root_dir", "./runs.old"],
        ["--trainer.precision", "16-mixed"],
        ["--checkpoint.monitor", "val/loss"],
        ["--run_dir", "runs/a.b"],
        ["--", "word", ""],
        [],
    ],
)
def test_what_is_left_to_the_parser(stranger, words):
    check_arguments(words)


def test_the_data_file_is_not_read(stranger, monkeypatch):
    (stranger / "a.csv").write_text("class_path: stranger.Model\n")
    (stranger / "c.yaml").write_text("data: {csv: a.csv}")
    check_arguments(["--data.csv", "a.csv", "--config", "c.yaml"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "no well-formed YAML"),
        (b"\xff\xfe\x00", "no well-formed YAML"),
        (b"a: 2001-13-45", "no well-formed YAML"),
        (b"[" * 1200, "no well-formed YAML"),
        (b"a: !!python/object/apply:os.system [true]", "no well-formed YAML"),
        (b"", "holds no settings"),
        (b"- a", "holds no settings"),
        (b"just words", "holds no settings"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, words):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match="no such configuration file"):
            check_arguments(["--config", str(path)])
    assert guard.ALLOWED_PACKAGES == ("genre_lightning", "lightning")
