"""A run's config.yaml and data_audit.json as tables to be read: what was trained, on what, out of what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genre_lightning.yaml_files import NOT_YAML, TooLargeError, parse_yaml

_TITLES = {
    "model": "Model",
    "data": "Data",
    "trainer": "Training",
    "checkpoint": "Best checkpoint",
    "early_stopping": "Early stopping",
    "ensemble": "Ensemble",
}
# a trainer has fifty options; these say how it trained
_TRAINER = (
    "precision",
    "max_epochs",
    "max_steps",
    "gradient_clip_val",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
)
_ROWS = ("rows", "malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres", "kept")
_OF_ONE_CALL = ("run_dir", "override", "json", "config")


def setting_tables(config: str) -> list[dict[str, Any]]:
    """Lay out a configuration, one table a section.

    Args:
        config: Text of config.yaml; a text that is not a YAML mapping gives no table.

    Returns:
        Tables of `title` and `rows` of (option, value), both texts; options that are not set are left out, but those of
        the model.
    """
    try:
        settings = parse_yaml(config)
    except (TooLargeError, *NOT_YAML):
        return []
    if not isinstance(settings, Mapping):
        return []
    tables = []
    plain = [
        (str(name), _text(value))
        for name, value in settings.items()
        if not isinstance(value, Mapping) and name not in _OF_ONE_CALL and value is not None
    ]
    for section, title in _TITLES.items():
        if isinstance(settings.get(section), Mapping):
            rows = [(name, _text(value)) for name, value in _rows(section, settings[section])]
            if rows:
                tables.append({"title": title, "rows": rows})
    if plain:
        tables.append({"title": "Run", "rows": plain})
    return tables


def audit_tables(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Lay out data_audit.json: what became of the rows, and the films of each genre in each split.

    Returns:
        Tables of `title`, `columns` and `rows` of texts.
    """
    tables: list[dict[str, Any]] = []
    total = audit.get("rows")
    counts = [(name, audit[name]) for name in _ROWS if isinstance(audit.get(name), int)]
    if total and counts:
        rows = [[name.replace("_", " "), f"{count:,}", f"{count / total:.2%}"] for name, count in counts]
        file = audit.get("file", "the movies file")
        tables.append({"title": f"rows of {file}", "columns": ["rows", "share"], "rows": rows})
    splits = audit.get("splits")
    if isinstance(splits, Mapping) and splits and all(isinstance(split, Mapping) for split in splits.values()):
        names = [name for name in splits if not (audit.get("validation_is_test") and name == "validation")]
        shown = [splits[name] for name in names]
        genres = list(shown[0].get("genres", {}))
        rows = [["all films", *(f"{split.get('films', 0):,}" for split in shown)]]
        rows += [[genre, *(f"{split.get('genres', {}).get(genre, 0):,}" for split in shown)] for genre in genres]
        for genre in genres:
            known = [split.get("known", {}).get(genre, split.get("films", 0)) for split in shown]
            if any(count < split.get("films", 0) for count, split in zip(known, shown, strict=True)):
                rows.append([f"known for {genre}", *(f"{count:,}" for count in known)])
        rows.append(["SHA-256 of ids", *(str(split.get("ids_sha256", ""))[:8] for split in shown)])
        heads = ["validation = test" if audit.get("validation_is_test") and name == "test" else name for name in names]
        tables.append({"title": "films of", "columns": heads, "rows": rows})
    return tables


def _rows(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "class_path":
            yield "class", str(value).rpartition(".")[2]
        elif name == "init_args" and isinstance(value, Mapping):
            yield from _rows(section, value)
        elif isinstance(value, Mapping):
            yield from ((f"{name}.{key}", below) for key, below in _rows(section, value))
        elif value is None and section != "model":
            continue
        elif section != "trainer" or (name in _TRAINER and value not in (-1,)):
            yield str(name), value


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(part) for part in value)
    return (
        f"{value:.3f}" if isinstance(value, float) and 0.001 <= value < 1 and round(value, 3) != value else str(value)
    )
