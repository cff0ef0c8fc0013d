"""Cells of a movies file that hold a structure: lists of genres, cast or companies, read without trusting them."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

GenreStyle = Literal["list", "separated"]

SHAPES_READ = (
    "lists, tuples, sets and dicts of names or of {'id', 'name'} as Python, JSON, NumPy or Spark write them, names "
    "between | ; , or line breaks, and 0/1 columns"
)
"""What a genres column may hold, for messages."""

MAX_CELL_CHARACTERS = 65_536
"""A longer cell is malformed: literal_eval needs seconds and gigabytes for a few megabytes of brackets."""

PLACEHOLDER_GENRES = frozenset(
    ["\\n", "<na>", "n/a", "na", "nan", "nat", "nil", "none", "null", "tba", "tbd", "undefined", "unknown",
     "unspecified", "no genre", "no genres", "no genre listed", "no genres listed", "none listed", "not available",
     "not specified", "unknown genre"]
)  # fmt: skip
"""Names that mean that a film has no genre, without case and without the signs around them."""

_SIGNS_AROUND = " \t.,;:!?#*+=~|/_'\"()[]{}<>-–—…"

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ID = r"""(?:'id'|"id")\s*:\s*(?:0|[1-9]\d{0,17})"""
_NAME = rf"""(?:'name'|"name")\s*:\s*{_STRING}"""
_ENTRY = rf"\{{\s*(?:{_ID}\s*,\s*{_NAME}|{_NAME}(?:\s*,\s*{_ID})?)\s*\}}"
_LIST_OF_ENTRIES = re.compile(rf"\s*\[\s*(?:{_ENTRY}\s*(?:,\s*{_ENTRY}\s*)*)?\]\s*")
_LIST_OF_STRINGS = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*)?\]\s*")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_LIST_OF_DICTS = re.compile(r"\s*\[\{.*\}\s*\]\s*", re.DOTALL)
_ANY_NAME = re.compile(rf"(?:'name'|\"name\")\s*:\s*({_STRING})")

_TOKEN = re.compile(
    rf"\s*(?:(?P<string>[uUbB]?{_STRING})|(?P<mark>[\[\](){{}},:=])"
    rf"|(?P<bare>[^\[\](){{}},:='\"\s](?:[^\[\](){{}},:='\"]*[^\[\](){{}},:='\"\s])?))"
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBERS = re.compile(rf"{_NUMBER.pattern}(?:\s+{_NUMBER.pattern})+")
_CALL = re.compile(r"[A-Za-z][\w.]*")  # np.str_('Drama') or Row(name='Drama'), as NumPy and Spark write entries
_CONTAINER = re.compile(
    r"\s*(?:(?:array|frozenset|set|tuple|list|List|WrappedArray|ArraySeq|Array|Set)\s*(?=\()"
    rf"|{_CALL.pattern}\s*(?=\(\s*[\[({{'\"]))"
)
_NAME_KEYS = ("name", "genre", "label", "description")
_DTYPE = re.compile(r"\s*,\s*dtype\s*=\s*[\w'<>|]+\s*\)\s*$")
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_DEPTH = 4
_MOST_TOKENS = 20_000
_MOST_DIGITS = 300
"""Of a whole number that is read: float64 ends at 308, and Python itself at 4,300."""
_LARGEST = 10**18
"""Of a number that is a name, such as a keyword's id."""

_SPECIAL = r"\\\x00-\x1f\ud800-\udfff"
"""What makes a string more than the characters between its quotes, or invalid."""
_ESCAPE = re.compile(f"[{_SPECIAL}]")
_PLAIN_STRING = re.compile(rf"""'[^'{_SPECIAL}]*'|"[^"{_SPECIAL}]*\"""")

_BULLET = re.compile(r"^\s*[-*•]\s+")
"""Before each name of a list of lines."""


class MalformedCellError(ValueError):
    """The cell does not hold what its column promises."""


