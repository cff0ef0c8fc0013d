"""Where a run stands, from its directory and SLURM."""

from __future__ import annotations

from dataclasses import dataclass

from genre_lightning.distributed.batch import JobState, job_state
from genre_lightning.distributed.checkpoint.manifests import step_of
from genre_lightning.evaluation.curves import read_curves
from genre_lightning.run_state import Start
from genre_lightning.runs import RunDirectory

_SHOWN = ("train/loss", "val/loss", "val/f1_micro_tuned", "val/map_macro")


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        run_dir: Its directory.
        state: "queued", "running", "evaluating", "stopped", "finished", or SLURM's word for a job that ended badly.
        job: Id of its last job; None for a run that no job did.
        slurm: State of the job in SLURM; None if SLURM does not know it.
        step: Optimizer steps done; steps: of the whole training, None before it has begun.
        saved_step: Optimizer steps of the last checkpoint, from which the run resumes if it is cut off now.
        steps_per_second: Rate of the last start, validations and saves included; None before it has logged anything.
        seconds_left: Seconds left of the training at that rate; None if it is not training.
        restarts: Starts of the training after the first one.
        metrics: The last value of each curve.
    """

    run_dir: str
    state: str
    job: str | None
    slurm: JobState | None
    step: int
    steps: int | None
    saved_step: int | None
    steps_per_second: float | None
    seconds_left: float | None
    restarts: int
    metrics: dict[str, float]


def read_status(run: RunDirectory) -> RunStatus:
    """Read where a run stands.

    Raises:
        CheckpointError: The directory is not a run, and none was submitted in it.
        ConfigError: A link in it leads out of it, or it holds a pipe or the like.
    """
    run.check_links()
    submitted = run.job()
    if submitted is None:
        run.require_run()
    noted = run.read_state()
    job = noted.start.job if noted.start else None
    if submitted is not None:
        job = _later(job, submitted)
    slurm = job_state(job) if job else None
    rows = read_curves(run.curves)[1] if run.curves.is_file() else []
    saved = step_of(run.last)
    # a row of step 0 is written after the first optimizer step
    step = max([saved or 0, *(int(row["step"]) + 1 for row in rows if "step" in row)])
    rate = _rate(run, noted.start, step)
    state = _state(run, slurm)
    left = (noted.steps - step) / rate if rate and noted.steps and state == "running" else None
    return RunStatus(
        run_dir=str(run.path),
        state=state,
        job=job,
        slurm=slurm,
        step=step,
        steps=noted.steps,
        saved_step=saved,
        steps_per_second=None if rate is None else round(rate, 4),
        seconds_left=None if left is None else round(left, 1),
        restarts=max(0, noted.starts - 1),
        metrics=_last_values(rows),
    )


def _later(started: str | None, submitted: str) -> str:
    """Return the later of two jobs by their ids: a run may be submitted again, or started by hand after it was."""
    return submitted if started is None or int(started.split("_")[0]) <= int(submitted.split("_")[0]) else started


def _state(run: RunDirectory, slurm: JobState | None) -> str:
    if run.status == "finished":
        return "finished"
    if slurm and slurm.state == "PENDING":
        return "queued"
    if (slurm and slurm.state == "RUNNING") or run.is_locked():
        return "evaluating" if run.status == "evaluating" else "running"
    return slurm.state.lower() if slurm and slurm.state != "COMPLETED" else "stopped"


def _last_values(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for row in rows for name, value in row.items() if name not in ("epoch", "step")}


def _rate(run: RunDirectory, start: Start | None, step: int) -> float | None:
    """Return the optimizer steps a second from the last start of the training to the last row of its curves."""
    if start is None or not run.curves.is_file() or step <= start.step:
        return None
    seconds = run.curves.stat().st_mtime - start.time
    return (step - start.step) / seconds if seconds > 0 else None
