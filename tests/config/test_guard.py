"""No class outside genre_lightning and lightning is named by a configuration, and none of its code is ever run."""

import importlib
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._common import parsing_settings

from genre_lightning.compat import importing_only
from genre_lightning.config import guard, parser
from genre_lightning.config.allowed import ALLOWED
from genre_lightning.config.guard import FILE_OPTIONS, check_arguments, instantiate
from genre_lightning.config.parser import parse
from genre_lightning.config.stand_ins import STAND_INS
from genre_lightning.errors import ConfigError
from genre_lightning.inference.tagger import Tagger
from genre_lightning.yaml_files import read_yaml

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
    "through a module": "model: {class_path: lightning.pytorch.accelerators.cuda.subprocess.Popen}",
    "through our own module": "trainer: {callbacks: genre_lightning.files.tempfile.TemporaryDirectory}",
    "below an allowed class": "trainer: {callbacks: {class_path: lightning.pytorch.callbacks.Timer.__init__}}",
    "an object of an untyped argument": "trainer: {strategy: {class_path: lightning.pytorch.strategies.DDPStrategy,"
    " init_args: {ddp_comm_state: {class_path: subprocess.Popen, init_args: {args: x}}}}}",
    "an allowed class in another's place": "trainer: {callbacks: lightning.pytorch.loggers.CSVLogger}",
    "an allowed class where none may stand": "data: {text: {class_path: lightning.pytorch.callbacks.Timer}}",
    "a callback that calls functions": "trainer: {callbacks: {class_path: lightning.pytorch.callbacks.LambdaCallback}}",
    "YAML in a text": "trainer: {callbacks: '[{class_path: stranger.Model}]'}",
    "untyped arguments by another name": "trainer: {strategy: {class_path: DDPStrategy,"
    " dict_kwargs: {x: {class_path: stranger.Model}}}}",
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
    (stranger / "a.yaml").write_text("config: b.yaml")
    (stranger / "b.yaml").write_text("config: a.yaml")
    with pytest.raises(ConfigError, match="more than 20 deep"):
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


def test_the_data_file_is_not_read(stranger):
    (stranger / "a.csv").write_text("class_path: stranger.Model\n")
    (stranger / "c.yaml").write_text("data: {csv: a.csv}")
    check_arguments(["--data.csv", "a.csv", "--config", "c.yaml"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "is not well-formed YAML"),
        (b"\xff\xfe\x00", "is not well-formed YAML"),
        (b"a: 2001-13-45", "is not well-formed YAML"),
        (b"[" * 1200, "is not well-formed YAML"),
        (b"a: !!python/object/apply:os.system [true]", "is not well-formed YAML"),
        (b"", "holds no settings"),
        (b"- a", "holds no settings"),
        (b"just words", "holds no settings"),
    ],
)
def test_files_that_are_not_a_configuration(tmp_path, content, words):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match="no such configuration file"):
            check_arguments(["--config", str(path)])


POPEN = "lightning.pytorch.strategies.launchers.subprocess_script.subprocess.Popen"
LAYERS = ("before imports", "while parsing", "before objects are made")


@contextmanager
def importing_anything():
    with importing_only([], STAND_INS):
        parsing_settings.update(
            import_path_verdicts={}, import_paths_enforced=False, instantiate_subclass_spec_in_any=None
        )
        yield


def with_one_layer(monkeypatch, layer):
    """Switch off all that holds strangers' classes but one layer."""
    if layer != LAYERS[0]:
        # every option that may be an object gets Lightning's types, as if one were named
        named = {option: ["an.Object"] for option in ALLOWED if option != "model"}
        monkeypatch.setattr(parser, "check_arguments", lambda arguments: named)
    if layer != LAYERS[1]:
        monkeypatch.setattr(parser, "_importing_allowed", importing_anything)
    if layer != LAYERS[2]:
        monkeypatch.setattr(guard, "check_parsed", lambda config, run_dir: None)


def call(content, tmp_path, **calls):
    """Parse and instantiate a configuration; what it calls is added to `calls`."""
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(content))
    config, parsed = parse("fit", ["--config", str(file), "--data.csv", "a.csv"])
    return instantiate(parsed, config, tmp_path)


@pytest.fixture
def commands(monkeypatch):
    """Every process that is started, in place of starting it."""
    started = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *args, **kwargs: started.append(args or kwargs))
    return started