def parse_genres(
    cell: Any, style: GenreStyle = "list", separator: str = ",", *, numbers: bool = False
) -> tuple[str, ...]:
    """Read the names in a genres cell, in its order, each once, normalised (NFC) and without placeholders.

    Args:
        cell: A string with a list, tuple, set or dict of names or of entries with a name, as Python, JSON, NumPy or
            Spark write them; a string of names between separators; or, from Parquet, such an object itself.
        style: "list" for the first of these, "separated" for the second.
        separator: What stands between names in the "separated" style.
        numbers: Whether numbers in a list are names.

    Raises:
        MalformedCellError: Any other content. Nothing is ever evaluated but strings in quotes, and those only after
            the whole cell has been read as brackets, strings, numbers and bare words.
    """
    if cell is None:
        return ()
    if not isinstance(cell, str):
        return distinct_names(_names_in(cell, numbers))
    if len(cell) > MAX_CELL_CHARACTERS:
        raise MalformedCellError(f"a genres cell of {len(cell)} characters")
    if style == "separated":
        return split_names(cell, separator)
    # brackets without a name in them are read, as they may be cut off
    if is_placeholder_genre(cell) and (any(map(str.isalnum, cell)) or cell.lstrip()[:1] not in ("[", "{", "(")):
        return ()
    if _LIST_OF_ENTRIES.fullmatch(cell):
        if _ESCAPE.search(cell) is None:  # in a tenth of the time
            return distinct_names(name[1:-1] for name in _ANY_NAME.findall(cell))
        return distinct_names(entry["name"] for entry in _literal(cell))
    if _LIST_OF_STRINGS.fullmatch(cell):
        names = _literal(cell)
        if not any(name.lstrip()[:1] in ("[", "{") for name in names):
            return distinct_names(names)
    return distinct_names(_names_in(_value(cell), numbers))


def is_placeholder_genre(name: str) -> bool:
    """Return whether a name, or a whole cell, means that there is no genre."""
    text = name.strip().casefold()
    bare = text.strip(_SIGNS_AROUND)
    return not bare or bare in PLACEHOLDER_GENRES or text in PLACEHOLDER_GENRES


def looks_like_list(cell: str) -> bool:
    """Return whether a cell begins and ends as a list, a dict or a string of JSON does."""
    text = cell.strip()
    if len(text) < 2:
        return False
    if _CONTAINER.match(text) and text.endswith(")"):
        return True
    return _CLOSING.get(text[0]) == text[-1] or (text[0] == text[-1] and text[0] in "\"'" and text[1] in "[{")


def split_names(cell: str, separator: str) -> tuple[str, ...]:
    """Read the names between separators; quotes around names and the dashes of a list of lines are not part of them."""
    names = _unquoted(cell).split(separator)
    if separator == "\n":
        names = [_BULLET.sub("", name) for name in names]
    return distinct_names(map(_unquoted, names))


def _unquoted(text: str) -> str:
    stripped = text.strip()
    mark = stripped[:1]
    in_quotes = len(stripped) > 1 and mark in "\"'" and stripped[-1] == mark and stripped.count(mark) == 2
    return stripped[1:-1] if in_quotes else text


def _literal(cell: str) -> Any:
    """Return the value of a cell or string whose shape is known; JSON first, as its escapes differ from Python's."""
    if _PLAIN_STRING.fullmatch(cell):  # of the same value in both, which take a hundred times as long
        return cell[1:-1]
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape such as \d in a name is the file's business
            return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError) as error:
        raise MalformedCellError(str(error)) from None


class _Bare(str):
    """A word without quotes."""

    __slots__ = ()


def _value(cell: str, nested: bool = False) -> Any:
    """Read brackets, strings, numbers and bare words as lists, dicts and text, in one pass."""
    if (container := _CONTAINER.match(cell)) is not None:
        cell = _DTYPE.sub(")", cell[container.end() :])
    tokens = list(_tokens(cell))
    if len(tokens) == 1 and tokens[0][0] == "string" and not nested:
        return _value(_text(_literal(tokens[0][1])), nested=True)  # JSON in a string of JSON
    if not tokens or tokens[0][1] not in _CLOSING:
        raise MalformedCellError("a genres cell that is not a list")
    tokens.reverse()
    value = _bracketed(tokens, 1)
    if tokens:
        raise MalformedCellError("a genres cell with something behind its list")
    is_nested = container and len(value) == 1 and isinstance(value[0], list) and _name_in_pair(value[0]) is None
    return value[0] if is_nested else value


