"""Studies: trials as ordinary runs, stopped and resumed, pruned, failed, refused, and finished."""

import csv
import json
import os
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import optuna
import pytest
import torch
from made_runs import everything_under, refused, without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.errors import ConfigError, PreemptedError
from genre_lightning.evaluation.curves import read_curves
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.runs import RunDirectory
from genre_lightning.training.trial import TrialReporter
from genre_lightning.tuning import finish, trials, worker
from genre_lightning.tuning.results import read_results
from genre_lightning.tuning.storage import checked_storage
from genre_lightning.tuning.study import StudyDirectory

TINY = ["--data.max_tokens=16", "--data.max_films=150", "--data.vocab_size=200"]
SPACE = "model.lr: {low: 1e-3, high: 1e-1, log: true}\nmodel.dropout: {low: 0.0, high: 0.3}\n"


class KilledError(BaseException):
    """Ends a trial as a kill does: nothing more is written."""


@pytest.fixture(scope="module", autouse=True)
def _few_resamples():
    """Bootstraps are most of a tiny trial's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genre_lightning.training.evaluate.write_evaluation", partial(write_evaluation, resamples=20))
        patch.setattr("genre_lightning.tuning.results._RESAMPLES", 20)
        yield


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(SPACE)
    return file


def tune(folder, sample_csv, space, *more):
    words = ["tune", f"--study={folder}", f"--space={space}", f"--data.csv={sample_csv}", *SMALL]
    return main([*words, *TINY, *more])


@pytest.fixture(scope="module")
def study(sample_csv, space, tmp_path_factory):
    """A study of two trials; read only."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    assert tune(folder, sample_csv, space, "--trials=2") == 0
    return StudyDirectory(folder)


@pytest.fixture
def quick(monkeypatch):
    """Trials that train nothing: their metric is 0.5 minus the dropout."""

    def fit(config, parser, trial):
        trial.reporter.report(1, 0.5 - config.model.init_args.dropout)

    monkeypatch.setattr(trials, "fit_run", fit)


def rows(folder):
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_trial_is_a_run_without_a_test_evaluation(study):
    assert [row["state"] for row in rows(study.path)] == ["complete"] * 2
    assert study.page.read_text().count("data:image/png") >= 2
    for number in range(2):
        run = RunDirectory(study.trial(number))
        assert (run.status, run.evaluation("validation").metrics.is_file()) == ("evaluating", True)
        assert not run.evaluation("test").path.exists()
        values = [row["val/f1_micro_tuned"] for row in read_curves(run.curves)[1] if "val/f1_micro_tuned" in row]
        assert float(rows(study.path)[number]["metric"]) == pytest.approx(max(values))


def test_trial_trains_as_fit_does(study, tmp_path, monkeypatch):
    without_page(monkeypatch)
    assert main(["fit", f"--config={study.trial(1) / 'config.yaml'}", f"--run_dir={tmp_path / 'run'}"]) == 0
    ours, theirs = (read_curves(path / "curves.csv")[1] for path in (study.trial(1), tmp_path / "run"))
    assert [row.get("train/loss") for row in ours] == [row.get("train/loss") for row in theirs]


@pytest.mark.slow
def test_killed_study_resumes_its_trial_and_ends_as_an_unbroken_one(study, sample_csv, space, tmp_path, monkeypatch):
    report = TrialReporter.on_train_epoch_end
    killed = []

    def kill(self, trainer, module):
        if trainer.default_root_dir.endswith("0001") and not killed:
            killed.append(trainer.global_step)
            raise KilledError
        report(self, trainer, module)

    monkeypatch.setattr(TrialReporter, "on_train_epoch_end", kill)
    folder = tmp_path / "study"
    with pytest.raises(KilledError):
        tune(folder, sample_csv, space, "--trials=2")
    assert tune(folder, sample_csv, space) == 0
    assert 0 < RunDirectory(folder / "trials" / "0001").read_state().start.step < killed[0]
    compared = ("trial", "state", "metric", "model.lr", "model.dropout", "epochs")
    assert [[row[name] for name in compared] for row in rows(folder)] == [
        [row[name] for name in compared] for row in rows(study.path)
    ]


def test_pruned_trial_keeps_its_curves_and_checkpoint(sample_csv, space, tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)
    assert tune(tmp_path / "study", sample_csv, space, "--trials=1", "--pruning=asha") == 0
    run = RunDirectory(tmp_path / "study" / "trials" / "0000")
    row = rows(tmp_path / "study")[0]
    assert (row["state"], row["epochs"], run.status, run.last.is_file()) == ("pruned", "1", "training", True)
    assert "val/f1_micro_tuned" in read_curves(run.curves)[0]
    assert not run.evaluation("validation").path.exists()


