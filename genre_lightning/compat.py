"""Private names of libraries, in one place: what each is needed for, and the version in which it was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings  # 4.53: its settings can be made but not taken back


@contextmanager
def importing_only(paths: Iterable[str]) -> Iterator[None]:
    """Let jsonargparse import these paths alone from values, and make no objects of untyped arguments.

    The settings are the process's own: they are put back, since a program that imports this library may parse with
    jsonargparse too.
    """
    before = dict(parsing_settings)
    parsing_settings["import_path_verdicts"] = {}  # a list of denied paths of the program's would be joined to ours
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=list(paths), instantiate_subclass_spec_in_any=False
    )
    try:
        yield
    finally:
        parsing_settings.update(before)
