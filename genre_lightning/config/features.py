"""Inputs beside the overview: further files that are joined, and the columns that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from genre_lightning.bounds import at_least, bound_problems
from genre_lightning.errors import ConfigError

FeatureKind = Literal["text", "tags", "category", "number", "date", "vector"]
Place = Literal["text", "head"]

T = TypeVar("T")


@dataclass(frozen=True)
class JoinedFile:
    """A further file with columns of the films.

    Attributes:
        file: .csv, .tsv or .jsonl, each also with .gz, or .parquet. A relative path is looked for in the working
            directory, then beside data.csv.
        key: Its column of ids.
        on: Column of data.csv that the key is compared with, such as imdb_id; null is the films' id.
        via: A further file that gives the films' id for each key, such as links.csv for a key of movieId; null compares
            the key itself.
        to: Column of via with the films' ids; null is tmdbId.
    """

    file: Path
    key: str = "id"
    on: str | None = None
    via: Path | None = None
    to: str | None = None

    @property
    def name(self) -> str:
        """The file's name without its endings, which distinguishes its columns from those of other files."""
        return _stem(self.file)

    @property
    def linked(self) -> str:
        """The column of `via` with the films' ids."""
        return self.to or "tmdbId"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (self.file,) if self.via is None else (self.file, self.via)

    def problems(self) -> list[str]:
        """List what is wrong with the options by themselves."""
        if self.to and not self.via:
            return [f"data.join {self.file.name}: to is {self.to!r}, a column of via: set via to the file of links"]
        return []


def _stem(file: Path) -> str:
    return Path(file).name.partition(".")[0]


@dataclass(frozen=True)
class Feature:
    """A column that the model reads beside the template of data.text.

    Attributes:
        column: Column of data.csv or of a joined file; `file.column` if several files have it.
        kind: "text", "tags" (several names: a list, JSON, or separated), "category" (one name), "number", "date" or
            "vector" (numbers of one length).
        place: "text" appends a line to the text, "head" gives the value to the head; null is the text for kind text,
            and else the head.
        marker: What the line in the text begins with; null is the column's name.
        max_tokens: Maximum number of tokens of the line in the text, so that a long one never pushes out the rest.
        separator: Separator between tags; null finds out for each cell, of | ; and comma.
        max_values: The most frequent tags or categories of the training films that are known by name.
        min_films: Training films that a tag or category must have to be known by name.
        log: Take the logarithm of 1 + the number, for budgets and counts.
        zero_is_missing: A number of 0 stands for a missing one.
        after_release: Known only after the release; see data.leave_out_after_release.
    """

    column: str
    kind: FeatureKind
    place: Place | None = None
    marker: str | None = None
    max_tokens: Annotated[int, at_least(2, 10**6)] = 32
    separator: str | None = None
    max_values: Annotated[int, at_least(1, 10**6)] = 2000
    min_films: Annotated[int, at_least(1)] = 5
    log: bool = False
    zero_is_missing: bool = False
    after_release: bool = False

    @property
    def in_text(self) -> bool:
        """Whether the value stands in the text."""
        return (self.place or ("text" if self.kind == "text" else "head")) == "text"

    @property
    def line(self) -> str:
        """The beginning of the line in the text."""
        return f"{self.marker or self.column}: "

    def problems(self) -> list[str]:
        """List what is wrong with the options by themselves."""
        name = f"data.features, column {self.column!r}"
        found = bound_problems(Feature, vars(self), name)
        for option, value, known in (
            ("kind", self.kind, get_args(FeatureKind)),
            ("place", self.place, get_args(Place)),
        ):
            if value not in known and (value is not None or option == "kind"):
                found.append(f"{name}: {option} is {value!r}: give {', '.join(known)}")
        if self.kind == "text" and not self.in_text:
            found.append(f"{name}: a text goes into the text: set place: text")
        if self.kind == "vector" and self.in_text:
            found.append(f"{name}: a vector has no words: set place: head")
        if self.separator == "":
            found.append(f"{name}: separator is empty: give the text between tags, or null to find out")
        if self.marker is not None and (not self.marker.strip() or "\n" in self.marker):
            found.append(f"{name}: marker is {self.marker!r}: give a word such as Keywords, or null")
        return found


