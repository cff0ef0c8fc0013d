"""A `genre-lightning` process that a fault strikes at a chosen moment, and that keeps a journal of what it does.

Run as `python worker.py fit …` with FAULT="moment:count:signal[:rank]" in the environment: at the count-th time that
the moment comes, the process of that rank (0 unless named) sends itself the signal, or raises for ERROR; for rank "all"
rank 0 sends it to every rank. Without FAULT nothing strikes. JOURNAL names a file that gets a line for each start, each
optimizer step and each strike, and at the end of a process how often each moment came.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Moment:
    """The call of a function, on a file if one is named.

    Attributes:
        target: "module:attribute" of the function.
        file: Part of the path that the call is about; any if empty.
        after: Strike when the call has returned, not before it.
    """

    target: str
    file: str = ""
    after: bool = False


_MODEL = "genre_lightning.models.base:GenreClassifier"
_SAVE = "genre_lightning.training.callbacks.checkpoints:RunCheckpoint._write"

MOMENTS: dict[str, Moment] = {
    "start-up": Moment("genre_lightning.training.fit:check_setup"),
    "writing the configuration": Moment("os:replace", "/config.yaml"),
    "reading the films": Moment("genre_lightning.data.films:_write"),
    "tokenising": Moment("genre_lightning.data.tokens:encode"),
    "flushing the cache": Moment("os:fsync", "cache/"),
    "before the cache's rename": Moment("os:rename", "cache/"),
    "after the cache's rename": Moment("os:rename", "cache/", after=True),
    "before training": Moment("genre_lightning.training.fit:build_trainer"),
    "in a step": Moment(f"{_MODEL}.model_step"),
    "after backward": Moment(f"{_MODEL}.configure_gradient_clipping"),
    "after the weights' update": Moment("lightning.pytorch.core.optimizer:LightningOptimizer.step", after=True),
    "between steps": Moment(f"{_MODEL}._seed_dropout"),
    "in validation": Moment(f"{_MODEL}.validation_step"),
    "end of validation": Moment(f"{_MODEL}.on_validation_epoch_end"),
    "end of an epoch": Moment(f"{_MODEL}.on_train_epoch_end"),
    "writing the curves": Moment("genre_lightning.training.loggers.curves:CurvesLogger.save"),
    "before a save": Moment(_SAVE),
    "keeping the last one": Moment("os:link", "/checkpoints"),
    "half of a save written": Moment("torch:save", "/checkpoints"),
    "flushing a save": Moment("os:fsync", "/checkpoints"),
    "before a save's rename": Moment("os:replace", "/checkpoints"),
    "after a save's rename": Moment("os:replace", "/checkpoints", after=True),
    "after a save": Moment(_SAVE, after=True),
    "in evaluation": Moment(f"{_MODEL}.predict_step"),
    "fitting the decision": Moment("genre_lightning.training.evaluate:fit_decision"),
    "writing the decision": Moment("os:replace", "/decision.json"),
    "writing the results": Moment("os:replace", "/evaluation/"),
    "after the results": Moment("os:replace", "/metrics.json", after=True),
    "writing the report": Moment("os:replace", "/report.html"),
    "noting the run's state": Moment("os:replace", "/run_state.json"),
}
"""Name of a moment → the call that it is. Calls of the system are named if possible, as they outlive the code."""


ERROR = "ERROR"
"""In the place of a signal: the rank raises an exception."""


class FaultError(Exception):
    """What a rank dies of that no signal kills."""


class Journal:
    """Lines appended to a file that all starts of a run share; a kill loses none of them."""

    def __init__(self, path: str | None, rank: int) -> None:
        self.path = path
        self.rank = rank

    def write(self, **facts: Any) -> None:
        """Append a line."""
        if self.path:
            line = json.dumps({"rank": self.rank, "process": os.getpid(), **facts}) + "\n"
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(descriptor, line.encode())
            os.close(descriptor)


def rank_of_this_process() -> int:
    """Return the global rank as torchrun, SLURM or Lightning's launcher tells it."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


