"""Configurations by name, as an installed wheel has them."""

from pathlib import Path

import pytest
import yaml

from genre_lightning.__main__ import main
from genre_lightning.config.packaged import CONFIGS, command_with, names, with_packaged


def test_every_configuration_is_listed_with_what_it_is_for(capsys):
    assert main(["configs"]) == 0
    listed = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {name.strip() for name in listed} == {
        path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml")
    }
    assert all(len(text.strip()) > 20 for text in listed.values())


def test_a_name_is_the_packaged_file_and_a_file_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = str(CONFIGS / "distilbert.yaml")
    assert with_packaged(["--config", "distilbert", "--data.csv", "distilbert"]) == [
        "--config", packaged, "--data.csv", "distilbert",
    ]  # fmt: skip
    assert with_packaged(["-c", "strategy/fsdp"]) == ["-c", str(CONFIGS / "strategy/fsdp.yaml")]
    assert with_packaged(["--config=distilbert"]) == [f"--config={packaged}"]
    (tmp_path / "distilbert").write_text("seed: 1\n")
    assert with_packaged(["--config", "distilbert"]) == ["--config", "distilbert"]
    assert with_packaged(["--config", "../distilbert"]) == ["--config", "../distilbert"]


def test_a_run_is_named_after_the_configuration(sample_csv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--model.backbone=small", "--data.csv", str(sample_csv), "--print_config"]
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "distilbert", "--config", "strategy/ddp", *small])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["strategy"] == "ddp"
    assert printed["data"]["max_tokens"] == 256


def test_copy_writes_one_to_edit_and_never_over_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", "logger/wandb"]) == 0
    assert (tmp_path / "wandb.yaml").read_text() == (CONFIGS / "logger/wandb.yaml").read_text()
    (tmp_path / "wandb.yaml").write_text("mine")
    assert main(["configs", "copy", "logger/wandb"]) == 2
    assert (tmp_path / "wandb.yaml").read_text() == "mine"
    assert "wandb.yaml exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tune/distilbert", "genre-lightning tune --config distilbert --space 'my own.yaml' --trials 40"),
        ("strategy/ddp", "genre-lightning fit --config distilbert --config 'my own.yaml' --trainer.devices 8"),
        ("baseline_tfidf_nb", "genre-lightning baseline tfidf_nb --config 'my own.yaml' --data.csv"),
        ("distilbert", "genre-lightning fit --config 'my own.yaml' --data.csv movies_metadata.csv --run_dir"),
    ],
)
def test_copy_shows_the_command_that_reads_the_copy(name, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "copy", name, "my own.yaml"]) == 0
    assert f"edit it, then run {command}" in capsys.readouterr().out


def test_every_configuration_names_its_command():
    for name in names():
        assert "'my own.yaml'" in command_with(name, Path("my own.yaml")), name


def test_copy_refuses_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "link.yaml").symlink_to(tmp_path / "target.yaml")
    for place, said in ((tmp_path / "file/b.yaml", "cannot be written"), (tmp_path / "link.yaml", "is a link")):
        assert main(["configs", "copy", "distilbert", str(place)]) == 2
        assert said in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_the_names(capsys):
    assert main(["configs", "copy", "distilbret"]) == 2
    assert "distilbert," in capsys.readouterr().err
    assert main(["fit", "--config", "distilbret"]) == 2
    assert "'genre-lightning configs' lists" in capsys.readouterr().err
    assert "distilbert" in names()
