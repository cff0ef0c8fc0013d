"""The evaluation of a run in its loggers: plots, tables and headline metrics beside the curves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from genre_lightning.escapes import markdown, markdown_table
from genre_lightning.evaluation.films import describe_films
from genre_lightning.evaluation.stored import read_csv
from genre_lightning.runs import EvaluationDirectory
from genre_lightning.training.loggers.curves import CurvesLogger
from genre_lightning.training.loggers.wandb_run import RunWandbLogger

__all__ = ["headline_metrics", "log_evaluation"]


def headline_metrics(result: Mapping[str, Any], split: str) -> dict[str, float]:
    """Return the defined metrics of metrics.json under flat names: "test/per_genre/f1_micro", "test/map_macro".

    Args:
        result: What metrics.json holds.
        split: "validation" or "test".
    """
    named = {f"{split}/{name}": value for name, value in result["threshold_free"].items()}
    for policy, figures in result["policies"].items():
        named |= {f"{split}/{policy}/{name}": value for name, value in figures.items()}
    if trivial := result.get("trivial_baseline"):
        named[f"{split}/trivial_baseline/f1_micro"] = trivial["f1_micro"]
    return {name: float(value) for name, value in named.items() if value is not None}


def log_evaluation(
    loggers: Iterable[Logger], evaluation: EvaluationDirectory, result: Mapping[str, Any], step: int
) -> None:
    """Give an evaluation to every logger: W&B and TensorBoard get tables and plots too, others the metrics.

    Args:
        loggers: Loggers of the trainer; the run's own curves are left alone, as its files hold all of it.
        evaluation: The directory that `write_evaluation` has filled.
        result: What its metrics.json holds.
        step: Optimizer steps done, the place on the loggers' axis.
    """
    split = str(result["split"])
    metrics = headline_metrics(result, split)
    for logger in loggers:
        if isinstance(logger, CurvesLogger):
            continue
        if isinstance(logger, WandbLogger):
            _to_wandb(logger, evaluation, metrics, split, step, " ".join(describe_films(result)))
        elif isinstance(logger, TensorBoardLogger):
            _to_tensorboard(logger, evaluation, metrics, split, step)
        else:
            logger.log_metrics(metrics, step)
            logger.save()


def _to_wandb(
    logger: WandbLogger, evaluation: EvaluationDirectory, metrics: dict[str, float], split: str, step: int, films: str
) -> None:
    import wandb

    content: dict[str, Any] = {
        f"{split}/figures/{path.stem}": wandb.Image(str(path), caption=path.stem) for path in _figures(evaluation)
    }
    for name, (heads, rows) in _tables(evaluation).items():
        content[f"{split}/{name}"] = wandb.Table(
            columns=list[str | int](heads), data=[[_cell(value) for value in row] for row in rows]
        )
    summary: dict[str, float | str] = {**metrics, **({f"{split}/films": films} if films else {})}
    if isinstance(logger, RunWandbLogger):
        logger.log_evaluation(step, content, summary)
        return
    # no step: Lightning's logger counts W&B's steps by rows, and W&B drops what is logged for one before its latest
    logger.experiment.log(content)
    logger.experiment.summary.update(summary)


def _to_tensorboard(
    logger: TensorBoardLogger, evaluation: EvaluationDirectory, metrics: dict[str, float], split: str, step: int
) -> None:
    from PIL import Image

    logger.log_metrics(metrics, step)
    for path in _figures(evaluation):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(f"{split}/{path.stem}", pixels, step, dataformats="HWC")
    for name, (heads, rows) in _tables(evaluation).items():
        text = markdown_table(heads, [[markdown(_short(value)) for value in row] for row in rows])
        logger.experiment.add_text(f"{split}/{name}", text, step)
    summary = {name: round(value, 4) for name, value in metrics.items()}
    logger.experiment.add_text(f"{split}/metrics", f"```\n{json.dumps(summary, indent=1)}\n```", step)
    logger.experiment.flush()


def _figures(evaluation: EvaluationDirectory) -> list[Path]:
    return sorted(evaluation.figures.glob("*.png"))


def _tables(evaluation: EvaluationDirectory) -> dict[str, tuple[list[str], list[list[str]]]]:
    tables = {}
    for path in (evaluation.per_genre, evaluation.thresholds, evaluation.confusion):
        if path.is_file():
            heads, rows = read_csv(path)
            tables[path.stem] = (heads, [list(row.values()) for row in rows])
    return tables


def _cell(text: str) -> str | float | None:
    """Return a cell of a CSV as a number if it is one; an undefined metric is None."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _short(text: str) -> str:
    """Return a cell to be read: four decimals."""
    value = _cell(text)
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4f}".rstrip("0").rstrip(".")
