"""Which films an evaluation is of and what made it, in words: for the terminal, the report, the model card and W&B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from genre_lightning.shapes import Shape, count, text

SHAPE: Shape = {
    "file": text,
    "ids_sha256": text,
    "path?": text,
    "excluded_trained?": count,
    "excluded_by_id_alone?": count,
    "from_validation?": count,
    "from_test?": count,
    "unknown_genres?": {"*": count},
    "films_without_known_genres?": count,
    "unknown_labels?": count,
}
"""Of `films` in metrics.json."""


@dataclass(frozen=True)
class EvaluatedFilms:
    """Which films an evaluation is of: those of a split of the run, or of another file.

    Attributes:
        file: Name of the file.
        ids_sha256: Of the films' ids.
        file_sha256: Of another file, as for all that follows.
        audit: What became of its rows.
        n: Films evaluated.
        excluded_trained: Films left out because the run was trained on them; None for a split of the run.
        excluded_by_id_alone: Of them, those with another text.
        from_validation: Films evaluated that the run's thresholds were fitted on.
        from_test: Films evaluated that are in the run's test split.
        unknown_genres: Films of each genre that the run does not know.
        films_without_known_genres: Films that have none of the run's genres.
        unknown_labels: Film-genre pairs whose label is not known, which do not count.
        path: Where the file was.
    """

    file: str
    ids_sha256: str
    file_sha256: str | None = None
    audit: dict[str, Any] | None = None
    n: int | None = None
    excluded_trained: int | None = None
    excluded_by_id_alone: int = 0
    from_validation: int = 0
    from_test: int = 0
    unknown_genres: dict[str, int] = field(default_factory=dict)
    films_without_known_genres: int = 0
    unknown_labels: int = 0
    path: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EvaluatedFilms:
        """Read what metrics.json holds, checked against `SHAPE`; names that are not known are passed over."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if values.get(f.name) is not None})

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json holds."""
        if self.excluded_trained is None:
            return {"file": self.file, "ids_sha256": self.ids_sha256}
        return asdict(self)


def describe_films(metrics: Mapping[str, Any]) -> list[str]:
    """Describe the films of an evaluation in plain sentences.

    Args:
        metrics: What metrics.json holds.
    """
    if not metrics.get("films"):
        return []
    films, n = EvaluatedFilms.from_json(metrics["films"]), metrics["n"]
    digest = f"SHA-256 of ids {films.ids_sha256[:16]}"
    if films.excluded_trained is None:
        return [f"{n:,} films of the {metrics['split']} split of {films.file}, none of them trained on ({digest})."]
    lines = [
        f"{n:,} films of {films.file} that the run was not trained on ({digest}); "
        f"{films.excluded_trained:,} films that it was trained on were left out."
    ]
    if films.excluded_by_id_alone:
        lines.append(
            f"{films.excluded_by_id_alone:,} were left out by their id alone, with another text: add --other_ids if "
            "ids of this file are not those of the training file."
        )
    if films.from_validation:
        lines.append(
            f"{films.from_validation:,} are validation films of the run, on which its thresholds were fitted: the "
            "metrics are optimistic to that extent."
        )
    if films.from_test:
        lines.append(f"{films.from_test:,} are test films of the run.")
    if unknown := films.unknown_genres:
        names = ", ".join(f"{name} ({count:,})" for name, count in list(unknown.items())[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        lines.append(f"Genres that the run does not know were not counted: {names}{more}.")
    if films.unknown_labels:
        lines.append(
            f"{films.unknown_labels:,} labels (pairs of a film and a genre) are not known, by the run's "
            "data.known_genres, data.label_since or earlier runs, and do not count."
        )
    if films.films_without_known_genres:
        lines.append(
            f"{films.films_without_known_genres:,} films have none of the run's genres: each genre that they are "
            "given counts as wrong."
        )
    return lines


def describe_provenance(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name what made an evaluation, as rows of a table; what is not known is left out.

    Args:
        metrics: What metrics.json holds.
    """
    training, evaluation = metrics.get("training") or {}, metrics.get("made_by") or {}
    rows = []
    if _knows(training, "parent_run", "parent_checkpoint_sha256"):
        sha256 = training["parent_checkpoint_sha256"]
        rows.append(("continues from", f"{Path(training['parent_run']).name}, checkpoint {sha256[:12]}"))
    if _knows(training, "learning_rate", "head_learning_rate"):
        rows.append(("learning rate", f"{training['learning_rate']:g}, head {training['head_learning_rate']:g}"))
    if _knows(training, "best_epoch", "best_step"):
        rows.append(("best checkpoint", f"epoch {training['best_epoch']}, optimizer step {training['best_step']:,}"))
    if training.get("chosen"):
        rows.append(("chosen as", training["chosen"]))
    if training.get("overridden"):
        rows.append(("overridden settings", training["overridden"]))
    for title, made in (("trained", training), ("evaluated", evaluation)):
        if _knows(made, "version", "date", "host", "device"):
            commit, dirty, _ = (made.get("git_commit") or "").partition("-dirty")
            commit = f", commit {commit[:12]}{dirty}" if commit else ""
            rows.append((f"{title} with", f"genre-lightning {made['version']}{commit}"))
            rows.append((f"{title} on", f"{made['date'][:10]}, {made['host']}, {made['device']}"))
    return rows


def _knows(values: Mapping[str, Any], *names: str) -> bool:
    return all(values.get(name) is not None for name in names)
