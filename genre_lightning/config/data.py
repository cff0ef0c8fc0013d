"""The options of the data, and checks of them and of the file's header without loading torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from genre_lightning.bounds import SEED, Bounds, at_least, bound_problems
from genre_lightning.cache import default_cache_dir
from genre_lightning.config.columns import ColumnNames, FilmSource, GenreFormat, TextTemplate
from genre_lightning.config.constructors import plain
from genre_lightning.config.effects import UNCHANGED
from genre_lightning.config.features import Feature, JoinedFile, as_features, as_joins, beside, join_beside
from genre_lightning.config.trust import function
from genre_lightning.errors import ConfigError, problems_of

MOST_FOLDS = 100

MAIN = "main"
"""The value of `data.unlabelled` that names the films without genres of the movies files."""


@dataclass
class DataOptions:
    """Films, their texts as tokens and their genres, split and batched.

    These are the options of `MovieDataModule`.

    Attributes:
        csv: The movies file: .csv, .tsv or .jsonl (one object per line), each also with .gz, or .parquet.
        older_csv: Further movies files of the same form, the newest first; of films with one id, the first file's row
            counts. A run that continues from another has that run's files here.
        reader: Function of your own that is given csv and yields films, each a mapping of column names to values, such
            as my_package.read_films with --trust my_package; null, the default, reads the file.
        columns: Names of the file's columns.
        genre_format: Format of the genres: "literal" for Python lists, "json", "separated", "one_hot" for a column of
            0 and 1 for each genre (those listed in columns.genres, else all columns of 0 and 1), or "auto", the
            default, to find out from all rows.
        genre_separator: Text between the names of a "separated" column; null, the default, finds out.
        merge_genre_case: Count genres that differ in upper and lower case only as one, under the most frequent
            spelling; false, the default, keeps and reports them.
        max_malformed: Fraction of the rows that may be malformed, 0.05 by default; a file with more is refused.
        encoding: Encoding of a file that is not Parquet, "utf-8" by default; such as windows-1252.
        text: Template over the columns of what the model reads, such as "{title}. {overview}".
        join: Further CSV, JSONL or Parquet files with columns of the films, each with its key column.
        features: Columns that the model reads beside the text, each with its kind and its place; see docs/inputs.md.
        leave_out_after_release: Leave out the features that are marked after_release.
        exclude_leaks: Leave out the tags and categories that all but give a genre away; see the audit.
        label_since: The date from which films are labelled for a genre, such as {Western: 2011-05-01}, or the files
            whose films are ({Western: [new.csv]}); other films are unknown for the genre unless they have it.
        label_date: Column of the dates that label_since is compared with.
        known_genres: Column that lists the genres that a film was labelled for, for films where it is not empty; the
            other genres that the film lacks are unknown.
        unlabelled: Films that get pseudo-labels from a trained run when a run continues: "main" for the films without
            genres of the movies files, further files of the same columns, or a list of both; see docs/keep-learning.md.
        language: Column of the films' languages, by which metrics are shown too if the files have it; null leaves it
            out.
        tokenizer: Model of the hub or local directory whose tokenizer is used, or "wordpiece" for a vocabulary
            trained on the training split; null takes the backbone's.
        revision: Revision of the tokenizer on the hub; null takes the backbone's.
        vocab_size: Tokens of a trained vocabulary.
        max_tokens: Maximum number of tokens of a text, special tokens included; longer texts are cut.
        split: Fractions of train, validation and test; two fractions give the paper's protocol, in which one part
            serves as validation and as test.
        seed: Random seed of the subset and the splits.
        fold: Leaves one of several folds of the training films out of the training, such as 2/5; null, the default,
            trains on all. 'genre-lightning folds' sets it.
        max_films: Number of films of a random subset; null uses all.
        global_batch_size: Films of one optimizer step, over all devices.
        micro_batch_tokens: Processed tokens that a device takes at once, padding included; it changes the speed and
            the memory of a run, never its training. null chooses by device and layout, 16,384 on an accelerator.
        num_workers: Processes that load batches; loading is cheap, so 0 is right for most.
        cache_dir: Folder that keeps films and tokens between runs; null takes $GENRE_LIGHTNING_CACHE or ~/.cache.
        cache_group_writable: Let the group of cache_dir read and write what is kept there; false, the default, keeps
            it to the user. Who may write to a cache can change what others train on.
    """

    csv: Annotated[Path | str, UNCHANGED]
    older_csv: Annotated[list[Path | str] | None, UNCHANGED] = None
    reader: str | Callable[..., Any] | None = None
    columns: ColumnNames | None = None
    genre_format: GenreFormat = "auto"
    genre_separator: str | None = None
    merge_genre_case: bool = False
    max_malformed: Annotated[float, Bounds(0, 1), UNCHANGED] = 0.05
    encoding: str = "utf-8"
    text: str = "{overview}"
    join: list[JoinedFile] | None = None
    features: list[Feature] | None = None
    leave_out_after_release: bool = False
    exclude_leaks: bool = False
    label_since: dict[str, str | int | list[str]] | None = None
    label_date: str = "release_date"
    known_genres: str | None = None
    unlabelled: str | list[str] | None = None
    language: Annotated[str | None, UNCHANGED] = "original_language"
    tokenizer: str | None = None
    revision: str | None = None
    vocab_size: Annotated[int, at_least(1, 10**7)] = 8000
    max_tokens: Annotated[int, at_least(3, 10**6)] = 256
    split: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    seed: Annotated[int, SEED] = 0
    fold: str | None = None
    max_films: Annotated[int | None, at_least(1)] = None
    global_batch_size: Annotated[int, at_least(1, 10**7)] = 32
    micro_batch_tokens: Annotated[int | None, at_least(1, 10**9), UNCHANGED] = None
    num_workers: Annotated[int, at_least(0, 1024), UNCHANGED] = 0
    cache_dir: Annotated[Path | str | None, UNCHANGED] = None
    cache_group_writable: Annotated[bool, UNCHANGED] = False

    def __post_init__(self) -> None:
        """Refuse a template that cannot be read, or that holds the labels.

        Raises:
            ConfigError: With what is wrong in it.
        """
        self.features = list(as_features(self.features)) if self.features else self.features
        self.join = list(as_joins(self.join)) if self.join else self.join
        _ = self.source

    @property
    def used_features(self) -> tuple[Feature, ...]:
        """The features in use."""
        return tuple(f for f in self.features or () if not (f.after_release and self.leave_out_after_release))

    @cached_property
    def source(self) -> FilmSource:
        """The file and how it is read."""
        features = self.used_features
        return FilmSource(
            Path(self.csv),
            self.columns or ColumnNames(),
            TextTemplate(self.text, tuple(f for f in features if f.in_text)),
            self.genre_format,
            self.genre_separator,
            encoding=self.encoding,
            max_malformed=self.max_malformed,
            join=tuple(join_beside(join, Path(self.csv)) for join in self.join or ()),
            inputs=tuple(f for f in features if not f.in_text),
        )

    @property
    def sources(self) -> tuple[FilmSource, ...]:
        """All files, the newest first; a file that is named twice counts once."""
        paths = dict.fromkeys([self.source.path, *map(Path, self.older_csv or ())])
        return tuple(replace(self.source, path=path) for path in paths)

    @property
    def file_names(self) -> str:
        """Names of all files, for messages."""
        return ", ".join(source.path.name for source in self.sources)

    @property
    def unlabelled_files(self) -> tuple[str, ...]:
        """The files of films without labels; "main" stands for the movies files."""
        return tuple([self.unlabelled] if isinstance(self.unlabelled, str) else self.unlabelled or ())

    @property
    def own_reader(self) -> Callable[..., Any] | None:
        """The function that yields the films; None if the file is read.

        Raises:
            ConfigError: It is of a package that is not trusted, or is not there.
        """
        return function(self.reader, "data.reader") if isinstance(self.reader, str) else self.reader

    @property
    def reading(self) -> dict[str, Any]:
        """The settings that what is read depends on, as plain values."""
        return {name: value for name, value in plain(self).items() if name not in ("cache_dir", "num_workers")}

    @property
    def cache(self) -> Path:
        """Where films and tokens are kept between runs."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else default_cache_dir()

    @property
    def left_out(self) -> tuple[int, int] | None:
        """The fold of the training films that is left out, from 0, and how many there are; None for none.

        Raises:
            ConfigError: It is not one of several folds.
        """
        if self.fold is None:
            return None
        number, _, count = self.fold.partition("/")
        if not (
            number.isdecimal()
            and count.isdecimal()
            and 2 <= int(count) <= MOST_FOLDS
            and 1 <= int(number) <= int(count)
        ):
            raise ConfigError(
                f"data.fold is {self.fold!r}: give a fold and how many there are, such as 2/5, with 2 to {MOST_FOLDS}"
            )
        return int(number) - 1, int(count)

    @property
    def is_paper_protocol(self) -> bool:
        """Whether validation and test are the same films."""
        return len(self.split) == 2

    def check_options(self) -> None:
        """Check everything that can be known of the options by themselves.

        Raises:
            ConfigError: With the option and the fix.
        """
        checks = [lambda: check_fractions(self.split), lambda: check_encoding(self.encoding), lambda: self.left_out]
        problems = problems_of(checks)
        if self.genre_separator == "":
            problems.append("data.genre_separator is empty: give the text between genres, or null to find out")
        lines = sum(feature.max_tokens for feature in self.source.template.features)
        if 2 * lines > self.max_tokens:
            problems.append(
                f"the features in the text take up to {lines} of data.max_tokens {self.max_tokens}, more than half: "
                "lower their max_tokens, or raise data.max_tokens"
            )
        problems += self._label_problems()
        if problems := [*problems, *bound_problems(DataOptions, vars(self), "data")]:
            raise ConfigError("; and ".join(problems))

    def _label_problems(self) -> list[str]:
        names = [source.path.name for source in self.sources]
        wanted = {
            genre: since if isinstance(since, list) else [since] for genre, since in (self.label_since or {}).items()
        }
        given = [(genre, since) for genre, all_since in wanted.items() for since in all_since]
        return [
            f"data.label_since of {genre!r} is {since!r}, which is neither a date such as 2011-05-01 nor one of the "
            f"files {', '.join(names)}: fix it"
            for genre, since in given
            if since not in names and not is_date(since)
        ] + [
            f"data.label_since of {genre!r} is {since!r}, the name of {names.count(str(since))} files: rename one"
            for genre, since in given
            if names.count(str(since)) > 1
        ]