def as_features(given: Iterable[Feature | Mapping[str, Any]] | None) -> tuple[Feature, ...]:
    """Return the features of a list of options or mappings."""
    return _made(Feature, given, "data.features")


def as_joins(given: Iterable[JoinedFile | Mapping[str, Any]] | None) -> tuple[JoinedFile, ...]:
    """Return the joined files of a list of options or mappings."""
    return tuple(
        replace(join, file=Path(join.file), via=Path(join.via) if join.via else None)
        for join in _made(JoinedFile, given, "data.join")
    )


def _made(kind: type[T], given: Iterable[T | Mapping[str, Any]] | None, option: str) -> tuple[T, ...]:
    try:
        made = tuple(kind(**one) if isinstance(one, Mapping) else one for one in given or ())
    except TypeError as error:
        raise ConfigError(f"{option} cannot be read ({error})") from None
    if others := [one for one in made if not isinstance(one, kind)]:
        names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
        raise ConfigError(f"{option} has {others[0]!r}: give mappings of {names}")
    return made


def beside(file: Path, csv: Path) -> Path:
    """Return the absolute path of a joined file: in the working directory, else beside the movies file."""
    path = Path(file).expanduser()
    near = csv.expanduser().absolute().parent / path
    return near if not path.is_absolute() and not path.exists() and near.exists() else path.absolute()


def join_beside(join: JoinedFile, csv: Path) -> JoinedFile:
    """Return a joined file with absolute paths; see `beside`."""
    return replace(join, file=beside(join.file, csv), via=beside(join.via, csv) if join.via else None)


def holds_labels(column: str, labels: Sequence[str]) -> bool:
    """Return whether a column holds the genres that are to be predicted, in the movies file or a joined one.

    Args:
        column: The column, or `file.column`.
        labels: Columns of the genres in the movies file.
    """
    return not {column, column.rpartition(".")[2]}.isdisjoint([*labels, "genres"])


def feature_problems(features: Sequence[Feature], joins: Sequence[JoinedFile], labels: Sequence[str]) -> list[str]:
    """List what is wrong with features and joined files, as far as their options show.

    Args:
        features: Features of the data.
        joins: Joined files of the data.
        labels: Columns of the genres.
    """
    problems = [problem for feature in features for problem in feature.problems()]
    problems += [problem for join in joins for problem in join.problems()]
    for names, option in (([f.column for f in features], "data.features"), ([j.name for j in joins], "data.join")):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"{option} names {twice[0]!r} twice: leave one of them out")
    if leaks := [f.column for f in features if holds_labels(f.column, labels)]:
        problems.append(
            f"data.features has {leaks[0]!r}, the genres that the model is to predict: take it out of the inputs"
        )
    return problems


def features_in(data: Mapping[str, Any]) -> tuple[Feature, ...]:
    """Return the features in use of a run's data section."""
    features = as_features(data.get("features"))
    return tuple(f for f in features if not (f.after_release and data.get("leave_out_after_release")))


def with_files(joins: Sequence[JoinedFile], files: Sequence[Path]) -> tuple[JoinedFile, ...]:
    """Return a run's joined files with others in their place.

    Args:
        joins: Joined files of the run.
        files: Each in the place of the one with the same name, or of the only one; a file of links likewise.

    Raises:
        ConfigError: A file is in the place of none.
    """
    names = {_stem(file) for join in joins for file in join.files}
    found = tuple(joins)
    for file in files:
        path = file.expanduser().absolute()
        name = _stem(path)
        if name not in names and len(names) == len(files) == 1:
            (name,) = names
        if name not in names:
            shown = ", ".join(sorted(names)) or "none"
            raise ConfigError(f"--data.join is {file}, and the run joins {shown}: give a file of the same name")
        found = tuple(
            replace(
                join,
                file=path if join.name == name else join.file,
                via=path if join.via and _stem(join.via) == name else join.via,
            )
            for join in found
        )
    return found
