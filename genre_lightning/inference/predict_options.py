"""What tagging a file is asked for: a run as it was trained, the file, and the table; read without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genre_lightning.config.data import check_encoding
from genre_lightning.data.file_kinds import kind_by_name
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_output
from genre_lightning.runs import RunDirectory, check_spare


@dataclass(frozen=True)
class PredictOptions:
    """Options of the command line.

    Attributes:
        run: Directory of the run.
        films: File of the films to tag.
        out: The table to write.
        columns: Names given by --data.columns.*.
        raw_cells: Leave texts in a CSV as they are, even those that a spreadsheet program takes for formulas.
        encoding: Of the text of the file; None for that of the training file.
        rest: The other arguments of the command line.
        joins: Files in the place of the run's joined ones.
    """

    run: RunDirectory
    films: Path
    out: Path
    columns: dict[str, str]
    raw_cells: bool
    encoding: str | None
    rest: list[str]
    joins: tuple[Path, ...] = ()

    def check(self) -> None:
        """Refuse what can be refused before a library is loaded.

        Raises:
            ConfigError: The table cannot be written, or the encoding is unknown.
        """
        if kind_by_name(self.out) not in ("csv", "csv.gz", "parquet"):
            raise ConfigError(f"--out is {self.out}: name a .csv, .csv.gz or .parquet file")
        if self.encoding is not None:
            check_encoding(self.encoding)
        check_output(self.out, "--out")
        check_spare(self.out, "--out", (self.films, *self.joins), self.run)