def nested_popen():
    inner = {"class_path": POPEN, "init_args": {"args": "true", "shell": True}}
    return {"trainer": {"strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy",
                                     "init_args": {"ddp_comm_state": inner}}}}  # fmt: skip


def test_without_any_layer_the_command_would_run(monkeypatch, tmp_path, commands):
    """The three tests below would pass on an attack that never worked."""
    with_one_layer(monkeypatch, None)
    call(nested_popen(), tmp_path)
    assert commands


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_holds(monkeypatch, tmp_path, commands, layer):
    with_one_layer(monkeypatch, layer)
    with pytest.raises(ConfigError):
        call(nested_popen(), tmp_path)
    assert not commands


PATHS = [
    POPEN,
    "stranger.Model",
    "subprocess.Popen",
    "subprocess.run",
    "os.system",
    "builtins.eval",
    "functools.partial",
    "jsonargparse.set_parsing_settings",
    "torch.hub.load",
    "genre_lightning.files.os.system",
    "genre_lightning.models.distilbert.DistilBertClassifier",
    "lightning.pytorch.callbacks.Timer",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.plugins.environments.SLURMEnvironment",
    "lightning.pytorch.strategies.DDPStrategy",
    "lightning.pytorch.accelerators.cuda.subprocess.Popen",
]
ARGUMENTS = ("args", "ddp_comm_state", "ddp_comm_hook", "init_args", "dict_kwargs", "save_dir", "backbone", "lora")


@st.composite
def specs(draw, depth=3):
    """A class path with arguments that may be such objects again, as YAML writes them or as text of YAML."""
    spec = {"class_path": draw(st.sampled_from(PATHS))}
    if depth:
        inner = st.one_of(specs(depth=depth - 1), st.lists(specs(depth=depth - 1), max_size=2), st.just("true"))
        spec[draw(st.sampled_from(("init_args", "dict_kwargs")))] = draw(
            st.dictionaries(st.sampled_from(ARGUMENTS), inner, min_size=1, max_size=2)
        )
    return yaml.safe_dump(spec) if draw(st.booleans()) and depth < 3 else spec


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(option=st.sampled_from([*ALLOWED, "data", "data.text", "decision", "wandb", "trainer", "trainer.max_time"]),
       spec=specs(), layer=st.sampled_from((None, LAYERS[1], LAYERS[2])), listed=st.booleans())  # fmt: skip
