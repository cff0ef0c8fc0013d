"""Bad use ends with status 2 and one line that names the fix, and writes nothing into the run directory."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from genre_lightning.__main__ import main
from genre_lightning.cli import COMMANDS
from genre_lightning.data.sample.generate import COLUMNS, write_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=120, seed=3)


def refused(capfd, arguments, *words):
    """Runs a command line that must be refused, and looks for the words in its one line."""
    status = main([str(word) for word in arguments])
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("genre-lightning: ")]
    assert status == 2, err
    assert out == ""
    assert len(lines) == 1, err
    for word in words:
        assert re.search(word, lines[0]), lines[0]
    return lines[0]


def fit_words(sample, run_dir, *more):
    return ["fit", "--data.csv", sample, "--model.backbone", "small", "--run_dir", run_dir, *more]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data.max_tokns", "9"], ["max_tokns", "--help"]),
        (["--data.max_tokens", "many"], ["max_tokens"]),
        (["--data.max_tokens", "1"], [r"data\.max_tokens is 1: give a number from 3"]),
        (["--data.global_batch_size", "0"], [r"data\.global_batch_size is 0"]),
        (["--data.split", "[0.5, 0.6]"], [r"data\.split", "add up to 1"]),
        (["--data.text", "{overview"], [r"data\.text"]),
        (["--data.text", "{nosuch}"], ["nosuch", "header"]),
        (["--model.dropout", "1.5"], [r"model\.dropout is 1\.5"]),
        (["--model.lr", "-1"], [r"model\.lr is -1"]),
        (["--model.pooling", "max"], ["pooling"]),
        (["--model.lora.rank", "4"], [r"model\.lora", "small"]),
        (["--trainer.precision", "int4"], ["precision"]),
        (["--trainer.precision", "16-mixed", "--trainer.accelerator", "cpu"], ["no fp16 matrix units", "bf16-mixed"]),
        (["--trainer.accumulate_grad_batches", "4"], ["accumulate_grad_batches", "global_batch_size"]),
        (["--trainer.max_epochs", "0"], [r"trainer\.max_epochs is 0"]),
        (["--trainer.enable_checkpointing", "false"], [r"trainer\.enable_checkpointing is false", "leave it out"]),
        (["--trainer.barebones", "true"], [r"trainer\.barebones", "leave it out"]),
        (["--trainer.profiler", "nonsense"], [r"trainer\.profiler is nonsense", "simple, advanced, pytorch"]),
        (["--trainer.devices", "-1", "--trainer.accelerator", "cpu"], [r"trainer\.devices is -1", "all GPUs"]),
        (["--checkpoint.monitor", "val/f2"], [r"checkpoint\.monitor is val/f2", "val/loss"]),
        (["--config", "nosuch.yaml"], ["no such configuration file"]),
        (["--trainer.logger", "os.path.join"], ["only classes of"]),
        (["--model", "subprocess.Popen"], ["only classes of"]),
    ],
)
def test_options_are_refused_before_any_work(sample, tmp_path, capfd, more, words):
    refused(capfd, fit_words(sample, tmp_path / "run", *more), *words)
    assert not (tmp_path / "run").exists()


def test_all_problems_are_named_at_once(sample, tmp_path, capfd):
    line = refused(
        capfd,
        fit_words(sample, tmp_path / "run", "--model.lr", "-1", "--data.max_tokens", "1", "--trainer.max_epochs", "0"),
    )
    assert "model.lr" in line
    assert "data.max_tokens" in line
    assert "trainer.max_epochs" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the GPU that the command asks for")
def test_a_gpu_that_is_not_there(sample, tmp_path, capfd):
    refused(capfd, fit_words(sample, tmp_path / "run", "--trainer.accelerator", "gpu"), "no GPU is visible")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.csv", "", ["is empty"]),
        ("prose.csv", "just some prose\n", ["has no column"]),
        ("header.csv", ",".join(COLUMNS) + "\n", ["leaves no usable film"]),
        ("movies.txt", "id,overview,genres\n", ["ends neither"]),
    ],
)
def test_files_that_are_not_movies_files(tmp_path, capfd, name, text, words):
    file = write(tmp_path / name, text)
    refused(capfd, fit_words(file, tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there(tmp_path, capfd):
    refused(capfd, fit_words(tmp_path / "nosuch.csv", tmp_path / "run"), "no such file", "--data.csv", "data sample")


def test_a_genre_without_a_positive_in_training(tmp_path, capfd):
    rows = "".join(f"{i},plot number {i} of its own,\"[{{'id': 1, 'name': 'Drama'}}]\"\n" for i in range(20))
    # the one film of its genre goes to the split that lacks it least, and 0.05 of the films train
    file = write(tmp_path / "rare.csv", "id,overview,genres\n" + rows + "99,unique,\"[{'id': 2, 'name': 'War'}]\"\n")
    refused(
        capfd,
        fit_words(file, tmp_path / "run", "--data.split", "[0.05, 0.475, 0.475]"),
        "no film of the training split has the genre War",
    )


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("./nosuch", ["is not a directory"]),
        ("somebody/no-such-model", ["cannot be loaded", "hf download somebody/no-such-model"]),
    ],
)
def test_a_backbone_that_cannot_be_had(sample, tmp_path, capfd, backbone, words):
    refused(capfd, ["fit", "--data.csv", sample, "--model.backbone", backbone, "--run_dir", tmp_path / "run"], *words)
    assert not (tmp_path / "run").exists()


def test_a_backbone_directory_without_weights(sample, tmp_path, capfd):
    folder = tmp_path / "backbone"
    folder.mkdir()
    refused(
        capfd, ["fit", "--data.csv", sample, "--model.backbone", folder, "--run_dir", tmp_path / "run"], "config.json"
    )
    write(folder / "config.json", '{"model_type": "bert"}')
    refused(
        capfd, ["fit", "--data.csv", sample, "--model.backbone", folder, "--run_dir", tmp_path / "run"], "safetensors"
    )


def test_run_directories_that_cannot_be_one(sample, tmp_path, capfd):
    file = write(tmp_path / "file", "x")
    refused(capfd, fit_words(sample, file), "is a file")
    refused(capfd, fit_words(sample, file / "run"), "is a file")
    other = tmp_path / "other"
    other.mkdir()
    write(other / "notes.txt", "x")
    refused(capfd, fit_words(sample, other), "holds other files")
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_commands_on_a_directory_that_is_not_a_run(tmp_path, capfd, command):
    refused(capfd, [command, "--run_dir", tmp_path], "is not a run directory")
    refused(capfd, [command], "needs a run")


def test_a_class_from_elsewhere_in_a_file_is_never_imported(sample, tmp_path, capfd):
    module = write(tmp_path / "evil_module.py", f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = write(
        tmp_path / "config.yaml", yaml.safe_dump({"trainer": {"callbacks": [{"class_path": f"{module.stem}.Evil"}]}})
    )
    refused(capfd, fit_words(sample, tmp_path / "run", "--config", config), "only classes of")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_of_any_command_is_one_line(command, capfd):
    assert main([*command.split(), "--nosuch", "1"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("genre-lightning: ")


def test_unknown_commands(capfd):
    refused(capfd, ["fitt"], "no command 'fitt'", "did you mean 'fit'")
    refused(capfd, ["data", "inspekt"], "data inspect")


def test_help_needs_no_torch_and_names_every_command(capfd):
    import subprocess
    import sys

    code = "import sys; from genre_lightning.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for name in ("fit", "validate", "test", "predict", "data inspect", "data sample"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)
