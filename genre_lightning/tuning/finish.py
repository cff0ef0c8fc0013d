"""The end of a study: finalists with further seeds, and the one evaluation of the test split."""

from __future__ import annotations

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
from genre_lightning.tuning.results import StudyResults, TrialResult, evaluated, read_results
from genre_lightning.tuning.study import StudyDirectory
from genre_lightning.tuning.trials import run_ranks, train_finalist
from genre_lightning.tuning.worker import describe


def finish_study(
    folder: StudyDirectory, *, finalists: int = 1, seeds: int = 1, trial: int | None = None, devices: int = 1
) -> tuple[StudyResults, RunDirectory, dict[str, dict[str, Any]]]:
    """Choose a configuration on validation, and evaluate its run on the test split, once for a study.

    Args:
        folder: Of the study.
        finalists: Trials that are repeated with further seeds.
        seeds: Of each finalist, the trial's own included.
        trial: Number of the trial to choose, such as a simpler one; None chooses the best.
        devices: Of each training.

    Returns:
        The results of the study, the chosen run, and what each split's metrics.json holds.

    Raises:
        ConfigError: No trial is complete, or the test split was evaluated for another trial.
    """
    results = read_results(folder, compare=False)
    if not results.ranked:
        raise ConfigError(f"{folder.path} has no complete trial: run the study first")
    if seeds > 1:
        for result in _by_value(results)[:finalists]:
            _repeat(folder, result, seeds, devices)
    results = read_results(folder)
    chosen = results.best if trial is None else trial
    if chosen not in [result.number for result in results.ranked]:
        raise ConfigError(f"--trial {trial} is not a complete trial of {folder.path}: choose one of its trials.csv")
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


def _by_value(results: StudyResults) -> list[TrialResult]:
    """Rank complete trials by their own value, so that the same finalists are repeated by a second command."""
    sign = -1 if results.maximises else 1
    return sorted(results.ranked, key=lambda result: (sign * (result.value or 0.0), result.number))


def _repeat(folder: StudyDirectory, result: TrialResult, seeds: int, devices: int) -> None:
    """Train a trial's configuration with further seeds; those that are done are left alone."""
    for further in range(1, seeds):
        seed = folder.settings.seed + further
        if seed in folder.further_seeds().get(result.number, {}):
            continue
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
