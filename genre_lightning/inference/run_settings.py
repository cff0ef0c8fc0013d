"""The configuration of a trained run, read without a trainer: checked, its texts, and its model without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from genre_lightning.config.columns import ColumnNames, TextTemplate
from genre_lightning.config.features import FeatureKind, Place, as_joins, features_in
from genre_lightning.config.guard import check_settings, instantiate
from genre_lightning.config.parser import parse_model
from genre_lightning.files import damaged
from genre_lightning.models.base import GenreClassifier
from genre_lightning.runs import RunDirectory
from genre_lightning.shapes import Shape, count, one_of, require_shape, text

Cells = Mapping[str, Any]
"""What a text template is filled with, by column, and the inputs of the head."""

_SETTINGS: Shape = {
    "seed?": count,
    "trainer?": {"precision?": text},
    "data?": {
        "csv?": text,
        "text?": text,
        "columns?": {"id?": text, "title?": text, "overview?": text},
        "features?": [{
            "column": text, "kind": one_of(*get_args(FeatureKind)), "place?": one_of(*get_args(Place)),
            "marker?": text, "separator?": text, "max_tokens?": count,
        }],
        "join?": [{"file": text}],
        "micro_batch_tokens?": count,
    },
}  # fmt: skip
"""What is read of a run's configuration besides its model, which has a parser of its own."""


def checked_settings(run: RunDirectory) -> dict[str, Any]:
    """Return a run's configuration, checked before any object is made from it.

    Raises:
        CheckpointError: It is not the configuration of a run.
        ConfigError: It names a class that it may not.
    """
    settings = run.settings()
    check_settings(settings, str(run.config), run.path)
    try:
        require_shape(settings, _SETTINGS)
    except ValueError as error:
        raise damaged(run.config, error, "put it back, or name another --run_dir") from None
    return settings


class TemplateReader:
    """The part of a run's settings that defines how its texts are made.

    Args:
        settings: Its configuration.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        data = settings.get("data") or {}
        self.features, self.join = features_in(data), as_joins(data.get("join"))
        self.template = TextTemplate(data.get("text") or "{overview}", tuple(f for f in self.features if f.in_text))
        columns = data.get("columns") or {}
        self.columns = ColumnNames(**{f.name: columns[f.name] for f in fields(ColumnNames) if columns.get(f.name)})
        inputs = [feature.column for feature in self.features if not feature.in_text]
        self.fields = tuple(dict.fromkeys([*self.template.fields, *inputs]))

    def texts(self, films: Sequence[Cells]) -> list[str]:
        """Return what the model reads of films."""
        return [self.template.fill({name: film.get(name, "") for name in self.template.fields}) for film in films]


def configured_model(settings: Mapping[str, Any]) -> GenreClassifier:
    """Return the model of a run's settings, without weights, with the seed of the run."""
    config, parser = parse_model(settings.get("model"))
    made: GenreClassifier = instantiate(parser, config).model
    made.take_seed(settings.get("seed") or 0)
    return made
