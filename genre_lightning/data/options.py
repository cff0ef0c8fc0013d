"""The options of the data and what can be told of them and of the file's header: read without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from genre_lightning.bounds import SEED, at_least, bound_problems
from genre_lightning.data.cache import default_cache_dir
from genre_lightning.data.cells import GenreFormat
from genre_lightning.data.movies import ColumnNames, FilmSource, TextTemplate, check_columns
from genre_lightning.data.splits import check_fractions
from genre_lightning.errors import ConfigError, problems_of


class DataOptions:
    """Films, their texts as tokens and their genres, split and batched.

    These are the options of `MovieDataModule`, which inherits them, so that they can be made and checked alone too.

    Args:
        csv: the movies file: .csv, .csv.gz or .parquet.
        columns: names of the file's columns.
        genre_format: of the genres column: "literal" for Python lists, "json", "separated", or "auto" to find out.
        genre_separator: of names in a "separated" column; null finds out.
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
    """

    def __init__(
        self,
        csv: Path,
        columns: ColumnNames | None = None,
        genre_format: GenreFormat = "auto",
        genre_separator: str | None = None,
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
    ) -> None:
        super().__init__()
        self.source = FilmSource(Path(csv), columns or ColumnNames(), TextTemplate(text), genre_format, genre_separator)
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

    def check(self) -> None:
        """Everything about the options and the file that can be told without reading more than its header.

        Raises:
            ConfigError, DataError: with the option and the cure.
        """
        problems = problems_of([lambda: check_fractions(self.fractions)])
        if problems := [*problems, *bound_problems(DataOptions, vars(self), "data")]:
            raise ConfigError("; and ".join(problems))
        check_columns(self.source.path, self.source.columns, self.source.template)