class Strike:
    """Counts the moments of a process and strikes at the chosen one.

    Args:
        journal: Journal of the run.
        fault: "moment:count:signal[:rank]", or nothing.
        family: Process ids of all ranks, if the starter knows them.
    """

    def __init__(self, journal: Journal, fault: str | None, family: Sequence[int] = ()) -> None:
        self.journal = journal
        self.family = family
        self.counts: Counter[str] = Counter()
        self.moment, count, name, rank = (*(fault or "::").split(":"), "0")[:4]
        self.count = int(count or 0)
        self.signal = name
        self.to_all = rank == "all"
        if fault and self.moment not in MOMENTS:
            raise ValueError(f"no moment {self.moment!r}: there are {', '.join(MOMENTS)}")
        self.mine = bool(name) and journal.rank == (0 if self.to_all else int(rank))

    def comes(self, moment: str) -> bool:
        """Count a moment, and return whether it is the one to strike at."""
        self.counts[moment] += 1
        return self.mine and moment == self.moment and self.counts[moment] == self.count

    def strike(self) -> None:
        """Send the signal, or raise."""
        self.journal.write(event="strike", moment=self.moment, signal=self.signal, to_all=self.to_all)
        if self.signal == ERROR:
            raise FaultError(f"a fault {self.moment}")
        number = signal.Signals[self.signal]
        if not self.to_all:
            os.kill(os.getpid(), number)
        elif not self.family:  # ranks of Lightning's launcher are of the first one's process group
            os.killpg(0, number)
        else:
            for process in sorted(self.family, key=os.getpid().__eq__):  # itself last
                os.kill(process, number)

    def watch_all(self) -> None:
        """Have every moment counted."""
        for name, moment in MOMENTS.items():
            self._watch(name, moment)

    def _watch(self, name: str, moment: Moment) -> None:
        module, _, path = moment.target.partition(":")
        owner: Any = importlib.import_module(module)
        *places, attribute = path.split(".")
        for part in places:
            owner = getattr(owner, part)
        original: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if moment.file and moment.file not in _file_of(args):
                return original(*args, **kwargs)
            struck = self.comes(name)
            if struck and name == "half of a save written":
                return self._write_half(original, *args)
            if struck and not moment.after:
                self.strike()
            result = original(*args, **kwargs)
            if struck and moment.after:
                self.strike()
            return result

        setattr(owner, attribute, watched)

    def _write_half(self, save: Callable[..., Any], content: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(content, whole)
        data = whole.getvalue()
        file.write(data[: len(data) // 2])
        file.flush()
        self.strike()
        file.write(data[len(data) // 2 :])


def _file_of(args: Sequence[Any]) -> str:
    """Return the path that a call is about: its last argument that is a path or an open file."""
    for value in reversed(args):
        if isinstance(value, int):
            return str(Path(f"/proc/self/fd/{value}").readlink())
        if isinstance(value, str | os.PathLike):
            return os.fspath(value)
        if hasattr(value, "name"):
            return str(value.name)
    return ""


def _journal_steps(journal: Journal) -> None:
    """Note every optimizer step that is begun with its films' gradient known: what a kill may cost."""
    from genre_lightning.models.base import GenreClassifier

    original = GenreClassifier.configure_gradient_clipping

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        journal.write(event="step", step=self.trainer.global_step)
        original(self, *args, **kwargs)

    GenreClassifier.configure_gradient_clipping = noted  # type: ignore[method-assign]


def run(words: Sequence[str], family: Sequence[int] = ()) -> int:
    """Run the command of `words` with the fault and the journal that the environment names."""
    from genre_lightning.__main__ import main
    from genre_lightning.evaluation.plots import figures

    # drawing takes ten times as long as a small run, and no later step reads what is drawn
    figures.write_figures = lambda *args, **kwargs: None  # type: ignore[assignment]
    journal = Journal(os.environ.get("JOURNAL"), rank_of_this_process())
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"  # torchrun's own start after the fault's
    strike = Strike(journal, None if again else os.environ.get("FAULT"), family)
    journal.write(event="start")
    if journal.rank == 0:
        _journal_steps(journal)
    strike.watch_all()
    try:
        sys.argv[1:] = words
        return main()  # with the whole process, as from a shell
    finally:
        journal.write(event="end", counts=strike.counts)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
