"""`genre-lightning tag`: the genres of texts, from the command line, a file, or line by line as they come."""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, AnyStr

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from genre_lightning.bounds import Bounds, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.feedback import add_correction, correction_of, store_correction
from genre_lightning.commands.film_fields import Film, add_field_option, fields_of, film_of
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.escapes import visible
from genre_lightning.evaluation.console import console_of
from genre_lightning.progress import answer, answer_json, require_output, say
from genre_lightning.runs import open_run

if TYPE_CHECKING:
    from genre_lightning.inference.tagger import TaggedText, Tagger

_BAR_WIDTH = 24
_RUNNERS_UP = 2
"""Genres shown below those decided, so that a reader sees how near they were."""
_SHOWN_CHARACTERS = 160
_LONGEST_LINE = 4 * 2**20
"""Bytes of a line that are looked at; far more than any model reads."""


def tag(arguments: Sequence[str]) -> int:
    """Print the genres of each text."""
    options = _parser().parse_intermixed_args(list(arguments))
    # before the libraries and the model are loaded, which takes seconds
    run = open_run(options.run)
    require_output()
    fields = fields_of(options.field, options.texts)
    if sys.stdin is None and not options.texts and not options.file and not fields:
        raise ConfigError("the standard input is closed: give a TEXT, or a file with --file")
    if options.file:
        _check_file(options.file, alone=not options.texts and not fields)
    correction = correction_of(options)
    from genre_lightning.compat import import_lightning

    import_lightning()
    from genre_lightning.inference.tagger import Tagger

    tagger = Tagger(run.path, options.device)
    _answer(tagger, options, fields)
    if correction is not None:
        film = film_of(_given(options.texts[0]))
        if fields:
            film = {**(film if isinstance(film, Mapping) else {"overview": film}), **fields}
        store_correction(options, tagger, film, correction)
    return 0


def _check_file(file: Path, *, alone: bool) -> None:
    """Refuse a --file that is not there, is a directory, or stands beside texts of the command line."""
    if not alone:
        raise ConfigError("--file is given beside a TEXT or --field: give one of them")
    if file.is_dir():
        raise DataError(f"{file} is a directory: give a text file with one text a line")
    if not file.exists():
        raise DataError(f"no such file: {file}: give a text file with one text a line")


def _answer(tagger: Tagger, options: argparse.Namespace, fields: dict[str, str]) -> None:
    write = _Writer(options)
    texts: Iterable[Film]
    if fields:
        texts = [{**({"overview": _given(options.texts[0])} if options.texts else {}), **fields}]
    elif options.texts:
        texts = map(film_of, map(_given, options.texts))
    elif options.file:
        texts = map(film_of, _lines_of_file(options.file))
    else:
        _converse(tagger, options, write)
        return
    for tagged in tagger(texts, top_k=options.top_k, threshold=options.threshold):
        write(tagged)


