"""Which films an evaluation is of and what made it, in words: for the terminal, the report, the model card and W&B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_films(metrics: Mapping[str, Any]) -> list[str]:
    """Describe the films of an evaluation in plain sentences.

    Args:
        metrics: what metrics.json holds.
    """
    films, n = metrics.get("films") or {}, metrics["n"]
    if not films:
        return []
    digest = f"SHA-256 of ids {films['ids_sha256'][:16]}"
    if "excluded_trained" not in films:
        return [f"{n:,} films of the {metrics['split']} split of {films['file']}, none of them trained on ({digest})."]
    lines = [
        f"{n:,} films of {films['file']} that the run was not trained on ({digest}); "
        f"{films['excluded_trained']:,} films that it was trained on were left out."
    ]
    if films["excluded_by_id_alone"]:
        lines.append(
            f"{films['excluded_by_id_alone']:,} were left out by their id alone, with another text: add --other_ids if "
            "ids of this file are not those of the training file."
        )
    if films["from_validation"]:
        lines.append(
            f"{films['from_validation']:,} are validation films of the run, on which its thresholds were fitted: the "
            "metrics are optimistic to that extent."
        )
    if films["unknown_genres"]:
        names = ", ".join(f"{name} ({count:,})" for name, count in list(films["unknown_genres"].items())[:10])
        more = f" and {len(films['unknown_genres']) - 10} more" if len(films["unknown_genres"]) > 10 else ""
        lines.append(f"Genres that the run does not know were not counted: {names}{more}.")
    if films["films_without_known_genres"]:
        lines.append(
            f"{films['films_without_known_genres']:,} films have none of the run's genres: each genre that they are "
            "given counts as wrong."
        )
    return lines


def describe_provenance(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name what made an evaluation, as rows of a table; what is not known is left out.

    Args:
        metrics: what metrics.json holds.
    """
    training, evaluation = metrics.get("training") or {}, metrics.get("made_by") or {}
    rows = []
    if training.get("learning_rate") is not None:
        rows.append(("learning rate", f"{training['learning_rate']:g}, head {training['head_learning_rate']:g}"))
    if training.get("best_epoch") is not None:
        rows.append(("best checkpoint", f"epoch {training['best_epoch']}, optimizer step {training['best_step']:,}"))
    for title, facts in (("trained", training), ("evaluated", evaluation)):
        if facts.get("version"):
            commit, dirty, _ = (facts.get("git_commit") or "").partition("-dirty")
            commit = f", commit {commit[:12]}{dirty}" if commit else ""
            rows.append((f"{title} with", f"genre-lightning {facts['version']}{commit}"))
            rows.append((f"{title} on", f"{facts['date'][:10]}, {facts['host']}, {facts['device']}"))
    return rows
