"""One self-contained page about a run, made from its directory alone."""

from __future__ import annotations

import base64
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from genre_lightning.config.decision import POLICIES, SHIPPED_POLICY
from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.against_parent import against_cells, read_against_parent, verdict
from genre_lightning.evaluation.console import (
    HEADLINES,
    POLICY_NAMES,
    THRESHOLD_FREE,
    headline_lines,
    titles_without_interval,
)
from genre_lightning.evaluation.curves import loss_by_epoch
from genre_lightning.evaluation.films import describe_films, describe_provenance
from genre_lightning.evaluation.plots.titles import FIGURES
from genre_lightning.evaluation.predictions import StoredPredictions
from genre_lightning.evaluation.runs import Run, open_run
from genre_lightning.evaluation.sections import monitor_section, read_section
from genre_lightning.evaluation.setting_tables import audit_tables, setting_tables
from genre_lightning.files import read_bytes, read_json, write_text
from genre_lightning.metrics import BoolArray, judged
from genre_lightning.progress import duration
from genre_lightning.shapes import Shape, count, number, text

MISTAKES = 20
_LONGEST_TEXT = 1200
_TURNING = ("R", "AL", "LRE", "LRO", "LRI", "RLE", "RLO", "RLI", "FSI")
"""Unicode's classes of letters written from right to left, and of marks that set a direction."""
_TOP_WORDS: Shape = {
    "split": text, "films": count, "fewest_films_of_a_word": count, "baseline": text, "checkpoint_sha256?": text,
    "genres": [{"genre": text, "films": count, "words": [{"word": text, "films": count, "log_odds": number}]}],
}  # fmt: skip
_CARDS = ("f1_micro", "f1_macro", "subset_accuracy")


def write_report(run_directory: str | os.PathLike[str]) -> Path:
    """Write report.html into a run directory.

    The page speaks of the test split, or of validation, plainly marked, if test was not evaluated.

    Args:
        run_directory: Directory of a run that has been evaluated.

    Returns:
        The page's path.

    Raises:
        CheckpointError: The directory is not a run, or has no finished evaluation.
    """
    run = open_run(run_directory)
    split = next((name for name in ("test", "validation") if run.has(name)), None)
    if split is None:
        raise CheckpointError(f"{run.directory} has no finished evaluation: run its command again to finish it")
    path = run.files.report
    write_text(path, render("report.html.j2", report_values(run, split)))
    return path


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template of the package; every value is escaped, and a missing one is an error."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = _figure
    environment.filters["span"] = _span
    environment.filters["isolated"] = _isolated
    return environment.get_template(template).render(values)


def report_values(run: Run, split: str) -> dict[str, Any]:
    """Gather what the page shows of one split."""
    metrics = run.metrics(split)
    spans = metrics.get("intervals", {})
    files = run.files.evaluation(split)
    curves = run.files.curves
    return {
        "run": run.name,
        "split": split,
        "optimistic": metrics["decision"]["fitted_on"] == split or run.test_is_validation,
        "metrics": metrics,
        "cards": _cards(metrics),
        "trivial": headline_lines(metrics)[1:],
        "policies": [(policy, POLICY_NAMES[policy]) for policy in POLICIES],
        "headlines": HEADLINES,
        "threshold_free": THRESHOLD_FREE,
        "policy_spans": spans.get("policies", {}),
        "free_spans": spans.get("threshold_free", {}),
        "genres": run.genre_rows(split),
        "languages": metrics.get("languages") or [],
        "grid": run.threshold_rows(split),
        "losses": loss_by_epoch(curves) if curves.is_file() else [],
        "figures": _figures(files.figures),
        "top_words": _top_words(run, split),
        "mistakes": confident_mistakes(run.predictions(split)),
        "config": run.config(),
        "settings": setting_tables(run.config() or ""),
        "cost": [*_cost(metrics), *describe_provenance(metrics)],
        "audit": audit_tables(run.audit() or {}),
        "films": describe_films(metrics),
        "without_interval": titles_without_interval(metrics),
        "others": _other_evaluations(run),
        "against": _against(run),
        "monitor": monitor_section(run),
        "doubts": read_section(run, "doubts"),
    }


def _against(run: Run) -> dict[str, Any] | None:
    """Lay out the comparison with the run that this one continues from."""
    found = read_against_parent(run.files)
    if found is None:
        return None
    rows = against_cells(found)
    return {"parent": Path(found["parent"]).name, "n": found["n"], "verdict": verdict(found), "rows": rows}


def _other_evaluations(run: Run) -> list[dict[str, Any]]:
    """Read the evaluations on films of other files."""
    found = []
    for path in sorted((run.directory / "evaluation").iterdir()):
        if path.name.startswith(".") or path.name in ("validation", "test") or not run.has(path.name):
            continue
        metrics = run.metrics(path.name)
        spans = metrics.get("intervals", {})
        found.append(
            {
                "name": path.name,
                "notes": describe_films(metrics),
                "f1_micro": metrics["policies"][SHIPPED_POLICY]["f1_micro"],
                "f1_span": spans.get("policies", {}).get(SHIPPED_POLICY, {}).get("f1_micro"),
                "map_macro": metrics["threshold_free"]["map_macro"],
                "map_span": spans.get("threshold_free", {}).get("map_macro"),
            }
        )
    return found