def is_date(value: object) -> bool:
    """Return whether a value is a year, a month or a day: 2011, "2011-05" or "2011-05-01"."""
    formats = {4: "%Y", 7: "%Y-%m", 10: "%Y-%m-%d"}
    text = str(value)
    try:
        datetime.strptime(text, formats[len(text)])
    except (KeyError, ValueError):
        return False
    return True


def make_paths_absolute(data: Any) -> None:
    """Make the files that the options name absolute, in place: a run is used from other directories.

    Args:
        data: The options, or the parser's namespace of them.
    """
    csv = Path(data.csv).expanduser().absolute()
    data.csv = str(csv)
    if older := getattr(data, "older_csv", None):
        data.older_csv = [str(Path(file).expanduser().absolute()) for file in older]
    if unlabelled := getattr(data, "unlabelled", None):
        files = [unlabelled] if isinstance(unlabelled, str) else unlabelled
        data.unlabelled = [file if file == MAIN else str(Path(file).expanduser().absolute()) for file in files]
    if joins := getattr(data, "join", None):
        for join in joins:
            if isinstance(join, dict):
                join.update({name: str(beside(join[name], csv)) for name in ("file", "via") if join.get(name)})
            else:
                join.file = str(beside(join.file, csv))
                join.via = str(beside(join.via, csv)) if getattr(join, "via", None) else None


def check_encoding(name: str) -> None:
    """Refuse a text encoding that Python does not know.

    Raises:
        ConfigError: Python does not know the encoding; the message names the fix.
    """
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ConfigError(f"data.encoding is {name!r}: give a text encoding such as utf-8 or windows-1252") from None


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that are not (train, validation, test) or (train, rest).

    Raises:
        ConfigError: The fractions are unfit; the message names the option and the fix.
    """
    if len(fractions) not in (2, 3) or not all(f > 0 for f in fractions) or not abs(sum(fractions) - 1) <= 1e-6:
        raise ConfigError(
            f"data.split is {list(fractions)}: give three positive fractions of train, validation and test that add up "
            "to 1 ([0.8, 0.1, 0.1]), or two for the paper's protocol ([0.8, 0.2])"
        )
