"""Private names of libraries, in one place: what each is needed for, and the version in which it was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import _loaders_dumpers, _optionals, get_loader, set_loader, set_parsing_settings
from jsonargparse._common import parsing_settings  # 4.53: its settings can be made but not taken back
from jsonargparse._paths import Path as ParserPath

from genre_lightning.config.yaml_files import NOT_YAML, parse_yaml, read_text, well_formed
from genre_lightning.errors import one_line

_SHORT = 200
"""Characters that cannot take long to parse, nor be nested so deep that libyaml overflows the stack."""


def _read_path(path: ParserPath) -> str:
    return read_text(Path(path.absolute))


@contextmanager
def importing_only(paths: Iterable[str]) -> Iterator[None]:
    """Have jsonargparse import these paths alone, make no objects of untyped arguments, and parse small texts only.

    A text that YAML reads as nothing, such as "#" or "~", stays that text; only null is null. Files are read from this
    machine alone, with the limits of configuration files: Lightning lets the parser fetch them by any protocol.

    The settings are the process's own: they are put back, since a program that imports this library may parse with
    jsonargparse too.
    """
    before, load = dict(parsing_settings), get_loader("yaml")
    load_basic = _loaders_dumpers.yaml_load  # of numbers and truth values, whatever loader is set
    mode, read = _optionals._config_read_mode, ParserPath.read_text

    def load_text(text: str) -> Any:
        if "*" in text or len(text) > _SHORT:
            try:
                parse_yaml(text)
            except NOT_YAML as error:
                raise yaml.YAMLError(one_line(error)[:200]) from None
        with well_formed():
            loaded = load(text)
        return text if loaded is None else loaded

    parsing_settings["import_path_verdicts"] = {}  # a list of denied paths of the program's would be joined to ours
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(paths), instantiate_subclass_spec_in_any=False
    )
    set_loader("yaml", load_text, (yaml.YAMLError,))
    _loaders_dumpers.yaml_load = load_text
    _optionals._config_read_mode = "fr"
    ParserPath.read_text = _read_path  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ParserPath.read_text = read  # type: ignore[method-assign]
        _optionals._config_read_mode = mode
        _loaders_dumpers.yaml_load = load_basic
        set_loader("yaml", load, (yaml.YAMLError,))
        parsing_settings.update(before)
