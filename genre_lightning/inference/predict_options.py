"""What tagging a file is asked for: a run as it was trained, the file, and the table; read without loading torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.data import check_encoding
from genre_lightning.data.file_kinds import kind_by_name
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_output
from genre_lightning.runs import RunDirectory

_ALLOWED = (
    "--trainer.",
    "--config",
    "-c",
    "--model.backbone",
    "--data.micro_batch_tokens",
    "--data.cache_dir",
    "--json",
)
"""Beginnings of the other options that a trained run can be used with: where it runs, and where its base lies."""


@dataclass(frozen=True)
class PredictOptions:
    """What the command line says.

    Attributes:
        run: directory of the run.
        files: of --data.csv and --out.
        columns: names given by --data.columns.*.
        raw_cells: leave texts in a CSV as they are, even those that a spreadsheet program takes for formulas.
        encoding: of the text of --data.csv; None for that of the training file.
        rest: the other arguments of the command line.
        joins: files in the place of the run's joined ones.
    """

    run: RunDirectory
    files: dict[str, Path]
    columns: dict[str, str]
    raw_cells: bool
    encoding: str | None
    rest: list[str]
    joins: tuple[Path, ...] = ()

    @property
    def films(self) -> Path:
        """The file of the films to be tagged."""
        return self.files["--data.csv"]

    @property
    def out(self) -> Path:
        """The table to write."""
        return self.files.get("--out") or self.run.path / "predictions.parquet"

    def check(self) -> None:
        """Refuse what can be refused before a library is loaded.

        Raises:
            CheckpointError: the run is not one that is trained.
            ConfigError: no films are named, or the table cannot be written.
        """
        self.run.require_trained()
        if "--data.csv" not in self.files:
            raise ConfigError("--data.csv is missing: name the file of the films to tag")
        if kind_by_name(self.out) not in ("csv", "csv.gz", "parquet"):
            raise ConfigError(f"--out is {self.out}: name a .csv, .csv.gz or .parquet file")
        if self.encoding is not None:
            check_encoding(self.encoding)
        check_output(self.out, "--out")
        if self.out.exists() and self.films.exists() and self.out.samefile(self.films):
            raise ConfigError(f"--out {self.out} is the file of the films: name another")


def read_options(arguments: Sequence[str]) -> PredictOptions:
    """Tells the command's own options from those that are handed on.

    Raises:
        ConfigError: no run is named, or an option is of the training.
    """
    files: dict[str, Path] = {}
    columns: dict[str, str] = {}
    run: Path | None = None
    raw_cells, encoding = False, None
    rest: list[str] = []
    joins: list[Path] = []
    words = iter(arguments)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if place == 0 and not word.startswith("-"):
            run = Path(word)
        elif name in ("--data.csv", "--data.join", "--data.encoding", "--out", "--run_dir") or name.startswith(
            "--data.columns."
        ):
            value = value if equals else next(words, "")
            if not value:
                raise ConfigError(f"{name} names nothing: give it a value")
            if name == "--run_dir":
                run = Path(value)
            elif name == "--data.encoding":
                encoding = value
            elif name == "--data.join":
                joins.append(Path(value))
            elif name.startswith("--data.columns."):
                columns[name.removeprefix("--data.columns.")] = value
            else:
                files[name] = Path(value).expanduser().absolute()
        elif name == "--raw_cells":
            if value not in ("", "true", "false"):
                raise ConfigError(f"--raw_cells is {value}: give true or false")
            raw_cells = value != "false"
        else:
            rest.append(word)
    if run is None:
        raise ConfigError("predict needs a run: genre-lightning predict runs/NAME --data.csv FILE --out FILE")
    for word in rest:
        if word.startswith("-") and not word.startswith(_ALLOWED):
            raise ConfigError(
                f"{word.partition('=')[0]} is not an option of predict, which uses a run as trained: "
                "it takes --data.csv, --data.join, --data.columns.*, --data.encoding, --out, --raw_cells, --trainer.*"
            )
    if unknown := set(columns) - set(asdict(ColumnNames())):
        raise ConfigError(f"--data.columns.{min(unknown)} is unknown: use .id, .title, .overview or .genres")
    directory = RunDirectory(run.expanduser().absolute())
    return PredictOptions(directory, files, columns, raw_cells, encoding, rest, tuple(joins))
