"""The text that a model reads, made of a film's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from genre_lightning.config.columns import _ROLES, ColumnNames


def columns_to_tag(fields: Sequence[str], trained: ColumnNames, asked: ColumnNames) -> dict[str, str]:
    """Return the column of a file of new films for each field of a run's template.

    Args:
        fields: Fields of the template, or of several templates.
        trained: Names of the columns that the run was trained with.
        asked: Names of them in the new file.
    """
    before, now = asdict(trained), asdict(asked)
    renamed = {before[role]: now[role] for role in _ROLES if before[role] != now[role]}
    return {name: now[name] if name in _ROLES else renamed.get(name, name) for name in fields}


def field_for(name: str, fields: Sequence[str], columns: ColumnNames) -> str | None:
    """Return the field of a template that a name stands for: itself, or the role or the column of the same meaning.

    Args:
        name: Name of a field, a role or a column.
        fields: Fields of the template.
        columns: Columns that the run was trained with.
    """
    named = vars(columns)  # of each film: asdict would copy it
    others = [named.get(name) if name in _ROLES else None, *(role for role in _ROLES if named[role] == name)]
    return next((field for field in [name, *others] if field in fields), None)
