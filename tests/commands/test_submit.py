"""`submit` without a cluster: what it refuses, writes, and gives to sbatch; an executable stands for sbatch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genre_lightning.__main__ import main
from genre_lightning.distributed import batch
from genre_lightning.runs import RunDirectory


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An sbatch that keeps its arguments, on a machine with no other command of SLURM."""
    folder = tmp_path / "commands"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done > "{folder}/args"\necho 42\n')
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def no_sbatch(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def words(sample_csv, run_dir, *more):
    return ["submit", f"--data.csv={sample_csv}", "--model.backbone=small", f"--run_dir={run_dir}", *more]


def frozen(folder):
    """The one configuration that a job reads."""
    [file] = folder.glob("config-*.yaml")
    return file


def refused(capfd, arguments):
    status = main(arguments)
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("genre-lightning: ")]
    assert (status, out, len(lines)) == (2, "", 1), err
    return lines[0]


def directives(script):
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_a_job_is_written_submitted_and_told(sbatch, sample_csv, tmp_path, capfd):
    run_dir = tmp_path / "it's a run"
    more = ["--nodes=4", "--gpus-per-node=8", "--time=8:00:00", "--partition=west", "--account", "films"]
    assert main(words(sample_csv, run_dir, *more, "--sbatch", "qos=high", "--sbatch=exclusive")) == 0
    script = run_dir / "slurm" / "train.sbatch"
    assert (sbatch / "args").read_text().splitlines() == ["--parsable", str(script)]
    asked = directives(script.read_text())
    expected = {
        "nodes": "4", "gpus-per-node": "8", "ntasks-per-node": "8", "cpus-per-task": "8", "time": "8:00:00",
        "partition": "west", "account": "films", "qos": "high", "exclusive": "", "requeue": "", "open-mode": "append",
        "signal": "USR1@300", "output": f'"{run_dir}/slurm/%j.log"', "job-name": '"it\'s a run"',
    }  # fmt: skip
    assert {name: asked.get(name) for name in expected} == expected
    subprocess.run(["/bin/bash", "-n", str(script)], check=True)
    out, err = capfd.readouterr()
    assert out == f"job 42 is queued: {run_dir}\n"
    assert "scancel 42" in err
    assert "genre-lightning status" in err