def confident_mistakes(stored: StoredPredictions, count: int = MISTAKES) -> list[dict[str, Any]]:
    """Choose the mistakes made with the highest probability: half of genres given wrongly, half of genres missed.

    Misses of rare genres are nearly always confident and would fill the list alone. A film appears once.

    Returns:
        Rows of id, title, text, true and decided genres, the genre in question, `missed`, and the probability given to
        the wrong answer.
    """
    labels, decided = stored.predictions.labels, judged(stored.decided, stored.predictions.known)
    given = _most_confident(decided & ~labels, stored.probabilities)
    missed = _most_confident(labels & ~decided, 1 - stored.probabilities)
    chosen: dict[int, tuple[int, bool]] = {}
    for queue, limit, is_missed in ((given, count // 2, False), (missed, count, True), (given, count, False)):
        for row, column in queue:
            if len(chosen) >= limit:
                break
            chosen.setdefault(row, (column, is_missed))
    predictions, rows = stored.predictions, []
    true, taken = predictions.genre_names(labels), predictions.genre_names(decided)
    for row, (column, is_missed) in chosen.items():
        probability = float(stored.probabilities[row, column])
        text = predictions.texts[row]
        rows.append(
            {
                "id": predictions.ids[row : row + 1].tolist()[0],
                "title": predictions.titles[row],
                "text": text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …",
                "true": true[row],
                "decided": taken[row],
                "genre": predictions.genres[column],
                "missed": is_missed,
                "probability": probability,
                "wrong": 1 - probability if is_missed else probability,
            }
        )
    return sorted(rows, key=lambda row: (row["missed"], -row["wrong"]))


def _most_confident(wrong: BoolArray, confidence: np.ndarray, most: int = 400) -> list[tuple[int, int]]:
    """List the wrong film-genre pairs by falling confidence; some more than are shown, since films repeat."""
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-confidence[rows, columns], kind="stable")[:most]
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _cards(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choose the metrics that head the page."""
    titles, spans = dict(HEADLINES), metrics.get("intervals", {})
    cards = [
        {
            "title": titles[name],
            "value": metrics["policies"][SHIPPED_POLICY][name],
            "span": spans.get("policies", {}).get(SHIPPED_POLICY, {}).get(name),
        }
        for name in _CARDS
    ]
    free = spans.get("threshold_free", {}).get("map_macro")
    cards.insert(2, {"title": "mAP", "value": metrics["threshold_free"]["map_macro"], "span": free})
    return cards


def _top_words(run: Run, split: str) -> dict[str, Any] | None:
    """Read the words that add most to each genre, of this split or another; None without, or of another checkpoint."""
    for name in dict.fromkeys((split, "validation", "test")):
        path = run.files.evaluation(name).top_words
        if path.is_file():
            fix = f"delete it, or run 'genre-lightning explain {run.directory} --top_words' again"
            found = read_json(path, _TOP_WORDS, fix)
            if found.get("checkpoint_sha256") == run.decision.checkpoint_sha256:
                return found
    return None


def _cost(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the run has cost, as far as it is known."""
    rows = []
    if metrics.get("seconds") is not None:
        rows.append(("time of training", duration(metrics["seconds"])))
    if metrics.get("trainable_parameters") is not None:
        rows.append(("parameters trained", f"{metrics['trainable_parameters']:,}"))
    return rows


def _figures(directory: Path) -> list[dict[str, str]]:
    """Read the plots there are, as data URIs."""
    found = []
    for name, title in FIGURES.items():
        path = directory / f"{name}.png"
        if path.is_file():
            encoded = base64.b64encode(read_bytes(path)).decode("ascii")
            found.append({"name": name, "title": title, "uri": f"data:image/png;base64,{encoded}"})
    return found


def _figure(value: object, digits: int = 3) -> str:
    """Write a number from JSON or CSV; an undefined one is a dash, and one too small for its digits is not 0."""
    if value is None or value == "":
        return "–"
    if 0 < float(str(value)) < 0.5 * 10**-digits:
        return f"< {10**-digits:.{digits}f}"
    return f"{float(str(value)):.{digits}f}"


def _span(value: list[float | None] | None) -> str:
    """Write an interval, or nothing without one."""
    if not value or value[0] is None or value[1] is None:
        return ""
    return f"{value[0]:.3f}–{value[1]:.3f}"


def _isolated(text: str) -> Markup:
    """Keep a name that is read from right to left, or that sets a direction, from reordering the numbers beside it."""
    turns = any(unicodedata.bidirectional(character) in _TURNING for character in text)
    return Markup("<bdi>{}</bdi>").format(text) if turns else escape(text)
