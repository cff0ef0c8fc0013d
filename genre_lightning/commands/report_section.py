"""What a command has found about a finished run, as a section of the run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genre_lightning.errors import GenreLightningError, one_line
from genre_lightning.evaluation.report import write_report
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.sections import Section, keep_section
from genre_lightning.files import check_folder
from genre_lightning.progress import say


def add_to_report(run: Run, section: Section, content: Mapping[str, Any]) -> None:
    """Keep what a command has found, and write the report again.

    The command has its result without that: a run that cannot be written, or that another process works in, gives a
    line on the error stream.
    """
    try:
        check_folder(run.directory, "RUN")
        with run.files.locked():
            keep_section(run, section, content)
            path = write_report(run.directory)
    except GenreLightningError as error:
        say(f"the report is unchanged: {one_line(error)}")
        return
    say(f"added to {path}")