def test_trials_that_all_fail_end_the_study_with_the_reason(sample_csv, space, tmp_path, monkeypatch, capfd):
    def fit(config, parser, trial):
        raise ConfigError("the backbone is gone: put it back")

    monkeypatch.setattr(trials, "fit_run", fit)
    assert tune(tmp_path / "study", sample_csv, space, "--trials=9", "--max_failures=2") == 1
    assert "2 trials in a row failed alike: the backbone is gone" in capfd.readouterr().err
    assert [row["reason"] for row in rows(tmp_path / "study")] == ["the backbone is gone: put it back"] * 2
    assert "the backbone is gone" in (tmp_path / "study" / "failures" / "0001.txt").read_text()


@pytest.mark.slow
def test_grid_ends_with_its_last_point(quick, sample_csv, tmp_path):
    (tmp_path / "space.yaml").write_text("model.dropout: [0.0, 0.1]\nmodel.pooling: [mean, cls]\n")
    assert tune(tmp_path / "study", sample_csv, tmp_path / "space.yaml", "--trials=9", "--sampler=grid") == 0
    found = {(row["model.dropout"], row["model.pooling"]) for row in rows(tmp_path / "study")}
    assert found == {("0.0", "mean"), ("0.0", "cls"), ("0.1", "mean"), ("0.1", "cls")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--sampler=cmaes"], marks=pytest.mark.thorough),
        ["--storage=sqlite"],
        pytest.param(["--pruning=hyperband"], marks=pytest.mark.thorough),
    ],
)
def test_samplers_storages_and_pruning_work_together(quick, options, sample_csv, space, tmp_path):
    options = [word.replace("sqlite", f"sqlite:///{tmp_path / 'trials.db'}") for word in options]
    assert tune(tmp_path / "study", sample_csv, space, "--trials=6", *options) == 0
    results = read_results(StudyDirectory(tmp_path / "study"))
    assert results.counts == {"complete": 6}
    assert results.best == min(results.trials, key=lambda trial: trial.options["model.dropout"]).number
    assert max(results.importance, key=results.importance.get) == "model.dropout"


def test_a_trial_belongs_to_one_worker_at_a_time(study, tmp_path):
    shutil.copytree(study.path, tmp_path / "study")
    folder = StudyDirectory(tmp_path / "study")
    folder.raise_trials(4)
    first, second = worker._claim(folder), worker._claim(folder)
    assert (first.trial.number, second.trial.number) == (2, 3)
    assert worker._claim(folder) is None
    first.lock.release()  # as its process ends
    again = worker._claim(folder)
    assert (again.trial.number, again.trial.params) == (2, first.trial.params)
    for claim in (second, again):
        claim.lock.release()


def test_a_finalist_belongs_to_one_worker_at_a_time(study, tmp_path, capfd, monkeypatch):
    shutil.copytree(study.path, tmp_path / "study")
    folder, trained = StudyDirectory(tmp_path / "study"), []
    monkeypatch.setattr(finish, "train_finalist", lambda folder, number, options, seed, devices: trained.append(number))
    monkeypatch.setattr(finish, "_value_of", lambda path, monitor: 0.5)
    words = ["tune", f"--study={folder.path}", "--finish", "--finalists=2", "--seeds=2"]
    with folder.claimed(0, 1):
        assert main([*words, "--worker"]) == 0
        assert main(words) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "other workers are training finalists" in line
    assert "(1 left)" in line
    assert trained == [1]
    assert main([*words, "--worker"]) == 0
    assert trained == [1, 0]
    assert folder.further_seeds() == {1: {1: 0.5}, 0: {1: 0.5}}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parallel=2"], ["--finish --parallel 2", "--seeds 2"]),
        (["--worker"], ["--finish --worker", "--seeds 2"]),
        (["--worker", "--seeds=2", "--trial=0"], ["leave --trial out"]),
        (["--trial=9", "--seeds=2"], ["--trial 9 is not a complete trial"]),
        (["--parallel=500", "--devices_per_trial=2", "--seeds=2"],
         ["--parallel 500 with --devices_per_trial 2 needs 1000 devices", "CPU cores: give at most"]),
    ],
)  # fmt: skip
def test_finish_that_cannot_be_is_refused(study, capfd, more, words):
    before = everything_under(study.path)
    refused(capfd, ["tune", f"--study={study.path}", "--finish", *more], *words)
    assert everything_under(study.path) == before