def test_the_job_reads_a_configuration_that_nothing_changes(sbatch, sample_csv, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {{csv: {sample_csv}}}\nmodel: {{init_args: {{backbone: small, dropout: 0.25}}}}\n")
    run = RunDirectory(tmp_path / "run")
    assert main(["submit", "--config", str(config), "--run_dir", str(run.path), "--trainer.max_epochs=7"]) == 0
    config.unlink()
    kept = yaml.safe_load(frozen(run.batch).read_text())
    assert kept["model"]["init_args"]["dropout"] == 0.25
    assert kept["trainer"]["max_epochs"] == 7
    # the nodes decide the precision and bring the devices; that they have a GPU is certain
    assert [kept["trainer"][name] for name in ("precision", "devices", "num_nodes")] == ["auto", "auto", 1]
    assert kept["trainer"]["accelerator"] == "cuda"
    assert Path(kept["run_dir"]) == run.path
    run.check_writable()  # `fit` may begin there


def test_a_dry_run_prints_the_script_and_leaves_nothing(no_sbatch, sample_csv, tmp_path, capfd):
    assert main(words(sample_csv, tmp_path / "run", "--dry-run", "--gpus-per-node=2")) == 0
    out, _ = capfd.readouterr()
    assert directives(out)["ntasks-per-node"] == "2"
    assert f"GENRE_LIGHTNING_PYTHON={sys.executable}\n" in out
    assert not (tmp_path / "run").exists()
    template = batch.TEMPLATE.read_text()
    # all that is done stands in the template
    assert out.splitlines()[-30:] == template.splitlines()[-30:]


@pytest.mark.parametrize(
    ("more", "cpus"),
    [
        (["--gpus-per-node=2"], "8"),
        (["--gpus-per-node=0"], None),
        (["--gpus-per-node=2", "--sbatch=cpus-per-task=4"], "4"),
        (["--gpus-per-node=2", "--sbatch=cpus-per-gpu=12"], None),
    ],
)
def test_a_rank_on_a_gpu_has_cpus(no_sbatch, sample_csv, tmp_path, capfd, more, cpus):
    assert main(words(sample_csv, tmp_path / "run", "--dry-run", *more)) == 0
    assert directives(capfd.readouterr().out).get("cpus-per-task") == cpus


def test_the_job_trusts_what_the_command_line_does(no_sbatch, sample_csv, tmp_path, capfd, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_losses.py").write_text("")
    assert main(words(sample_csv, tmp_path / "run", "--dry-run", "--trust", "own_losses")) == 0
    assert "--trust own_losses\n" in capfd.readouterr().out


def test_no_requeue(no_sbatch, sample_csv, tmp_path, capfd):
    assert main(words(sample_csv, tmp_path / "run", "--dry-run", "--no-requeue")) == 0
    out, _ = capfd.readouterr()
    asked = directives(out)
    assert "no-requeue" in asked
    assert "requeue" not in asked
    assert "GENRE_LIGHTNING_MAX_REQUEUES=0\n" in out


def test_without_sbatch_there_is_one_line_with_the_fix(no_sbatch, sample_csv, tmp_path, capfd):
    line = refused(capfd, words(sample_csv, tmp_path / "run"))
    assert "no sbatch on this machine" in line
    assert "--dry-run" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "cure"),
    [
        (["--model.dropout=2"], "model.dropout"),
        (["--data.csv=/no/such.csv"], "/no/such.csv"),
        (["--trainer.max_epochz=2"], "max_epochz"),
        (["--trainer.accelerator=cpu"], "--gpus-per-node=0"),
        (["--trainer.accelerator=gpu", "--gpus-per-node=0"], "--gpus-per-node"),
        (["--trainer.precision=16-mixed", "--gpus-per-node=0"], "bf16-mixed"),
        (["--trainer.devices=4", "--gpus-per-node=8"], "leave trainer.devices out"),
        (["--trainer.num_nodes=4", "--nodes=2"], "leave trainer.num_nodes out"),
        (["--trainer.strategy=fsdp", "--trainer.precision=bf16-true"], "trainer.precision"),
        (["--nodes=0"], "--nodes"),
        (["--gpus-per-node=many"], "--gpus-per-node"),
        (["--time=5"], "USR1@60"),
        (["--time=tomorrow"], "not a time limit"),
        (["--time=8 hours"], "--time 8 hours is not a time limit"),
        (["--sbatch=nodes=3"], "leave it out"),
        (["--sbatch=gpus-per-task=1"], "leave it out"),
        (["--sbatch=output=other.log"], "leave it out"),
        (["--sbatch=signal=B:USR1@300"], "leave out B:"),
        (["--sbatch=Q O S=1"], "long name"),
        (["--sbatch=ntasks-per-node=2", "--gpus-per-node=8"], "leave ntasks-per-node out"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(sbatch, sample_csv, tmp_path, capfd, more, cure):
    assert cure in refused(capfd, words(sample_csv, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()
    assert not (sbatch / "args").exists()


def test_a_job_that_waits_keeps_its_configuration(sbatch, sample_csv, tmp_path):
    run = RunDirectory(tmp_path / "run")
    for lr in ("0.001", "0.005"):
        assert main(words(sample_csv, run.path, f"--model.lr={lr}", "--gpus-per-node=0", "--time=0")) == 0
    named = re.search(r"config-\w+\.yaml", (run.batch / "train.sbatch").read_text())[0]
    found = {
        file.name: yaml.safe_load(file.read_text())["model"]["init_args"]["lr"] for file in run.batch.glob("*.yaml")
    }
    assert sorted(found.values()) == [0.001, 0.005]
    assert found[named] == 0.005


def test_braces_of_a_value_are_not_read_again(sbatch, sample_csv, tmp_path, capfd):
    more = ["--array", "data.text={title},{overview}", "--gpus-per-node=0"]
    assert main(words(sample_csv, tmp_path / "{data.text}-{seed}", *more)) == 0
    assert sorted(path.name for path in tmp_path.glob("*-0")) == ["-overview--0", "-title--0"]
    (tmp_path / "{mine}").mkdir()
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "{mine}")
        assert "name a folder without braces" in refused(capfd, words(sample_csv, "run", "--gpus-per-node=0"))


@pytest.mark.parametrize("precision", ["auto", "16-mixed", "bf16-mixed"])
def test_a_gpu_configuration_is_submitted_from_a_machine_without_one(sbatch, sample_csv, tmp_path, precision):
    more = ["--trainer.accelerator=gpu", f"--trainer.precision={precision}", "--trainer.strategy=fsdp"]
    assert main(words(sample_csv, tmp_path / "run", *more, "--gpus-per-node=8")) == 0


def test_a_started_run_is_submitted_again_only_with_its_own_settings(sbatch, sample_csv, tmp_path, capfd):
    run = RunDirectory(tmp_path / "run")
    more = ["--gpus-per-node=0", "--trainer.max_epochs=2"]
    assert main(words(sample_csv, run.path, *more)) == 0
    # what the first start of the job leaves: the same, with the precision of its node
    settings = yaml.safe_load(frozen(run.batch).read_text())
    settings["trainer"]["precision"] = "bf16-mixed"
    run.write_config(yaml.safe_dump(settings))
    capfd.readouterr()
    assert main(["submit", f"--run_dir={run.path}", "--gpus-per-node=0"]) == 0
    capfd.readouterr()
    line = refused(capfd, ["submit", f"--run_dir={run.path}", "--gpus-per-node=0", "--trainer.max_epochs=3"])
    assert "trainer.max_epochs: 2 → 3" in line


def test_an_array_has_a_task_for_each_combination(sbatch, sample_csv, tmp_path, capfd):
    pattern = tmp_path / "runs" / "lr-{model.lr}-seed-{seed}"
    assert main(words(sample_csv, pattern, "--array", "lr=0.1,0.2", "--array=seed=0,1", "--gpus-per-node=0")) == 0
    names = ["lr-0.1-seed-0", "lr-0.1-seed-1", "lr-0.2-seed-0", "lr-0.2-seed-1"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    for number, name in enumerate(names):
        slurm = RunDirectory(tmp_path / "runs" / name).batch
        config = yaml.safe_load(frozen(slurm).read_text())
        assert f"lr-{config['model']['init_args']['lr']}-seed-{config['seed']}" == name
        assert f'"42_{number}"' in (slurm / "job.json").read_text()
    script = (tmp_path / "runs" / names[0] / "slurm" / "array.sbatch").read_text()
    assert directives(script)["array"] == "0-3"
    chosen = script[script.index("case $") : script.index("esac") + 4]
    done = subprocess.run(
        ["/bin/bash", "-c", f'{chosen}\nprintf "%s\n" "$@"'], env={"SLURM_ARRAY_TASK_ID": "2"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(tmp_path / "runs" / names[2]) in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("array", "words_of_error"),
    [("lr", "give an option and its values"), ("lr=0.1,0.1", "each once"), ("seed=0,1", "is the same for several")],
)
def test_an_array_that_cannot_be_is_refused(sbatch, sample_csv, tmp_path, capfd, array, words_of_error):
    line = refused(capfd, words(sample_csv, tmp_path / "lr-{model.lr}", "--array", array, "--gpus-per-node=0"))
    assert words_of_error in line
    assert not (tmp_path / "lr-None").exists()


def test_workers_of_a_study_are_tasks_of_an_array(sbatch, sample_csv, tmp_path, capfd):
    (tmp_path / "space.yaml").write_text("model.lr: [0.1, 0.2]\n")
    study = tmp_path / "a study"
    given = ["submit", "--workers=2", "--gpus-per-node=0", "tune", f"--study={study}"]
    given += [f"--space={tmp_path / 'space.yaml'}", f"--data.csv={sample_csv}", "--model.backbone=small"]
    assert main([*given, "--dry-run"]) == 0
    assert not study.exists()
    shown = capfd.readouterr().out
    assert main(given) == 0
    script = (study / "slurm" / "workers.sbatch").read_text()
    assert script == shown
    assert directives(script)["array"] == "0-1"
    assert "GENRE_LIGHTNING_COMMAND=tune\n" in script
    assert f"--study '{study}' --worker" in script
    assert (study / "study.json").is_file()
    capfd.readouterr()
    assert "submit tune" in refused(capfd, given[:3])


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ([], {"gpus-per-node": "4", "ntasks-per-node": "1", "cpus-per-task": "32", "nodes": "1"}),
        (["--gpus-per-node=4"], {"gpus-per-node": "4", "ntasks-per-node": "1"}),
        (["--sbatch=cpus-per-task=16"], {"gpus-per-node": "4", "cpus-per-task": "16"}),
        (["--gpus-per-node=0"], {"gpus-per-node": None, "ntasks-per-node": "1", "cpus-per-task": "4"}),
    ],
)
def test_workers_ask_for_the_devices_of_a_trial(sbatch, sample_csv, tmp_path, capfd, more, asked):
    (tmp_path / "space.yaml").write_text("model.lr: [0.1, 0.2]\n")
    study = tmp_path / "study"
    given = ["submit", "--workers=2", *more, "tune", f"--study={study}"]
    options = [f"--space={tmp_path / 'space.yaml'}", f"--data.csv={sample_csv}", "--model.backbone=small"]
    assert main([*given, *options, "--devices_per_trial=4", "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert not study.exists()
    assert main([*given, *options, "--devices_per_trial=4"]) == 0
    script = (study / "slurm" / "workers.sbatch").read_text()
    assert script == shown
    assert {name: directives(script).get(name) for name in asked} == asked
    assert script.count(f"--study {study} --worker --devices_per_trial 4 ") == 2
    assert "GENRE_LIGHTNING_RANKS_PER_TASK=4\n" in script
    assert yaml.safe_load((study / "base.yaml").read_text())["trainer"]["devices"] == 4
    assert main(given) == 0
    assert (study / "slurm" / "workers.sbatch").read_text() == script


@pytest.mark.parametrize(
    ("more", "devices", "words_of_error"),
    [
        (["--gpus-per-node=8"], [], "a trial --devices_per_trial 1: give tune --devices_per_trial 8"),
        (
            ["--gpus-per-node=8"],
            ["--devices_per_trial=4"],
            "each worker would have 8 devices, and a trial --devices_per_trial 4",
        ),
        (["--gpus-per-node=0", "--sbatch=ntasks-per-node=2"], ["--devices_per_trial=2"], "would have 2 devices"),
        (["--nodes=2"], ["--devices_per_trial=2"], "a trial runs on one node"),
        ([], ["--parallel=2"], "leave --worker, --parallel and --finish out"),
    ],
)
def test_other_devices_than_those_of_a_trial_are_refused(sbatch, tmp_path, capfd, more, devices, words_of_error):
    assert words_of_error in refused(capfd, ["submit", *more, "tune", f"--study={tmp_path / 'study'}", *devices])
    assert not (tmp_path / "study").exists()
