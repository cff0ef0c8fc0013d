"""Options of the commands that read a file of new films with a run: its columns, its encoding, and the device."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.runs import RunDirectory

if TYPE_CHECKING:
    from genre_lightning.inference.scoring import Scorer
    from genre_lightning.learning.film_file import FilmFile

_ROLES = ("id", "title", "overview", "genres")


@dataclass(frozen=True)
class NewFilmOptions:
    """A run and a file of new films.

    Attributes:
        run: Directory of the run.
        file: Of the films.
        renamed: The file's column for each role that was named.
        encoding: Of its text.
        device: Of the model; None chooses.
    """

    run: RunDirectory
    file: Path
    renamed: dict[str, str]
    encoding: str
    device: str | None

    def open(self) -> tuple[Scorer, FilmFile]:
        """Load the run and open the file.

        Raises:
            GenreLightningError: One of them cannot be used.
        """
        from genre_lightning.inference.scoring import open_scorer
        from genre_lightning.learning.film_file import FilmFile

        scorer = open_scorer(self.run.path, self.device)
        return scorer, FilmFile.of(self.file, scorer, self.renamed, self.encoding)


def add_new_film_options(parser: CommandParser, about: str) -> None:
    """Add the options.

    Args:
        parser: Of the command.
        about: What the file holds.
    """
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a trained run of any kind")
    parser.add_argument("--data.csv", type=Path, required=True, metavar="FILE", help=about)
    for role in _ROLES[:-1]:
        parser.add_argument(f"--data.columns.{role}", metavar="NAME", help=f"the file's column of {role}")
    parser.add_argument("--data.encoding", metavar="NAME", help="of its text (default: that of the training file)")
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the best there is)")


def read_new_film_options(options: argparse.Namespace) -> NewFilmOptions:
    """Read the options, and check the run and the file's header before a library is loaded that takes seconds.

    Raises:
        GenreLightningError: One of them cannot be used.
    """
    from genre_lightning.config.columns import ColumnNames
    from genre_lightning.config.data import check_encoding
    from genre_lightning.data.new_films import NewFilms

    run = RunDirectory(options.run)
    run.require_trained()
    data = run.settings().get("data") or {}
    encoding = getattr(options, "data.encoding") or str(data.get("encoding") or "utf-8")
    check_encoding(encoding)
    renamed = {role: name for role in _ROLES if (name := getattr(options, f"data.columns.{role}", None)) is not None}
    file = getattr(options, "data.csv")
    columns = ColumnNames(**{**(data.get("columns") or {}), **renamed})
    NewFilms(file, columns, {"overview": columns.overview}, encoding).check()
    return NewFilmOptions(run, file, renamed, encoding, options.device)