@pytest.fixture
def srun(monkeypatch):
    """Makes this process a task of a step with that many."""

    def start(tasks):
        given = {"STEP_ID": 0, "STEP_NUM_NODES": 1, "STEP_NUM_TASKS": tasks, "NTASKS": tasks, "NTASKS_PER_NODE": tasks,
                 "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NNODES": 1, "JOB_ID": 71}  # fmt: skip
        for name, value in given.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))

    return start


def test_worker_with_ranks_is_the_one_task_of_srun(study, tmp_path, srun, capfd):
    shutil.copytree(study.path, tmp_path / "study")
    words = ["tune", f"--study={tmp_path / 'study'}", "--worker", "--devices_per_trial=2"]
    srun(tasks=1)
    assert main(words) == 0  # checks the films as the ranks of a trial would; none is left
    assert ("SLURM_STEP_ID" in os.environ, os.environ["SLURM_JOB_ID"]) == (False, "71")
    capfd.readouterr()
    srun(tasks=2)
    refused(capfd, words, "by srun with one task")


def test_trial_whose_process_always_dies_fails(study, tmp_path, monkeypatch):
    shutil.copytree(study.path, tmp_path / "study")
    folder = StudyDirectory(tmp_path / "study")
    folder.raise_trials(3)

    def die(config, parser, trial):
        raise KilledError

    monkeypatch.setattr(trials, "fit_run", die)
    for _ in range(3):
        with pytest.raises(KilledError):
            worker.work(folder, max_failures=1, devices=1)
    with pytest.raises(worker.TrialsFailError, match="was killed 3 times after step 0"):
        worker.work(folder, max_failures=1, devices=1)


def test_a_trial_that_was_stopped_has_not_died(study, tmp_path, monkeypatch):
    shutil.copytree(study.path, tmp_path / "study")
    folder = StudyDirectory(tmp_path / "study")
    folder.raise_trials(3)

    def stop(config, parser, trial):
        raise PreemptedError("stopped by SIGTERM")

    monkeypatch.setattr(trials, "fit_run", stop)
    for _ in range(5):
        with pytest.raises(PreemptedError):
            worker.work(folder, max_failures=1, devices=1)
    trial = folder.open().get_trials()[2]
    assert (trial.state, trial.user_attrs["starts"]) == (optuna.trial.TrialState.RUNNING, [])


def test_an_epoch_without_validation_is_not_reported():
    reported, broadcast = [], SimpleNamespace(broadcast=lambda value: value)
    reporter = TrialReporter("val/loss", lambda epoch, value: reported.append(epoch))
    trainer = SimpleNamespace(
        callback_metrics={"val/loss": torch.tensor(0.5)}, current_epoch=0, is_global_zero=True, strategy=broadcast,
        max_epochs=4, should_stop=False, sanity_checking=True,
    )  # fmt: skip
    reporter.on_validation_end(trainer, None)
    trainer.sanity_checking = False
    for epoch in range(4):
        trainer.current_epoch = epoch
        if epoch % 2:
            reporter.on_validation_end(trainer, None)
        reporter.on_train_epoch_end(trainer, None)
    assert reported == [2, 4]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--worker", "--trials=3"], ["--worker takes --trials from the study", "leave --trials out"]),
        (["--worker", "--sampler=random"], ["leave --sampler out"]),
        (["--worker", "--finish", "--storage=sqlite:///a.db"], ["leave --storage out"]),
        (["--finish", "--pruning=asha"], ["--finish takes --pruning from the study"]),
        (["--finish", "--space=tune/distilbert"], ["leave --space out"]),
        (["--trial=0"], ["--trial 0 belongs to --finish"]),
        (["--seeds=1"], ["--seeds 1 belongs to --finish"]),
        (["--worker", "--finalists=2"], ["--finalists 2 belongs to --finish"]),
    ],
)
def test_options_without_effect_are_refused(study, capfd, more, words):
    before = everything_under(study.path)
    refused(capfd, ["tune", f"--study={study.path}", *more], *words)
    assert everything_under(study.path) == before


