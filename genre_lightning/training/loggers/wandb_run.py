"""W&B: one run for a run directory, however often it is started, and with or without a server."""

from __future__ import annotations

import csv
import netrc
import os
import shlex
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from genre_lightning.config.run import WandbOptions
from genre_lightning.config.sweep import sweep_run_id
from genre_lightning.distributed.checkpoint.manifests import manifest_path
from genre_lightning.errors import one_line
from genre_lightning.progress import say
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.wandb_files import next_step

__all__ = ["RunWandbLogger", "WandbOptions", "wandb_run_id"]

_REACH_SECONDS = 3.0
_INIT_SECONDS = 10.0
_FINISH_SECONDS = 60.0  # for what has not been sent at the end; the files stay, and 'wandb sync' sends it
_FINISH_SECONDS_WITH_MODEL = 1500.0  # the other ranks wait meanwhile, and NCCL and gloo give up after 1,800


def wandb_run_id(run: RunDirectory) -> str:
    """Return the id of the directory's run in W&B, that of a sweep or made once, and kept in run_state.json."""
    known = run.read_state().wandb_id
    given = sweep_run_id()
    if known is None or (given is not None and given != known):
        known = given or uuid.uuid4().hex[:10]
        run.set_status(run.status, wandb_id=known)
    return known


class RunWandbLogger(WandbLogger):
    """Lightning's W&B logger, for a run that is resumed.

    A row of the curves has the optimizer step as its step in W&B, and stands there once. At a start the logger asks
    what W&B has (the server online, the run's own files offline), first sends the rows of curves.csv that are missing,
    as those of a process that was killed may be, and then leaves out what a resumed run logs for the second time.

    Args:
        run: The directory, begun.
        options: See `WandbOptions`.
    """

    def __init__(self, run: RunDirectory, options: WandbOptions) -> None:
        run_id = wandb_run_id(run) if getattr(rank_zero_only, "rank", 0) == 0 else None
        project = options.project or os.environ.get("WANDB_PROJECT") or "genre_lightning"
        super().__init__(project=project, id=run_id, save_dir=run.path)
        self.run = run
        self.options = options
        self.next_step = 0
        """First step that W&B has no row of; known once the run is started."""
        self._lost = False

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's own run, started when it is first asked for."""
        if self._experiment is None:
            self._experiment, online = self._start()
            self.next_step = self._experiment.step if online else next_step(self.folder, str(self._id))
            self._send_missing(self._experiment)
        return self._experiment

    @property
    def folder(self) -> Path:
        """Where W&B keeps what it has of the run."""
        return self.run.path / "wandb"

    def _start(self) -> tuple[Any, bool]:
        """Start the run; whether it is online."""
        # its reports about itself: they would say so on the screen when the server cannot take them
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        reason = _why_offline(self.options.mode, str(settings.mode or ""), str(settings.base_url))
        if not reason:
            try:
                experiment = self._init("online")
            except Exception as error:  # whatever the server answers, training starts
                reason = f"{settings.base_url} did not take the run: {one_line(error)[:160]}"
                wandb.teardown()  # its process holds the id until then
            else:
                say(f"W&B     {experiment.url}")
                return experiment, True
        experiment = self._init("offline")
        pattern = f"{shlex.quote(str(self.folder))}/offline-run-*-{self._id}*"
        say(f"W&B is offline ({reason}): send the run later with 'wandb sync {pattern}'")
        return experiment, False

    def _init(self, mode: Literal["online", "offline"]) -> Any:
        import wandb

        options = self.options
        return wandb.init(
            project=self._project,
            entity=options.entity,
            name=options.name or os.environ.get("WANDB_NAME") or self.run.path.name,
            group=options.group,
            tags=options.tags or None,
            notes=options.notes,
            id=self._id,
            resume="allow",
            dir=str(self.run.path),
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS_WITH_MODEL if options.log_model else _FINISH_SECONDS,
                # what it would find is the repository of the working directory, and a remote that may hold a password
                disable_git=True,
                disable_code=True,
            ),
        )

    def _send_missing(self, experiment: Any) -> None:
        """Send the rows of curves.csv, all of them before the checkpoint, that W&B does not have."""
        if not self.run.curves.is_file():
            return
        with self.run.curves.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(row.pop("step"))
                if step >= self.next_step:
                    experiment.log({name: float(value) for name, value in row.items() if value}, step=step)

    def _guarded(self, work: Callable[[Any], None]) -> None:
        """Have W&B do something; what its own process dies of must not end a training and is sent at the next start."""
        if self._lost:
            return
        try:
            work(self.experiment)
        except Exception as error:
            self._lost = True
            say(f"W&B has failed ({one_line(error)[:160]}): the run continues without it, and curves.csv has all rows")

    @rank_zero_only
    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Start the run, and keep metadata beside its curves: configuration, data audit, commit."""
        self._guarded(lambda experiment: experiment.config.update(dict(metadata), allow_val_change=True))

    @override
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: `describe` has the whole configuration."""

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        def log(experiment: Any) -> None:
            if step is None or step >= self.next_step:
                experiment.log(dict(metrics), step=step)

        self._guarded(log)

    @rank_zero_only
    def log_evaluation(self, step: int, content: Mapping[str, Any], summary: Mapping[str, float | str]) -> None:
        """Log what belongs to the end of a run, past all that W&B has.

        Args:
            step: Optimizer steps done.
            content: Tables and images.
            summary: Metrics of the run as a whole.
        """

        def log(experiment: Any) -> None:
            experiment.log(dict(content), step=max(step, self.next_step, experiment.step))
            experiment.summary.update(dict(summary))

        self._guarded(log)

    @rank_zero_only
    def log_best(self) -> None:
        """Keep the best checkpoint as an artifact, with all that it takes to use it."""
        import wandb

        artifact = wandb.Artifact(f"model-{self._id}", type="model")
        run = self.run
        for path in (run.best, manifest_path(run.best), run.config, run.decision, run.tokenizer):
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name)
            elif path.is_file():
                artifact.add_file(str(path), name=path.name)
        self._guarded(lambda experiment: experiment.log_artifact(artifact, aliases=["best"]))

    @rank_zero_only
    def close(self, *, preempted: bool = False, failed: bool = False) -> None:
        """End this start of the run; the next one continues it.

        Args:
            preempted: Stopped by a signal, its state saved.
            failed: Ended by an error.
        """
        if self._experiment is None:
            return

        def finish(experiment: Any) -> None:
            if preempted:
                experiment.mark_preempting()
            experiment.finish(exit_code=int(preempted or failed))

        self._guarded(finish)
        self._experiment = None


def _why_offline(mode: str, configured: str, server: str) -> str:
    """Return why a run cannot or is not to be online; empty if it can.

    Args:
        mode: Mode that the options name.
        configured: W&B's own mode, as of WANDB_MODE.
        server: Its URL.
    """
    if mode == "offline":
        return "wandb.mode is offline"
    if configured in ("offline", "dryrun"):
        return f"WANDB_MODE is {configured}"
    if not _has_key(server):
        return "no key in WANDB_API_KEY or ~/.netrc"
    try:
        # any answer will do; through the same proxies as W&B
        urllib.request.urlopen(f"{server.rstrip('/')}/healthz", timeout=_REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return f"{server} cannot be reached: {one_line(getattr(error, 'reason', error))[:160]}"
    return ""


def _has_key(server: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(server).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False
