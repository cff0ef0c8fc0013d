"""W&B's settings in the working directory: a stranger's folder cannot choose the server that the key is sent to."""

import os

import pytest

from genre_lightning.__main__ import main
from genre_lightning.errors import ConfigError
from genre_lightning.training.loggers.wandb_settings import check_local_settings


@pytest.mark.parametrize("name", ["wandb", ".wandb"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[default]\nmode = offline\nbase_url = https://stranger.example\n", "sets base_url"),
        ("[DEFAULT]\nbase_url = https://stranger.example\n[default]\n", "sets base_url"),
        ("[default]\nhttps_proxy = http://stranger.example\n", "sets https_proxy"),
        ("[default]\nAPI_KEY = of the stranger\n", "sets api_key"),
        ("base_url = https://stranger.example\n", "cannot be read"),
        ("x" * (1 << 19), "bytes, more than"),
    ],
)
def test_what_steers_requests_is_refused(tmp_path, name, content, words):
    (tmp_path / name).mkdir()
    (tmp_path / name / "settings").write_text(content)
    with pytest.raises(ConfigError, match=words) as error:
        check_local_settings(tmp_path)
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "wandb").mkdir()
    os.mkfifo(tmp_path / "wandb" / "settings")
    with pytest.raises(ConfigError, match="no such"):
        check_local_settings(tmp_path)


def test_what_wandbs_own_commands_write_is_taken(tmp_path):
    check_local_settings(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\nentity = me\nproject = films\n")
    check_local_settings(tmp_path)


@pytest.mark.parametrize("option", ["--wandb", "--trainer.logger=WandbLogger --trainer.logger.save_dir=run"])
def test_fit_refuses_before_anything_is_written(tmp_path, monkeypatch, capfd, sample_csv, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = https://stranger.example\n")
    words = ["fit", "--data.csv", sample_csv, "--model.backbone=small", "--run_dir", tmp_path / "run"]
    assert main([*map(str, words), *option.split()]) == 2
    assert "wandb/settings sets base_url" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