def test_fewer_trials_than_the_study_has_are_reported(study, sample_csv, space, capfd):
    assert tune(study.path, sample_csv, space, "--trials=1") == 0
    assert "--trials 1 is lower than the study's 2, which it keeps" in capfd.readouterr().err
    assert study.settings.trials == 2


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("sqlite:///rel.db", "sqlite:///HERE/rel.db"),
        ("sqlite+pysqlite:///rel.db", "sqlite+pysqlite:///HERE/rel.db"),
        ("sqlite:////abs/a.db?timeout=60", "sqlite:////abs/a.db?timeout=60"),
    ],
)
def test_a_file_of_trials_is_found_from_any_directory(tmp_path, monkeypatch, url, kept):
    monkeypatch.chdir(tmp_path)
    assert checked_storage(url) == kept.replace("HERE", str(tmp_path))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:a?uri=true"])
def test_trials_in_memory_are_refused(url):
    with pytest.raises(ConfigError, match="does not name a file"):
        checked_storage(url)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--trainer.max_epochs=3"], ["other settings", "trainer.max_epochs: 2 → 3"]),
        (["--sampler=random"], ["--sampler tpe"]),
        (["--pruning=median"], ["--pruning none"]),
        (["--run_dir=elsewhere"], ["--run_dir"]),
        (["--trainer.devices=2"], ["trainer.devices is 2", "one device", "--devices_per_trial"]),
        (["--trainer.devices=2", "--devices_per_trial=3"], ["trainer.devices is 2", "3 devices"]),
        (["--devices_per_trial=1000"], ["--devices_per_trial 1000 needs 1000 devices", "CPU cores"]),
        (["--storage=postgresql://me:secret@host/db"], ["password"]),
        (["--storage=postgresql://me@host/db?password=secret"], ["password"]),
        (["--storage=nothing"], ["not a URL"]),
        (["--storage=nosuch://host/db"], ["not the URL of a database", "sqlite:///"]),
        (["--storage=postgresql+psycopg://host/db"], ["needs a driver", "psycopg[binary]"]),
    ],
)
def test_another_study_is_refused(study, sample_csv, space, capfd, monkeypatch, more, words):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # not installed
    before = everything_under(study.path)
    line = refused(
        capfd, ["tune", f"--study={study.path}", f"--space={space}", f"--data.csv={sample_csv}", *SMALL,
                *TINY, *more], *words,
    )  # fmt: skip
    assert "secret" not in line
    assert everything_under(study.path) == before


def test_other_films_are_refused(study, sample_csv, space, tmp_path, capfd):
    lines = sample_csv.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "other.csv").write_text("".join(lines[:-30]), encoding="utf-8")
    assert tune(study.path, tmp_path / "other.csv", space) == 2
    assert "other films" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--worker"], ["is not a study"]),
        (["--finish"], ["is not a study"]),
        ([], ["--space"]),
        (["--space", "SPACE", "--storage", "sqlite:////no/such/folder/trials.db"], ["cannot be reached"]),
        (["--space", "SPACE", "--sampler=grid"], ["without a step"]),
    ],
)
def test_new_study_that_cannot_be_is_refused(arguments, words, sample_csv, space, tmp_path, capfd):
    given = [str(space) if word == "SPACE" else word for word in arguments]
    data = [] if given in (["--worker"], ["--finish"]) else [f"--data.csv={sample_csv}", *SMALL]
    assert main(["tune", f"--study={tmp_path / 'study'}", *given, *data]) == 2
    err = capfd.readouterr().err
    assert all(word in err for word in words), err
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_finish_evaluates_the_test_split_of_the_chosen_trial_alone(study, tmp_path, capfd):
    shutil.copytree(study.path, tmp_path / "study")
    folder = StudyDirectory(tmp_path / "study")
    words = ["tune", f"--study={folder.path}", "--finish"]
    assert main([*words, "--finalists=2", "--seeds=2", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out.splitlines()[-1])
    results = read_results(folder)
    assert [len(trial.seeds) for trial in results.ranked] == [1, 1]
    run = RunDirectory(folder.trial(results.best))
    assert (printed["run_dir"], run.status) == (str(run.path), "finished")
    evaluated = [number for number in range(2) if RunDirectory(folder.trial(number)).evaluation("test").path.exists()]
    assert evaluated == [results.best]
    assert "best of 2 trials by val/f1_micro_tuned (2 complete), and over 2 seeds" in run.report.read_text()
    other = next(trial.number for trial in results.trials if trial.number != results.best)
    assert main([*words, f"--trial={other}"]) == 2
    assert f"--trial {results.best}" in capfd.readouterr().err
