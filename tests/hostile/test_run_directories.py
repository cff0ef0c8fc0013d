"""A run directory of a stranger, whose every file may be what it likes: nothing outside it is written or run."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import everything_under, make_run, refused, trained_baseline

from genre_lightning.__main__ import main
from genre_lightning.cache import share_with_group
from genre_lightning.distributed.checkpoint.manifests import manifest_path, verify_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.plots.titles import FIGURES
from genre_lightning.files import read_parquet, replacing_folder
from genre_lightning.inference.tagger import Tagger
from genre_lightning.models.base_weights import weights_digest
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.curves import CurvesLogger

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


# Pipes, links and sizes


def commands(stranger, other, tmp_path):
    return (
        ["tag", stranger, "a text"],
        ["report", stranger],
        ["status", stranger],
        ["compare", stranger, other, "--out", tmp_path / "table"],
        ["ensemble", stranger, other, "--run_dir", tmp_path / "both"],
        ["explain", stranger, "--top_words"],
        ["export", stranger, tmp_path / "folder"],
        ["test", "--run_dir", stranger],
    )


@pytest.mark.parametrize("name", ["curves.csv", "slurm", "evaluation/test/figures/pr.png", "tokenizer/a/b/c"])
def test_a_pipe_is_refused_and_not_waited_for(baseline, stranger, tmp_path, capfd, name):
    place = stranger / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    for words in commands(stranger, baseline, tmp_path):
        refused(capfd, words, str(place), "is a pipe")


@pytest.mark.parametrize("name", ["evaluation", "checkpoints", "a/b/c/d"])
def test_every_command_refuses_a_link_that_leads_out(baseline, stranger, tmp_path, capfd, name):
    outside = tmp_path / "outside"
    (outside / ".test.old").mkdir(parents=True)  # what a command that is cut off leaves, and the next removes
    place = stranger / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(outside)
    for words in commands(stranger, baseline, tmp_path):
        refused(capfd, words, str(place), "leads out of the run directory")
    assert [path.name for path in outside.iterdir()] == [".test.old"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_at_the_name_of_a_replaced_folder_is_in_nobodys_way(stranger, tmp_path, kind):
    aside = stranger / "evaluation" / ".test.old"
    (tmp_path / "precious").write_text("mine")
    if kind == "file":
        aside.touch()
    else:
        aside.symlink_to(tmp_path / "precious")
    with replacing_folder(stranger / "evaluation" / "test") as draft:
        (draft / "new").touch()
    assert [path.name for path in (stranger / "evaluation" / "test").iterdir()] == ["new"]
    assert (tmp_path / "precious").read_text() == "mine"
    assert not aside.exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("evaluation/test/per_genre.csv", "report"),
        ("evaluation/test/thresholds.csv", "report"),
        ("evaluation/test/metrics.json", "report"),
        (f"evaluation/test/figures/{next(iter(FIGURES))}.png", "report"),
        ("curves.csv", "report"),
        ("curves.csv", "status"),
        ("data_audit.json", "report"),
    ],
)
def test_files_without_end_are_not_read(stranger, capfd, name, command):
    """Each has 16 GiB, and no room on disk."""
    place = stranger / name
    place.parent.mkdir(exist_ok=True)
    with place.open("a") as file:
        file.truncate(16 << 30)
    refused(capfd, [command, stranger], place.name, "is damaged")


def test_a_manifest_without_end_is_not_read(tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.touch()
    with manifest_path(checkpoint).open("w") as file:
        file.truncate(16 << 30)
    with pytest.raises(CheckpointError, match="no readable manifest"):
        verify_checkpoint(checkpoint)


def test_curves_without_end_are_not_resumed(tmp_path):
    with (tmp_path / "curves.csv").open("w") as file:
        file.truncate(16 << 30)
    with pytest.raises(CheckpointError, match=r"curves.csv is damaged"):
        CurvesLogger(tmp_path / "curves.csv").resume_at(3)


@pytest.mark.parametrize("name", ["splits.parquet", "evaluation/test/predictions.parquet"])
def test_a_small_parquet_file_that_expands(stranger, monkeypatch, name):
    monkeypatch.setattr("genre_lightning.files._ALWAYS_READ", 1 << 20)
    table = pq.read_table(stranger / name)
    rows = 20_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 10_000]))
    column = column.cast(pa.string())
    pq.write_table(pa.table({"id": column, "text": column}, metadata=table.schema.metadata), stranger / name)
    assert (stranger / name).stat().st_size < 1 << 18
    with pytest.raises(CheckpointError, match=rf"{Path(name).name} is damaged \(it expands to more than"):
        read_parquet(stranger / name)


def test_a_folder_named_like_a_setting_adds_no_column(tmp_path):
    (tmp_path / "lr=0.1").mkdir()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "lr=0.1" / "t.parquet")
    assert read_parquet(tmp_path / "lr=0.1" / "t.parquet").column_names == ["id"]
    with pytest.raises(CheckpointError, match="has no column text"):
        read_parquet(tmp_path / "lr=0.1" / "t.parquet", ["text"])


def test_the_note_of_a_weights_digest_follows_no_link(tmp_path):
    weights, precious = tmp_path / "model.safetensors", tmp_path / "precious"
    weights.write_bytes(b"weights")
    precious.write_text("mine")
    digest = weights_digest([weights], tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "weights").iterdir()
    note.unlink()
    for name in (f".{note.name}.{os.getpid()}", note.name):
        note.with_name(name).symlink_to(precious)
    assert weights_digest([weights], tmp_path / "cache") == digest
    assert precious.read_text() == "mine"


def test_a_folder_of_another_program_is_not_a_run(tmp_path, capfd, sample_csv):
    """A stranger's configuration may name any run_dir, and override its settings."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.yaml").write_text("theme: dark\n")
    with pytest.raises(ConfigError, match="is of no run"):
        RunDirectory(theirs).check_writable()
    config = tmp_path / "stranger.yaml"
    config.write_text(f"run_dir: {theirs}\noverride: true\nmodel: {{init_args: {{backbone: small}}}}\n")
    before = everything_under(tmp_path)
    assert main(["fit", "--config", str(config), "--data.csv", str(sample_csv)]) == 2
    assert "is of no run" in capfd.readouterr().err.splitlines()[-1]
    assert everything_under(tmp_path) == before


def test_a_folder_with_other_files_is_not_shared_with_a_group(tmp_path):
    """A stranger's configuration may name any cache folder, such as the home directory."""
    home, cache = tmp_path / "home", tmp_path / "cache"
    for place in (home / ".ssh", cache / "films"):
        place.mkdir(parents=True)
    home.chmod(0o700)
    cache.chmod(0o755)
    with pytest.raises(ConfigError, match=r"holds \.ssh, which is not of a cache"):
        share_with_group(home)
    assert home.stat().st_mode & 0o777 == 0o700
    share_with_group(cache)
    assert cache.stat().st_mode & 0o2770 == 0o2770