def _tokens(cell: str) -> Iterator[tuple[str, str]]:
    place, end = 0, len(cell.rstrip())
    for _ in range(_MOST_TOKENS):
        if place >= end:
            return
        found = _TOKEN.match(cell, place, end)
        if found is None or found.lastgroup is None:
            raise MalformedCellError("a genres cell with an open quote")
        text = found[found.lastgroup]
        if found.lastgroup == "bare" and _NUMBERS.fullmatch(text):
            yield from (("bare", number) for number in text.split())
        else:
            yield found.lastgroup, text
        place = found.end()
    raise MalformedCellError("a genres cell of too many parts")


def _bracketed(tokens: list[tuple[str, str]], depth: int) -> Any:
    """Read a list or dict whose tokens lie reversed on a stack; a bare word is one, as Spark writes names."""
    opening = tokens.pop()[1]
    if depth > _DEPTH:
        raise MalformedCellError("a genres cell of brackets in brackets")
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    while tokens:
        if tokens[-1] == ("mark", _CLOSING[opening]):
            tokens.pop()
            if items and pairs:
                break
            return pairs if pairs or (opening == "{" and not items) else items
        item = _item(tokens, depth)
        if tokens and tokens[-1] in _BETWEEN_PAIRS[opening]:
            tokens.pop()
            if not isinstance(item, str | int | float) or not tokens:
                break
            # Java, Spark and YAML leave out all quotes; Python and JSON none
            pairs[str(item)] = _item(tokens, depth, bare=isinstance(item, _Bare))
        else:
            items.append(item)
        if not tokens:
            break
        if tokens[-1] == ("mark", ","):
            tokens.pop()
            continue
        follows = opening == "[" and not pairs and _follows(item, *tokens[-1])
        if not follows and tokens[-1] != ("mark", _CLOSING[opening]):
            break
    raise MalformedCellError("a genres cell whose brackets do not match")


_BETWEEN_PAIRS = {"[": (), "{": (("mark", ":"), ("mark", "=")), "(": (("mark", "="),)}


def _follows(item: Any, kind: str, text: str) -> bool:
    """Return whether a token may follow an item without a comma, as NumPy writes strings, dicts and numbers."""
    if isinstance(item, dict):
        return text == "{"
    return kind == ("string" if type(item) is str else "bare" if type(item) in (int, float) else "")


def _item(tokens: list[tuple[str, str]], depth: int, *, bare: bool = True) -> Any:
    kind, text = tokens[-1]
    if kind == "mark":
        if text not in _CLOSING:
            raise MalformedCellError(f"a genres cell with a {text!r} out of place")
        return _bracketed(tokens, depth + 1)
    tokens.pop()
    if kind == "string":
        return _text(_literal(text))
    if tokens and tokens[-1] == ("mark", "(") and _CALL.fullmatch(text):
        inner = _bracketed(tokens, depth + 1)
        return inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else _whole_number(text)
    if is_placeholder_genre(text):
        return None
    if text in ("True", "true", "False", "false"):
        return text.casefold() == "true"
    if not bare:
        raise MalformedCellError(f"a genres cell with the bare word {text[:40]!r}")
    return _Bare(text)


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise MalformedCellError(f"a number of {len(text):,} digits")
    return int(text)


def _text(value: str | bytes) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise MalformedCellError(f"bytes that are not UTF-8 text ({error.reason})") from None


def _names_in(value: Any, numbers: bool = False) -> list[str]:
    """Return the names in an object: itself, those of its entries, or a dict's name or names."""
    if isinstance(value, Mapping):
        return [name] if (name := _name_of(value)) is not None else _values_of(value)
    if isinstance(value, list | tuple | set):
        return [name for entry in value for name in _names_of_entry(entry, numbers)]
    return _names_of_entry(value, numbers)