def _parser() -> CommandParser:
    parser = CommandParser(
        "tag",
        "Prints the genres of texts: of those given, of a file's lines, or else of the standard input line by line.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run of fit, baseline or ensemble")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a film's overview, or its columns as a JSON object")
    add_field_option(parser)
    parser.add_argument("--file", type=Path, help="a file with one text a line")
    parser.add_argument(
        "--top_k", type=within(int, at_least(1)), help="the N most probable genres, whatever their thresholds"
    )
    parser.add_argument(
        "--threshold",
        type=within(float, Bounds(0, 1)),
        help="probability to reach, in place of each genre's own threshold",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; the default is a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    add_correction(parser)
    return parser


def _converse(tagger: Tagger, options: argparse.Namespace, write: _Writer) -> None:
    """Answer each line as soon as it has come."""
    terminal = sys.stdin.isatty()
    if terminal:
        say("one text a line; an empty line or Ctrl-D ends")
    for number, line in enumerate(_lines(sys.stdin.buffer, b"\r\n"), start=1):
        text = decoded(line, f"line {number}")
        if terminal and not text.strip():
            break
        write(tagger(film_of(text), top_k=options.top_k, threshold=options.threshold))


class _Writer:
    """Prints results as the options and the place of the output ask for.

    Args:
        options: Options of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.as_json = options.json
        self.console = console_of(sys.stdout)
        self.first = True

    def __call__(self, tagged: TaggedText) -> None:
        if self.as_json:
            answer_json(tagged.as_dict())
        elif self.console.is_terminal:
            if not self.first:
                self.console.print()
            print_bars(tagged, self.console)
        else:
            answer(f"{visible(tagged)}\t{visible(_shortened(tagged.text))}")
            for note in tagged.notes:
                say(f"{_shortened(tagged.text, 40)!r}: {note}")
        self.first = False


def print_bars(tagged: TaggedText, console: Console) -> None:
    """Print a text and its genres, each with its probability as a number and as a bar, and its threshold."""
    if shown := _shortened(tagged.text):
        console.print(Text(shown, style="italic"))
    for note in tagged.notes:
        console.print(Text(f"  note: {note}", style="yellow"), soft_wrap=True)
    if not tagged.probabilities:
        return
    if not tagged.genres:
        console.print(Text("  no genre reaches its threshold; the likeliest:", style="yellow"))
    decided = {genre.name: genre.threshold for genre in tagged.genres}
    others = [name for name in tagged.probabilities if name not in decided][:_RUNNERS_UP]
    shown_names = {name: visible(name) for name in tagged.probabilities}
    width = max(map(cell_len, shown_names.values()))
    for name in (*decided, *others):
        probability, chosen = tagged.probabilities[name], name in decided
        line = Text(f"  {set_cell_size(shown_names[name], width)}  ", style="bold" if chosen else "dim")
        line.append(f"{probability:.3f}  ")
        # in eighths of a character, as far as the probability goes
        bar = _bar(probability, ascii_only=console.options.ascii_only)
        line.append(bar, style="green" if chosen else "bright_black")
        if not chosen:
            line.append(f"  below {tagged.thresholds[name]:.3f}")
        elif (threshold := decided[name]) is not None:
            line.append(f"  from {threshold:.3f} on", style="not bold dim")
        console.print(line, soft_wrap=True)


def _bar(share: float, *, ascii_only: bool) -> str:
    if ascii_only:
        return ("#" * round(share * _BAR_WIDTH)).ljust(_BAR_WIDTH)
    whole, eighths = divmod(round(share * _BAR_WIDTH * 8), 8)
    return ("█" * whole + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")).ljust(_BAR_WIDTH)


def _shortened(text: str, characters: int = _SHOWN_CHARACTERS) -> str:
    line = " ".join(text[: 4 * characters].split())
    return line if len(line) <= characters else f"{line[: characters - 1].rstrip()}…"


def _given(text: str) -> str:
    """Read a text of the command line: Python has kept bytes of it that are not UTF-8 as half characters."""
    try:
        return decoded(os.fsencode(text), "the text")
    except UnicodeEncodeError:
        return text  # half characters that no bytes have become: the tagger replaces them


def decoded(content: bytes, name: str) -> str:
    """Return the text of bytes that should be UTF-8; others are read as Windows-1252, with a warning.

    Args:
        content: Bytes of a line or an argument.
        name: Name of the content, for the message.
    """
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        say(f"{name} is not UTF-8: it is read as Windows-1252")
        return content.decode("cp1252", errors="replace")


def _lines_of_file(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        mark = file.read(2)
        file.seek(0)
        if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # what PowerShell's > writes
            with path.open(encoding="utf-16", errors="replace") as text:
                yield from _lines(text, "\r\n")
            return
        for number, line in enumerate(_lines(file, b"\r\n"), start=1):
            yield decoded(line, f"line {number} of {path}")


def _lines(file: IO[AnyStr], ends: AnyStr) -> Iterator[AnyStr]:
    """Give the lines of a stream, each as soon as it is there; of one that is too long its beginning.

    Args:
        file: The stream.
        ends: The characters that end a line, the last one always.
    """
    while line := file.readline(_LONGEST_LINE):
        rest = line
        while len(rest) == _LONGEST_LINE and not rest.endswith(ends[-1:]):
            rest = file.readline(_LONGEST_LINE)
        yield line.rstrip(ends)
