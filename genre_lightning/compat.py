"""Private names of libraries, in one place: what each is needed for, and the version in which it was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from jsonargparse._common import parsing_settings  # 4.53: its settings can be made but not taken back

from genre_lightning.config.yaml_files import NOT_YAML, parse_yaml


@contextmanager
def importing_only(paths: Iterable[str]) -> Iterator[None]:
    """Have jsonargparse import these paths alone, make no objects of untyped arguments, and expand few aliases.

    A text that YAML reads as nothing, such as "#" or "~", stays that text; only null is null.

    The settings are the process's own: they are put back, since a program that imports this library may parse with
    jsonargparse too.
    """
    before, load = dict(parsing_settings), get_loader("yaml")

    def load_text(text: str) -> Any:
        if "*" in text:
            with suppress(*NOT_YAML):  # the parser's own message is about the option
                parse_yaml(text)
        loaded = load(text)
        return text if loaded is None else loaded

    parsing_settings["import_path_verdicts"] = {}  # a list of denied paths of the program's would be joined to ours
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(paths), instantiate_subclass_spec_in_any=False
    )
    set_loader("yaml", load_text, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", load, (yaml.YAMLError,))
        parsing_settings.update(before)
