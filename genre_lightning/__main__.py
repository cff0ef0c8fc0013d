"""The entry of `genre-lightning` and `python -m genre_lightning`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from genre_lightning import __version__, cli
from genre_lightning.distributed.launch import leave_last_words, speaks
from genre_lightning.distributed.signals import (
    INTERRUPTED,
    exit_at_once,
    ignore_batch_signals,
    leave_ending_to_main,
    watching_signals,
)
from genre_lightning.errors import ConfigError, GenreLightningError, one_line
from genre_lightning.escapes import show_any_text
from genre_lightning.failures import machine_error
from genre_lightning.provenance import own_commit
from genre_lightning.quiet import quiet_libraries
from genre_lightning.streams import ReaderGoneError, finish_output, guard_streams, keep_working


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 2 for bad use, with one line on the error stream.

    Args:
        arguments: The words after the program's name; None takes the process's own, and with them the whole process.
    """
    if arguments is not None:
        return _ended(arguments)
    guard_streams()
    status = _ended(None)
    keep_working()  # what is left of the output is written when the process ends
    ignore_batch_signals()
    return status


def _ended(arguments: Sequence[str] | None) -> int:
    """Run a command line; whatever ends it is one line and an exit status, but for mistakes of the program."""
    try:
        with nullcontext() if arguments is not None else watching_signals():
            return _with_output(arguments)
    except GenreLightningError as error:
        return _failed(error)
    except KeyboardInterrupt:
        if arguments is None:  # to unload the libraries takes seconds
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            exit_at_once(INTERRUPTED, "interrupted")
        leave_ending_to_main()
        print("genre-lightning: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ReaderGoneError:
        return 0
    except Exception as error:
        if known := machine_error(error):
            return _failed(known)
        leave_last_words(error)
        raise


def _with_output(arguments: Sequence[str] | None) -> int:
    try:
        status = _main(arguments)
    except SystemExit:  # --help
        finish_output(0)
        raise
    return finish_output(status)


def _failed(error: GenreLightningError) -> int:
    leave_ending_to_main()
    leave_last_words(error)
    if speaks(error):
        print(f"genre-lightning: {one_line(error)}", file=sys.stderr)
    return error.exit_status


def _main(arguments: Sequence[str] | None) -> int:
    show_any_text()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(cli.help_text())
        return 0
    if words[0] == "--version":
        commit = own_commit()
        print(f"genre-lightning {__version__}" + (f" ({commit})" if commit else ""))
        return 0
    name, rest = cli.find_command(words)
    if name is None:
        raise ConfigError(_unknown(words))
    quiet_libraries()
    return cli.run(name, rest, whole_process=arguments is None)


def _unknown(words: Sequence[str]) -> str:
    near = difflib.get_close_matches(" ".join(words[:2]), cli.COMMANDS, n=1) or difflib.get_close_matches(
        words[0], cli.COMMANDS, n=1
    )
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"there is no command '{words[0]}': {hint}'genre-lightning --help' lists them"


if __name__ == "__main__":
    sys.exit(main())
