"""The words of a command line that name a run: read before the command is parsed, without loading torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory, kind_of


def with_run_named(command: str, arguments: Sequence[str]) -> list[str]:
    """Puts `--run_dir` before a run that is named first and bare, and looks that there is a run.

    Args:
        command: for messages.
        arguments: of it.

    Raises:
        ConfigError, CheckpointError: no run directory is named, or no run is in it.
    """
    words = list(arguments)
    if words and not words[0].startswith("-"):
        words[:1] = ["--run_dir", words[0]]
    given = [w for w in words if w.split("=")[0] == "--run_dir"]
    if not given and "--help" not in words and "-h" not in words:
        raise ConfigError(f"{command} needs a run: genre-lightning {command} --run_dir runs/NAME")
    if given:
        place = words.index(given[0])
        value = given[0].partition("=")[2] or (words[place + 1] if place + 1 < len(words) else "")
        RunDirectory(Path(value)).require_run()
    return words


def with_film_file(arguments: Sequence[str]) -> list[str]:
    """Puts `--data.csv` before a file that is named first and bare, and takes a small model where none is named."""
    words = list(arguments)
    if words and not words[0].startswith("-"):
        words[:1] = ["--data.csv", words[0]]
    if not any(word.startswith(("--model", "--config", "-c", "--run_dir")) for word in words):
        words = ["--model.backbone", "small", *words]  # its tokenizer is trained here: no model is needed for a look
    return words


def with_run_config(arguments: Sequence[str], kind: str = "fit") -> list[str]:
    """Puts the run's own configuration in front where no other is named: a run directory alone is enough to go on.

    Args:
        arguments: of the command.
        kind: of the runs that the command can go on with: "fit", "baseline tfidf_nb", …

    Raises:
        ConfigError: the directory holds a run of another kind.
    """
    words = list(arguments)
    named = any(word in ("--config", "-c") or word.startswith("--config=") for word in words)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--run_dir":
            run = RunDirectory(Path(value if equals else words[place + 1] if place + 1 < len(words) else ""))
            if run.config.is_file():
                _check_kind(run, kind)
                return words if named else ["--config", str(run.config), *words]
    return words


def _check_kind(run: RunDirectory, kind: str) -> None:
    found = kind_of(run.settings())
    if found != kind:
        raise ConfigError(
            f"{run.path} holds a run of 'genre-lightning {found}': use that command, or name another --run_dir"
        )


def default_run_dir(arguments: Sequence[str]) -> Path:
    """`runs/NAME` after the first configuration file that the arguments name."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c") and (equals or place + 1 < len(arguments)):
            return Path("runs") / Path(value if equals else arguments[place + 1]).stem
    return Path("runs/default")
