"""A worker of a study: it takes up unfinished trials, then begins new ones, until the study has all of its trials."""

from __future__ import annotations

import gc
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from optuna.trial import Trial, TrialState

from genre_lightning.compat import running_trial
from genre_lightning.distributed.checkpoint.manifests import manifest_of, manifest_path
from genre_lightning.distributed.signals import FLAG
from genre_lightning.errors import GenreLightningError, PreemptedError, PrunedError, one_line
from genre_lightning.failures import machine_error
from genre_lightning.files import write_text
from genre_lightning.locks import HeldLock
from genre_lightning.progress import duration, say
from genre_lightning.runs import RunDirectory
from genre_lightning.tuning.space import Options
from genre_lightning.tuning.study import StudyDirectory
from genre_lightning.tuning.trials import train_trial

if TYPE_CHECKING:
    import optuna

_MOST_DEATHS = 3
"""Starts of a trial at one step, none of which came to a further one, after which it counts as failed."""


class TrialsFailError(GenreLightningError):
    """Several trials in a row have failed."""

    exit_status = 1


@dataclass
class Claim:
    """A trial that belongs to this worker.

    Attributes:
        trial: Of Optuna, running.
        lock: Held until the trial has ended.
        study: As the trial was sampled in.
    """

    trial: Trial
    lock: HeldLock
    study: optuna.Study


def work(folder: StudyDirectory, max_failures: int, devices: int) -> None:
    """Do trials until none is left for this worker.

    Args:
        folder: Of the study.
        max_failures: Trials that may fail one after another.
        devices: Of each trial.

    Raises:
        PreemptedError: A signal has stopped the worker; the trial's state is saved.
        TrialsFailError: That many trials have failed one after another.
    """
    failed: list[str] = []
    while (claim := _claim(folder)) is not None:
        with claim.lock:
            reason = _do(folder, claim, devices)
        failed = [*failed, reason] if reason is not None else []
        if len(failed) >= max_failures:
            same = " alike" if len(set(failed)) == 1 else ""
            raise TrialsFailError(
                f"{len(failed)} trials in a row failed{same}: {failed[-1]} (see {folder.path / 'failures'}); fix that, "
                "then run the same command again"
            )


def _claim(folder: StudyDirectory) -> Claim | None:
    """Take up a trial whose worker is gone, else sample a new one; None if all are done or others have them."""
    with folder.locked():
        found = folder.open().get_trials(deepcopy=False)
        for frozen in found:
            if frozen.state == TrialState.RUNNING and (lock := folder.claimed(frozen.number)) is not None:
                study = folder.open(frozen.number)
                return Claim(running_trial(study, frozen), lock, study)
        number = sum(frozen.state != TrialState.WAITING for frozen in found)
        if number >= folder.settings.trials:
            return None
        study = folder.open(number)
        if folder.settings.sampler == "grid":
            points = folder.space.grid()
            if number >= len(points):
                return None
            if len(found) == number:  # else a worker that was killed has left it there
                study.enqueue_trial(points[number])
        trial = study.ask()
        lock = folder.claimed(trial.number)
        if lock is None:
            raise GenreLightningError(f"another process holds trial {trial.number} of {folder.path}: stop it")
        folder.space.suggest(trial)
        return Claim(trial, lock, study)


def _do(folder: StudyDirectory, claim: Claim, devices: int) -> str | None:
    """Train a trial to its end, and keep what became of it; return why it failed, or None."""
    trial, study = claim.trial, claim.study
    number, started = trial.number, time.monotonic()
    options = folder.space.suggest(trial)
    say(f"trial {number}   {describe(options)}")
    try:
        _note_start(folder, trial)
        train_trial(folder, trial, options, devices)
    except PrunedError as error:
        study.tell(trial, state=TrialState.PRUNED)
        say(f"trial {number}   pruned {error}")
        return None
    except PreemptedError:
        # a worker that stops on a signal has not died
        trial.set_user_attr("starts", trial.user_attrs["starts"][:-1])
        raise
    except Exception as error:
        reason = one_line(machine_error(error) or error)[:400] or type(error).__name__
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=TrialState.FAIL)
        _keep_traceback(folder, number)
        say(f"trial {number}   failed: {reason}")
        return reason
    finally:
        # an error may have left the training where a signal waits for a step's end
        FLAG.waiting = False
        _free_memory()
    values = [value for frozen in (study.trials[number],) for value in frozen.intermediate_values.values()]
    value = max(values) if folder.maximises else min(values)
    study.tell(trial, value)
    name = folder.settings.monitor.removeprefix("val/")
    best = study.best_trial
    say(
        f"trial {number}   {name} {value:.4f}, {duration(time.monotonic() - started)} "
        f"(best {best.value:.4f}, trial {best.number})"
    )
    return None


def _note_start(folder: StudyDirectory, trial: Trial) -> None:
    """Keep at which step the trial starts.

    Raises:
        GenreLightningError: Its process has ended at this very step too often.
    """
    last = RunDirectory(folder.trial(trial.number)).last
    step = (manifest_of(last).global_step or 0) if manifest_path(last).is_file() else 0
    starts = [*trial.user_attrs.get("starts", []), step]
    if starts[-_MOST_DEATHS - 1 :] == [step] * (_MOST_DEATHS + 1):
        raise GenreLightningError(
            f"its process was killed {_MOST_DEATHS} times after step {step:,}, perhaps for want of memory"
        )
    trial.set_user_attr("starts", starts)


def describe(options: Options) -> str:
    """Return the options of a trial in one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in options.items()
    )


def _keep_traceback(folder: StudyDirectory, number: int) -> None:
    path = folder.failure(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, traceback.format_exc())


def _free_memory() -> None:
    if torch.cuda.is_available():
        gc.collect()  # trainer, model and callbacks hold each other
        torch.cuda.empty_cache()
