"""Where films are in a file: names of its columns, and how its genres are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from genre_lightning.config.features import Feature, JoinedFile, feature_problems, holds_labels
from genre_lightning.errors import ConfigError

GenreFormat = Literal["auto", "literal", "json", "separated", "one_hot"]


@dataclass
class ColumnNames:
    """Names of the columns in the file.

    Attributes:
        id: A number or text for each film; a file without the column has its rows numbered from 1.
        title: Shown beside predictions; the file may lack it.
        overview: The plot summary.
        genres: The film's genres; or a list of columns, each named after a genre, that hold 1 for films of it.
    """

    id: str = "id"
    title: str = "title"
    overview: str = "overview"
    genres: str | list[str] = "genres"

    @property
    def label_columns(self) -> list[str]:
        """The columns of the genres."""
        return [self.genres] if isinstance(self.genres, str) else list(self.genres)


# doubled braces stand for themselves; a name may hold anything but braces
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


_ROLES = ("id", "title", "overview")


@dataclass(frozen=True)
class TextTemplate:
    """A text made of columns, such as "{title}. {overview}".

    Attributes:
        template: Template, as the user has written it.
        features: Further columns, each on a line of its own behind the template's text; an empty one has no line.
        fields: The names in braces: a role of `ColumnNames` (title, overview, id), or a column of the file; and the
            features' columns.

    Raises:
        ConfigError: No name in braces, or a brace without its other.
    """

    template: str
    features: tuple[Feature, ...] = ()
    fields: tuple[str, ...] = field(init=False)
    _parts: tuple[tuple[str, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = list(_PART.finditer(self.template))
        names = [part[1] for part in parts if part[1] is not None]
        if not names or not all(map(str.strip, names)) or any(part[0] in ("{", "}") for part in parts):
            raise ConfigError(
                f"data.text is {self.template!r}: it needs column names in braces, such as '{{title}}. {{overview}}' "
                "({{ and }} stand for braces)"
            )
        object.__setattr__(self, "fields", tuple(dict.fromkeys([*names, *(f.column for f in self.features)])))
        cut, end = [], 0
        for part in parts:
            cut += [(self.template[end : part.start()], False), (part[1] or part[0][0], part[1] is not None)]
            end = part.end()
        object.__setattr__(self, "_parts", (*cut, (self.template[end:], False)))

    def columns(self, names: ColumnNames) -> dict[str, str]:
        """Return the file's column for each field.

        Args:
            names: Names of the columns with a role.

        Raises:
            ConfigError: A field is a column of the labels.
        """
        roles = asdict(names)
        labels = names.label_columns
        found = {name: roles[name] if name in _ROLES else name for name in self.fields}
        if leaks := [name for name, column in found.items() if holds_labels(column, labels)]:
            raise ConfigError(
                f"data.text {self.template!r} holds {{{leaks[0]}}}, the genres that the model is to predict: "
                "take them out of the text"
            )
        return found

    def fill(self, values: Mapping[str, str]) -> str:
        """Make the text; the punctuation that an empty column leaves behind is dropped."""
        text = " ".join("".join([values[part] if is_field else part for part, is_field in self._parts]).split())
        if not all(values[part] for part, is_field in self._parts if is_field):
            text = re.sub(r"([.,:;!?-])(?:\s+[.,:;-])+", r"\1", text)
            text = text.lstrip(" .,:;-").rstrip(" ,:;-")
        if not self.features:
            return text
        lines = [f"{feature.line}{value}" for feature in self.features if (value := _words(values[feature.column]))]
        return "\n".join([text, *lines])


def _words(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class FilmSource:
    """Where films come from and how they are read.

    Attributes:
        path: The movies file.
        columns: Names of its columns.
        template: Template of the text that the model reads.
        genre_format: Format of the genres column.
        genre_separator: Text between names if the format is "separated"; None to find out.
        require_genres: Drop films without genres.
        encoding: Text encoding of a CSV.
        max_malformed: Fraction of the rows that may be malformed.
        join: Further files with columns of the films.
        inputs: Columns that are given to the head.
        known_genres: Column of the genres that a film was labelled for: if it is not empty, a film without genres
            is one that has none of them.

    Raises:
        ConfigError: The text or an input holds the labels.
    """

    path: Path
    columns: ColumnNames
    template: TextTemplate
    genre_format: GenreFormat = "auto"
    genre_separator: str | None = None
    require_genres: bool = True
    encoding: str = "utf-8"
    max_malformed: float = 0.05
    join: tuple[JoinedFile, ...] = ()
    inputs: tuple[Feature, ...] = ()
    known_genres: str | None = None

    def __post_init__(self) -> None:
        features = [*self.template.features, *self.inputs]
        problems = feature_problems(features, self.join, self.columns.label_columns)
        if not self.columns.label_columns:
            problems.append("data.columns.genres is an empty list: name the genres' columns, or the one that holds all")
        if problems:
            raise ConfigError("; and ".join(problems))
        self.template.columns(self.columns)

    @property
    def has_inputs(self) -> bool:
        """Whether there is more to look up than the template's columns in the movies file."""
        return bool(self.join or self.inputs or self.template.features)

    @property
    def finds_labels(self) -> bool:
        """Whether the columns of 0 and 1 are to be found."""
        return self.genre_format == "one_hot" and isinstance(self.columns.genres, str)
