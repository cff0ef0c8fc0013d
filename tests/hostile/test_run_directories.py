"""A run directory of a stranger, whose every file may be what it likes: nothing outside it is written or run."""

import json
import shutil
from pathlib import Path

import pytest
from made_runs import make_run, refused, trained_baseline

from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.runs import RunDirectory
from genre_lightning.tagger import Tagger

BOMB = "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("run"))


@pytest.fixture
def stranger(baseline, tmp_path):
    """A copy to be spoilt."""
    return Path(shutil.copytree(baseline, tmp_path / "stranger"))


@pytest.mark.parametrize("command", ["tag", "report", "test", "ensemble"])
def test_a_configuration_that_expands_to_gigabytes(baseline, stranger, capfd, command):
    with (stranger / "config.yaml").open("a") as file:
        file.write(BOMB)
    others = {"tag": ["a text"], "ensemble": [baseline, "--run_dir", stranger.parent / "both"]}
    refused(capfd, [command, stranger, *others.get(command, [])], "config.yaml")


def test_the_library_refuses_such_a_configuration(stranger):
    with (stranger / "config.yaml").open("a") as file:
        file.write(BOMB)
    with pytest.raises(CheckpointError, match="expands to more than"):
        Tagger(stranger)


@pytest.mark.parametrize(
    "name", ["evaluation", "evaluation/test", "evaluation/test/figures", "checkpoints", "slurm", "tokenizer"]
)
def test_links_that_lead_out_of_the_run_directory(stranger, tmp_path, capfd, sample_csv, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    shutil.rmtree(stranger / name, ignore_errors=True)
    (stranger / name).parent.mkdir(exist_ok=True)
    (stranger / name).symlink_to(outside)
    film = ["--data.csv", sample_csv]
    for words in (["baseline", "tfidf_nb", *film], ["test"], ["validate"], ["predict", *film, "--out", "o.csv"]):
        refused(capfd, [*words, "--run_dir", stranger], "leads out of the run directory")
    run = RunDirectory(stranger)
    for check in (run.check_writable, run.require_run):
        with pytest.raises(ConfigError, match="leads out of the run directory"):
            check()
    assert [path.name for path in outside.iterdir()] == ["precious"]


def test_links_within_the_run_directory_stay(stranger, tmp_path):
    (stranger / "best").symlink_to(stranger / "evaluation")
    (stranger / "wandb" / "run-1").mkdir(parents=True)
    (stranger / "wandb" / "run-1" / "core.log").symlink_to(tmp_path)  # as W&B does
    RunDirectory(stranger).require_run()
    (tmp_path / "link").symlink_to(stranger)
    RunDirectory(tmp_path / "link").require_run()


def ensemble(place, members, like):
    shutil.copytree(like, place)
    weights = {str(member): 1 / len(members) for member in members}
    (place / "config.yaml").write_text(json.dumps({"ensemble": {"weights": weights, "fitted_on": "validation"}}))
    return place


def test_ensembles_that_name_themselves_or_one_another_often(baseline, tmp_path):
    with pytest.raises(CheckpointError, match="does not name two or more different runs"):
        Tagger(ensemble(tmp_path / "self", [tmp_path / "self"], baseline))
    pair = [baseline, Path(shutil.copytree(baseline, tmp_path / "other"))]
    for number in range(7):  # 128 runs to open
        pair = [ensemble(tmp_path / f"{number}{name}", pair, baseline) for name in "ab"]
    with pytest.raises(CheckpointError, match="more than 64 runs"):
        Tagger(pair[0])


def test_a_job_runs_no_script_of_a_run_directory(tmp_path, monkeypatch, capfd, sample_csv):
    run = make_run(tmp_path / "run")
    (run / "slurm").mkdir()
    (run / "slurm" / "env.sh").write_text("false")
    RunDirectory(run).write_config(f"data: {{csv: {sample_csv}}}\nmodel:\n  init_args:\n    backbone: small\n")
    for place in (run, run / "slurm"):
        monkeypatch.chdir(place)
        refused(
            capfd, ["submit", "--gpus-per-node=0", "--dry-run", "--run_dir", run], "submit from your project's folder"
        )


@pytest.mark.parametrize("name", ["decision.json", "run_state.json"])
@pytest.mark.parametrize("content", ["[" * 200_000, None])
def test_json_that_is_nested_or_large(stranger, name, content):
    """The second takes 4 GiB to read, and no room on disk."""
    with (stranger / name).open("w") as file:
        file.write(content or "")
        if content is None:
            file.truncate(4 << 30)
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        Tagger(stranger)
