"""The run that a command line names."""

import pytest

from genre_lightning.config.words import with_run_config, with_run_named


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text(f"run_dir: {name}\ndata: {{csv: x.csv}}\n")
    return tmp_path


def test_a_home_that_no_shell_has_filled_in(home):
    assert with_run_config(["--run_dir=~/runs/a"]) == ["--config", f"{home}/runs/a/config.yaml", "--run_dir=~/runs/a"]
    with_run_named("test", ["~/runs/a"])


def test_of_two_run_directories_the_last_is_meant(home):
    words = ["--run_dir", "~/runs/a", "--run_dir", "~/runs/b"]
    assert with_run_config(words)[:2] == ["--config", f"{home}/runs/b/config.yaml"]
