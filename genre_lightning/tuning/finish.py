"""The end of a study: finalists with further seeds, and the one evaluation of the test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genre_lightning.config.parser import parse
from genre_lightning.config.words import option_word
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import read_json, write_json
from genre_lightning.progress import say
from genre_lightning.runs import RunDirectory
from genre_lightning.shapes import count, text
from genre_lightning.training.fit import fit_run
from genre_lightning.tuning.parallel import WorkersError, run_workers
from genre_lightning.tuning.results import StudyResults, TrialResult, evaluated, read_results
from genre_lightning.tuning.study import StudyDirectory
from genre_lightning.tuning.trials import run_ranks, train_finalist
from genre_lightning.tuning.worker import describe


def finish_study(
    folder: StudyDirectory,
    *,
    finalists: int = 1,
    seeds: int = 1,
    trial: int | None = None,
    devices: int = 1,
    parallel: int = 1,
    visible: Sequence[str] = (),
) -> tuple[StudyResults, RunDirectory, dict[str, dict[str, Any]]]:
    """Choose a configuration on validation, and evaluate its run on the test split, once for a study.

    Args:
        folder: Of the study.
        finalists: Trials that are repeated with further seeds.
        seeds: Of each finalist, the trial's own included.
        trial: Number of the trial to choose, such as a simpler one; None chooses the best.
        devices: Of each training.
        parallel: Trainings with further seeds at once, each in a worker of its own; the evaluation is one.
        visible: Devices of each worker, see `worker_devices`.

    Returns:
        The results of the study, the chosen run, and what each split's metrics.json holds.

    Raises:
        ConfigError: No trial is complete, the test split was evaluated for another trial, or workers of another
            command are training finalists.
        WorkersError: Workers have failed.
    """
    complete = [result.number for result in _complete(folder)]
    if trial is not None and trial not in complete:
        raise ConfigError(f"--trial {trial} is not a complete trial of {folder.path}: choose one of its trials.csv")
    repeat_finalists(folder, finalists, seeds, devices, parallel, visible)
    if left := _repeats_left(folder, finalists, seeds):
        raise ConfigError(
            f"other workers are training finalists of {folder.path} ({len(left)} left): wait for them, then run the "
            "same command again"
        )
    results = read_results(folder)
    chosen = results.best if trial is None else trial
    assert chosen is not None
    how = results.how_chosen if trial is None else f"trial {chosen} by hand, {results.how_chosen}"
    how = _keep_choice(folder, chosen, how)
    run = RunDirectory(folder.trial(chosen))
    state = run.read_state()
    run.set_status(run.status, training={**(state.training or {}), "chosen": how})
    say(f"chosen  trial {chosen}, {how}")
    words = [f"--config={run.config}", option_word("run_dir", run.path), option_word("trainer.devices", devices)]
    if devices > 1:
        run_ranks(["fit", *words], devices)
    config, parser = parse("fit", words)
    run, metrics = fit_run(config, parser)
    return results, run, metrics


def _keep_choice(folder: StudyDirectory, chosen: int, how: str) -> str:
    """Note which trial the test split is evaluated for; return how it was chosen when it first was.

    Raises:
        ConfigError: It was evaluated for another one, whose result is known.
    """
    if folder.choice.is_file():
        kept = read_json(folder.choice, {"trial": count, "how": text}, "put it back, or start another --study")
        before = kept["trial"]
        if before != chosen:
            raise ConfigError(
                f"the test split was evaluated for trial {before} of {folder.path}, and another choice would be made "
                f"knowing that result: use --trial {before}, or start another --study"
            )
        return str(kept["how"])
    write_json(folder.choice, {"trial": chosen, "how": how})
    return how


def _complete(folder: StudyDirectory) -> list[TrialResult]:
    """Return complete trials, the best first, by their own value: a second command has the same finalists.

    Raises:
        ConfigError: There is none.
    """
    results = read_results(folder, compare=False)
    if not results.ranked:
        raise ConfigError(f"{folder.path} has no complete trial: run the study first")
    sign = -1 if results.maximises else 1
    return sorted(results.ranked, key=lambda result: (sign * (result.value or 0.0), result.number))


def _repeats_left(folder: StudyDirectory, finalists: int, seeds: int) -> list[tuple[TrialResult, int]]:
    """Return each finalist with each further seed that it has not been trained with."""
    first, done = folder.settings.seed, folder.further_seeds()
    return [
        (result, seed)
        for result in _complete(folder)[:finalists]
        for seed in range(first + 1, first + seeds)
        if seed not in done.get(result.number, {})
    ]


def repeat_finalists(
    folder: StudyDirectory, finalists: int, seeds: int, devices: int, parallel: int, visible: Sequence[str]
) -> None:
    """Train finalists with further seeds, except those that are done and those that other workers have taken.

    Args:
        folder: Of the study.
        finalists: Trials that are repeated.
        seeds: Of each, the trial's own included.
        devices: Of each training.
        parallel: Trainings at once, each in a worker of its own; 1 trains in this process.
        visible: Devices of each worker, see `worker_devices`.

    Raises:
        ConfigError: No trial is complete.
        PreemptedError: A signal has stopped it; states are saved.
        WorkersError: Workers have failed.
    """
    left = _repeats_left(folder, finalists, seeds)
    if parallel == 1:
        for result, seed in left:
            _repeat(folder, result, seed, devices)
    elif left:
        words = ["--finish", "--finalists", str(finalists), "--seeds", str(seeds)]
        workers = min(parallel, len(left))
        statuses = run_workers(folder, workers, visible[:workers], words, devices)
        if any(statuses) and _repeats_left(folder, finalists, seeds):
            raise WorkersError(statuses)


def _repeat(folder: StudyDirectory, result: TrialResult, seed: int, devices: int) -> None:
    """Train a trial's configuration with a further seed, unless another worker does or has done it."""
    claim = folder.claimed(result.number, seed)
    if claim is None:
        return
    with claim:
        if seed in folder.further_seeds().get(result.number, {}):
            return
        say(f"trial {result.number}, seed {seed}   {describe(result.options)}")
        train_finalist(folder, result.number, result.options, seed, devices)
        value = _value_of(folder.finalist(result.number, seed), folder.settings.monitor)
        folder.keep_seed(result.number, seed, value)


def _value_of(path: Path, monitor: str) -> float:
    """Return the metric of a run's evaluation on the validation films."""
    value = evaluated(Run(path).metrics("validation"), monitor, None)
    if value is None:
        raise CheckpointError(f"{path} has no {monitor} in its evaluation: delete the directory, then run this again")
    return value
