"""The options of the data and what can be told of them and of the file's header: read without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from genre_lightning.bounds import SEED, Bounds, at_least, bound_problems
from genre_lightning.data.cache import default_cache_dir
from genre_lightning.data.cells import GenreFormat
from genre_lightning.data.movies import FilmSource, check_columns
from genre_lightning.data.splits import check_fractions
from genre_lightning.data.templates import ColumnNames, TextTemplate
from genre_lightning.errors import ConfigError, problems_of


class DataOptions:
    """Films, their texts as tokens and their genres, split and batched.

    These are the options of `MovieDataModule`, which inherits them, so that they can be made and checked alone too.

    Args:
        csv: the movies file: .csv, .tsv or .jsonl (an object a line), each also with .gz, or .parquet.
        columns: names of the file's columns.
        genre_format: of the genres column: "literal" for Python lists, "json", "separated", "one_hot" for a column of
            0 and 1 for each genre (those listed in columns.genres, else all columns of 0 and 1), or "auto", the
            default, to find out from all rows.
        genre_separator: text between the names of a "separated" column; null, the default, finds out.
        merge_genre_case: count genres that differ in upper and lower case only as one, under the most frequent
            spelling; false, the default, keeps and reports them.
        max_malformed: fraction of the rows that may be malformed, 0.05 by default; a file with more is refused.
        encoding: of a file that is not Parquet, "utf-8" by default; such as windows-1252.
        text: template over the columns of what the model reads, such as "{title}. {overview}".
        tokenizer: model of the hub or local directory whose tokenizer is used, or "wordpiece" for a vocabulary
            trained on the training split; null takes the backbone's.
        revision: of the tokenizer on the hub; null takes the backbone's.
        vocab_size: tokens of a trained vocabulary.
        max_tokens: of a text, special tokens included; longer texts are cut.
        split: shares of train, validation and test; two shares give the paper's protocol, in which one part
            serves as validation and as test.
        seed: of the subset and the splits.
        max_films: use a seeded random subset of so many films; null uses all.
        global_batch_size: films of one optimizer step, over all devices.
        micro_batch_tokens: processed tokens that a device takes at once, padding included; it changes the speed and
            the memory of a run, never its training. null chooses by device and layout, 16,384 on an accelerator.
        num_workers: processes that load batches; loading is cheap, so 0 is right for most.
        cache_dir: where films and tokens are kept between runs; null takes $GENRE_LIGHTNING_CACHE or ~/.cache.
        cache_group_writable: let the group of cache_dir read and write what is kept there; false, the default, keeps
            it to the user. Who may write to a cache can change what others train on.
    """

    def __init__(
        self,
        csv: Path,
        columns: ColumnNames | None = None,
        genre_format: GenreFormat = "auto",
        genre_separator: str | None = None,
        merge_genre_case: bool = False,
        max_malformed: Annotated[float, Bounds(0, 1)] = 0.05,
        encoding: str = "utf-8",
        text: str = "{overview}",
        tokenizer: str | None = None,
        revision: str | None = None,
        vocab_size: Annotated[int, at_least(1, 10**7)] = 8000,
        max_tokens: Annotated[int, at_least(3, 10**6)] = 256,
        split: list[float] = [0.8, 0.1, 0.1],  # noqa: B006  # read only; a list is what YAML and --help show
        seed: Annotated[int, SEED] = 0,
        max_films: Annotated[int | None, at_least(1)] = None,
        global_batch_size: Annotated[int, at_least(1, 10**7)] = 32,
        micro_batch_tokens: Annotated[int | None, at_least(1, 10**9)] = None,
        num_workers: Annotated[int, at_least(0, 1024)] = 0,
        cache_dir: Path | None = None,
        cache_group_writable: bool = False,
    ) -> None:
        super().__init__()
        self.source = FilmSource(
            Path(csv),
            columns or ColumnNames(),
            TextTemplate(text),
            genre_format,
            genre_separator,
            encoding=encoding,
            max_malformed=max_malformed,
        )
        self.merge_genre_case = merge_genre_case
        self.tokenizer_name = tokenizer
        self.revision = revision
        self.vocab_size = vocab_size
        self.max_tokens = max_tokens
        self.fractions = list(split)
        self.seed = seed
        self.max_films = max_films
        self.global_batch_size = global_batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.num_workers = num_workers
        self.cache_dir = Path(cache_dir) if cache_dir else default_cache_dir()
        self.cache_group_writable = cache_group_writable

    def check(self) -> None:
        """Everything about the options and the file that can be told without reading more than its header.

        Raises:
            ConfigError, DataError: with the option and the cure.
        """
        problems = problems_of([lambda: check_fractions(self.fractions), lambda: check_encoding(self.source.encoding)])
        if self.source.genre_separator == "":
            problems.append("data.genre_separator is empty: give the text between genres, or null to find out")
        if problems := [
            *problems,
            *bound_problems(DataOptions, {**vars(self), "max_malformed": self.source.max_malformed}, "data"),
        ]:
            raise ConfigError("; and ".join(problems))
        check_columns(self.source)


def check_encoding(name: str) -> None:
    """Refuse a text encoding that Python does not know.

    Raises:
        ConfigError: with the fix.
    """
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ConfigError(f"data.encoding is {name!r}: give a text encoding such as utf-8 or windows-1252") from None
