"""`genre-lightning fit`: trains, evaluates, and goes on where an earlier start of the same run stopped."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch import Trainer

from genre_lightning.commands.build import Setup, bind_model, build_trainer, check_setup, is_first_rank, tell
from genre_lightning.commands.evaluation import evaluate_run, restore_weights
from genre_lightning.commands.parser import parse
from genre_lightning.data.datamodule import PreparedData
from genre_lightning.distributed.checkpoint_io import manifest_path, verify_checkpoint
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.console import print_headlines
from genre_lightning.evaluation.files import read_json, write_json
from genre_lightning.runs import RunDirectory, check_same_training


def fit(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit status."""
    config, parser = parse("fit", with_run_config(arguments))
    if config.run_dir is None:
        config.run_dir = Path("runs") / _default_name(arguments)
    setup = check_setup(config, parser)
    changed = check_same_training(setup.run, setup.config_text, override=config.override)
    with _locked(setup.run):
        data = bind_model(setup)
        _check_same_films(setup, data)
        if setup.run.status == "finished" and not changed:
            tell(f"{setup.run.path} is finished: all is done. Its figures:")
            results = {s: read_json(setup.run.evaluation(s) / "metrics.json") for s in ("validation", "test")}
        else:
            results = _train_and_evaluate(setup, data, changed)
        if is_first_rank():
            _show(setup.run, results, as_json=config.json)
    return 0


def with_run_config(arguments: Sequence[str]) -> list[str]:
    """Puts the run's own configuration in front where no other is named: a run directory alone is enough to go on."""
    words = list(arguments)
    if any(word in ("--config", "-c") or word.startswith("--config=") for word in words):
        return words
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--run_dir":
            run = RunDirectory(Path(value if equals else words[place + 1] if place + 1 < len(words) else ""))
            if run.config.is_file():
                return ["--config", str(run.config), *words]
    return words


def _default_name(arguments: Sequence[str]) -> str:
    files = [
        word.partition("=")[2] or arguments[place + 1]
        for place, word in enumerate(arguments)
        if word.split("=")[0] in ("--config", "-c")
    ]
    return Path(files[0]).stem if files else "default"


def _locked(run: RunDirectory) -> Any:
    """Keeps a second process out of the run directory; the system drops the lock with its holder."""
    if not is_first_rank():
        return nullcontext()
    run.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another process is working in {run.path}: wait for it, stop it, or name another --run_dir"
        ) from None
    return lock


def _check_same_films(setup: Setup, data: PreparedData) -> None:
    """Refuses to go on with other films than the run was started with."""
    splits = {name: split.sha256 for name, split in data.splits.items()}
    before = setup.run.facts().get("data")
    now = {"films": data.films.digest, "splits": splits}
    if before and before != now and not setup.config.override:
        raise ConfigError(
            f"{setup.run.path} was started with other films than {setup.data.source.path} gives: "
            "give the file that it was started with, name another --run_dir, or go on with this one by --override"
        )
    if is_first_rank() and setup.run.status in ("new", "training"):
        setup.run.write_config(setup.config_text)
        write_json(setup.run.audit, data.audit)
        if not setup.run.tokenizer.is_dir():
            draft = setup.run.path / ".tokenizer.part"
            data.tokenizer.save_pretrained(draft)
            draft.rename(setup.run.tokenizer)
        setup.run.set_status(setup.run.status if setup.run.status != "new" else "training", data=now)


def _train_and_evaluate(setup: Setup, data: PreparedData, changed: list[str]) -> dict[str, dict[str, Any]]:
    for difference in changed:
        tell(f"overriding {difference}")
    trainer, checkpoints, curves = build_trainer(setup)
    if setup.run.status != "evaluating" or changed:
        resume = setup.run.last if manifest_path(setup.run.last).is_file() else None
        if resume:
            step = int(verify_checkpoint(resume)["global_step"])
            tell(f"resuming {setup.run.path} after optimizer step {step:,}")
            curves.resume_at(step)
        _describe(setup, data)
        started = time.monotonic()
        trainer.fit(setup.model, datamodule=setup.data, ckpt_path=str(resume) if resume else None, weights_only=True)
        if is_first_rank():
            seconds = setup.run.facts().get("train_seconds", 0) + time.monotonic() - started
            setup.run.set_status("evaluating", train_seconds=round(seconds, 1))
    _restore_best(setup, trainer, checkpoints.best_score)
    results = evaluate_run(setup, trainer)
    if is_first_rank():
        setup.run.set_status("finished")
    return results


def _restore_best(setup: Setup, trainer: Trainer, score: float | None) -> None:
    if not setup.run.best.is_file():
        raise ConfigError(
            f"no validation gave a number for {setup.config.checkpoint.monitor}, so no checkpoint is best: "
            "lower model.lr, or use trainer.precision=32-true"
        )
    trainer.strategy.barrier("best checkpoint")
    restore_weights(setup.model, setup.run.best)


def _describe(setup: Setup, data: PreparedData) -> None:
    sizes = ", ".join(f"{len(split.films):,} {name}" for name, split in data.splits.items())
    audit = data.films.audit
    tell(f"data    {audit.rows:,} rows, {audit.kept:,} films kept; {sizes}; {len(data.vocabulary)} genres")
    model = setup.model
    name = getattr(model, "backbone_name", type(model).__name__)
    tell(f"model   {name}, {type(model).__name__}; {setup.data.global_batch_size} films a step")
    tell(f"run     {setup.run.path}")


def _show(run: RunDirectory, results: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run_dir": str(run.path), **results}))
        return
    for result in results.values():
        print_headlines(result, sys.stdout)
    print(f"\nresults in {run.path}")