def _names_of_entry(entry: Any, numbers: bool) -> list[str]:
    if isinstance(entry, Mapping):
        name = _name_of(entry)
        if name is None:
            raise MalformedCellError("a genres cell with an entry without a name")
        return [name]
    if isinstance(entry, list | tuple):  # (id, name)
        if (name := _name_in_pair(entry)) is not None:
            return [name]
    elif isinstance(entry, bytes):
        return [_text(entry)]
    elif isinstance(entry, str):
        if entry.lstrip()[:2] in ('{"', "{'", '["', "['"):  # JSON in a string of JSON
            return _names_in(_value(entry, nested=True))
        return [entry]
    elif entry is None or (isinstance(entry, float) and math.isnan(entry)):
        return []
    elif numbers and isinstance(entry, int | float) and not isinstance(entry, bool):
        if not -_LARGEST < entry < _LARGEST:
            raise MalformedCellError(f"a number beyond {_LARGEST:,} among names")
        return [str(int(entry) if float(entry).is_integer() else entry)]
    raise MalformedCellError(f"a genres cell with a value of type {type(entry).__name__} in it")


def _name_in_pair(entry: Sequence[Any]) -> str | None:
    """Return the name in an entry such as (18, 'Drama')."""
    texts = [part for part in entry if isinstance(part, str)]
    is_pair = len(entry) > 1 and len(texts) == 1 and all(isinstance(part, str | int | float) for part in entry)
    return texts[0] if is_pair else None


def _name_of(entry: Mapping[str, Any]) -> str | None:
    """Return the name in an entry such as {'id': 18, 'name': 'Drama'}, or its one text; empty for the name None."""
    values = {str(key).casefold(): value for key, value in entry.items()}
    named = [values[key] for key in _NAME_KEYS if key in values][:1]
    if named and (named[0] is None or named[0] != named[0]):
        return ""
    texts = [value for value in named or (values.values() if len(entry) > 1 else ()) if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else None


def _values_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the names of a dict of ids and names."""
    if not all(isinstance(value, str) for value in entry.values()):
        raise MalformedCellError("a genres cell with a dict that holds no names")
    return list(entry.values())


def distinct_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without outer space, in one Unicode form (NFC), each once, placeholders left out."""
    distinct = tuple(
        dict.fromkeys(
            stripped if stripped.isascii() else unicodedata.normalize("NFC", stripped)
            for name in names
            if not is_placeholder_genre(stripped := name.strip())
        )
    )
    if any(map(has_half_character, distinct)):
        raise MalformedCellError("a name with half a character, which no file can hold")
    return distinct


def readable(cell: Any) -> str:
    """Return a cell as words for a text template: a list of {'name': …} becomes its names, anything else itself.

    Half a character (a lone surrogate), which no file can hold and no tokenizer takes, becomes U+FFFD.
    """
    if cell is None:
        return ""
    if isinstance(cell, str) and cell.isascii() and cell[:1] not in ("[", " ") and len(cell) <= MAX_CELL_CHARACTERS:
        return cell.strip()
    text = str(cell)[:MAX_CELL_CHARACTERS] if not isinstance(cell, list) else ""
    try:
        if isinstance(cell, list):
            text = ", ".join(distinct_names(_names_in(cell)))
        elif _LIST_OF_DICTS.fullmatch(str(cell)):
            text = ", ".join(distinct_names(map(_literal, _ANY_NAME.findall(text)))) or text
    except MalformedCellError:
        text = str(cell)[:MAX_CELL_CHARACTERS]
    return whole_characters(text).strip()


def has_half_character(text: str) -> bool:
    """Return whether a text holds a lone surrogate, as JSON of a text that was cut within an emoji does."""
    return not text.isascii() and _HALF_CHARACTER.search(text) is not None


def whole_characters(text: str) -> str:
    """Return a text whose halves of characters are joined, or replaced by U+FFFD if they stand alone."""
    if not has_half_character(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