def test_nothing_outside_the_table_is_imported_or_called(tmp_path_factory, option, spec, layer, listed):
    """With all layers, and with each of the two that do not look at names first."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fuzz")
        (folder / "stranger.py").write_text("raise SystemExit('imported')\n")
        patch.syspath_prepend(str(folder))
        started = []
        patch.setattr(subprocess.Popen, "__init__", lambda self, *args, **kwargs: started.append(args))
        patch.setattr("os.system", lambda command: started.append(command))
        if layer:
            with_one_layer(patch, layer)
        content: dict = {}
        *outer, last = option.split(".")
        place = content
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = [spec] if listed else spec
        with suppress(ConfigError):
            call(content, folder)
        assert not started
        assert "stranger" not in sys.modules


@pytest.mark.parametrize("command", ["fit", "plan", "submit --dry-run", "predict", "export", "test", "validate"])
def test_every_command_refuses_it_with_one_line(tmp_path, capfd, commands, command):
    from genre_lightning.__main__ import main

    config = tmp_path / "run" / "config.yaml"
    config.parent.mkdir()
    config.write_text(yaml.safe_dump(nested_popen()))
    (tmp_path / "a.csv").write_text("id,overview,genres\n")
    words = command.split()
    if words[0] in ("fit", "plan", "submit"):
        words += ["--config", config, "--data.csv", tmp_path / "a.csv", "--run_dir", tmp_path / "new"]
    else:
        make_finished(config.parent)
        words += [config.parent, *([tmp_path / "out"] if words[0] == "export" else [])]
        words += ["--data.csv", tmp_path / "a.csv"] if words[0] == "predict" else []
    assert main([str(word) for word in words]) == 2
    output = capfd.readouterr()
    assert len(output.err.splitlines()) == 1
    assert "subprocess_script.subprocess.Popen" in output.err
    assert not commands


def test_the_python_interface_refuses_it(tmp_path, commands):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(nested_popen()))
    make_finished(run)
    with pytest.raises(ConfigError, match="subprocess_script"):
        Tagger(run)
    assert not commands


def make_finished(folder):
    """Make a directory look like a finished run; its configuration is read before anything else in it."""
    (folder / "run_state.json").write_text('{"status": "finished"}')
    (folder / "decision.json").write_text("{}")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_text("x")


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("logger: lightning.pytorch.loggers.CSVLogger", "save_dir: {other}"),
        ("logger: lightning.pytorch.loggers.CSVLogger", "save_dir: ../other"),
        ("logger: lightning.pytorch.loggers.CSVLogger", "save_dir: {run}, name: ../../other"),
        ("logger: lightning.pytorch.loggers.WandbLogger", "offline: true"),
        ("logger: lightning.pytorch.loggers.TensorBoardLogger", "save_dir: {run}/link"),
        ("profiler: lightning.pytorch.profilers.SimpleProfiler", "dirpath: {other}"),
        ("profiler: lightning.pytorch.profilers.AdvancedProfiler", "filename: ../x"),
        ("logger: TensorBoardLogger", "save_dir: {run}, dict_kwargs: {{filename_suffix: ['{other}/x']}}"),
        ("logger: TensorBoardLogger", "save_dir: {run}, version: $HOME"),
        ("logger: CSVLogger", "save_dir: '~nobody/other'"),
        ("callbacks: ModelCheckpoint", "filename: '{{epoch].__class__.__init__.__doc__[15}}'"),
        ("callbacks: ModelCheckpoint", "filename: '.{{step:c}}/.{{step:c}}/x'"),
        ("callbacks: ModelCheckpoint", "filename: '{{epoch:{{step}}}}'"),
        ("callbacks: lightning.pytorch.callbacks.ModelCheckpoint", "dirpath: '~/other'"),
    ],
)
def test_objects_write_into_the_run_directory_alone(tmp_path, option, arguments):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (run / "link").symlink_to(other)
    name, path = option.split(": ")
    arguments = yaml.safe_load("{" + arguments.format(run=run, other=other) + "}")
    content = {"trainer": {name: {"class_path": path, "init_args": arguments}}}
    if untyped := arguments.pop("dict_kwargs", None):
        content["trainer"][name]["dict_kwargs"] = untyped
    with pytest.raises(ConfigError, match=f"trainer.{name}.*outside the run directory"):
        call(content, run)


@pytest.mark.parametrize("folder", ["file:///{other}", "file:{other}", "memory://x", "$OTHER/x"])
def test_no_folder_is_opened_by_a_protocol_or_a_variable(tmp_path, monkeypatch, folder):
    """Lightning would, and the run directory may bear that very name."""
    monkeypatch.chdir(tmp_path)
    folder = folder.format(other=tmp_path / "other")
    content = {"trainer": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": folder}}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    config, parsed = parse("fit", ["--config", "c.yaml", "--data.csv", "a.csv"])
    with pytest.raises(ConfigError, match="outside the run directory"):
        instantiate(parsed, config, Path(folder))


@pytest.mark.parametrize(
    ("option", "name", "arguments"),
    [
        ("logger", "WandbLogger", {"settings": {"base_url": "http://127.0.0.1:9"}}),
        ("logger", "WandbLogger", {"dict_kwargs": "x"}),
        ("profiler", "PyTorchProfiler", {"on_trace_ready": "os.system"}),
        ("strategy", "DDPStrategy", {"delay_all_reduce_named_params": ["x"]}),
    ],
)
def test_what_a_class_passes_on_is_a_plain_value(tmp_path, option, name, arguments):
    spec = {"class_path": name, "dict_kwargs": arguments}
    if name == "WandbLogger":
        spec["init_args"] = {"save_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=f"trainer.{option}.*passes it on to another library"):
        call({"trainer": {option: spec}}, tmp_path)


def test_plain_values_are_passed_on(tmp_path):
    wandb = {"class_path": "WandbLogger", "init_args": {"save_dir": str(tmp_path)},
             "dict_kwargs": {"entity": "me", "notes": "see https://a.b, $5", "config": {"a": "/b"}}}  # fmt: skip
    ddp = {"class_path": "DDPStrategy", "dict_kwargs": {"static_graph": True, "bucket_cap_mb": 30}}
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"filename": "{epoch}-{val/loss:.2f}-{step:04d}"}}
    made = call({"trainer": {"logger": wandb, "strategy": ddp, "callbacks": [checkpoint]}}, tmp_path)
    assert made.trainer["logger"]._wandb_init["notes"] == "see https://a.b, $5"
    assert made.trainer["strategy"]._ddp_kwargs["static_graph"] is True


def test_a_value_that_a_class_refuses_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot be made"):
        call({"trainer": {"callbacks": {"class_path": "Timer", "init_args": {"duration": "soon"}}}}, tmp_path)


@pytest.mark.parametrize("option", ["trainer", "model", "data", "checkpoint"])
@pytest.mark.parametrize("name", ["http://127.0.0.1:9/c.yaml", "memory://c.yaml", "simplecache::http://127.0.0.1:9/c"])
def test_the_parser_opens_no_address(monkeypatch, tmp_path, option, name):
    import fsspec

    opened = []
    monkeypatch.setattr(fsspec, "open", lambda *arguments, **options: opened.append(arguments))
    monkeypatch.setattr("jsonargparse._paths.import_fsspec", lambda *arguments: opened.append(arguments))
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({option: name}))
    with pytest.raises(ConfigError):
        parse("fit", ["--config", str(file), "--data.csv", "a.csv"])
    assert not opened


@pytest.mark.parametrize("option", ["lora", "architecture", "adapter"])
def test_the_parser_reads_regular_files_alone(tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "c.yaml"
    model = {"class_path": "DistilBertClassifier", "init_args": {option: str(tmp_path / "pipe")}}
    file.write_text(yaml.safe_dump({"model": model}))
    with pytest.raises(ConfigError):
        parse("fit", ["--config", str(file), "--data.csv", "a.csv"])


def test_files_that_name_many_others_are_refused(stranger):
    for number in range(19):
        (stranger / f"{number}.yaml").write_text(f"config: [{number + 1}.yaml, {number + 1}.yaml]")
    (stranger / "19.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match="more than 100 files"):
        check_arguments(["--config", "0.yaml"])


@pytest.mark.slow
def test_nested_text_does_not_overflow_the_stack(tmp_path):
    """libyaml parses by recursion, and would end the process."""
    for text in ("[" * 100_000, "- " * 50_000, "{" * 100_000):
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({"seed": text}))
        with pytest.raises(ConfigError):
            parse("fit", ["--config", str(file), "--data.csv", "a.csv"])


def test_objects_of_the_table_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = call({"trainer": {
        "callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "00:01:00:00"}},
                      {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}},
                      {"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging",
                       "init_args": {"swa_lrs": 1e-3}}],
        "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "x")}},
        "profiler": {"class_path": "lightning.pytorch.profilers.SimpleProfiler", "init_args": {"filename": "times"}},
        "strategy": {"class_path": "genre_lightning.distributed.sharded.ShardedStrategy"},
    }}, tmp_path)  # fmt: skip
    names = [type(callback).__name__ for callback in made.trainer["callbacks"]]
    assert names == ["Timer", "EarlyStopping", "StochasticWeightAveraging"]
    assert type(made.trainer["logger"]).__name__ == "CSVLogger"
    assert made.trainer["profiler"].filename == "times"
    assert type(made.trainer["strategy"]).__name__ == "ShardedStrategy"


def test_the_parser_takes_files_for_these_options_and_no_others():
    made = [parse(command, ["--data.csv", "a.csv", "--trainer.callbacks+=Timer"])[1] for command in ("fit", "pretrain")]
    actions = [action for parser in made for action in parser._actions]
    loads = {a.dest for a in actions if isinstance(a, _ActionConfigLoad) or getattr(a, "_enable_path", False)}
    assert loads == set(FILE_OPTIONS)


def test_a_program_of_the_users_keeps_its_own_parser_settings():
    from jsonargparse import _loaders_dumpers, _optionals
    from jsonargparse._paths import Path as ParserPath

    def now():
        return dict(parsing_settings), _optionals._config_read_mode, _loaders_dumpers.yaml_load, ParserPath.read_text

    before = now()
    parse("fit", ["--data.csv", "a.csv"])
    assert now() == before


def test_arguments_of_an_adapter_name_no_class(tmp_path):
    file = tmp_path / "c.yaml"
    adapter = {"method": "IA3", "arguments": {"r": {"class_path": "os.system", "init_args": {"command": "true"}}}}
    model = {"class_path": "DistilBertClassifier", "init_args": {"adapter": adapter}}
    file.write_text(yaml.safe_dump({"model": model}))
    with pytest.raises(ConfigError, match=r"os\.system"):
        check_arguments(["--config", str(file)])
