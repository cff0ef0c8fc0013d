"""Packages of the user's own whose classes and functions a configuration may name: given on the command line alone.

A file cannot ask for trust: `--trust PACKAGE` is taken from the arguments before anything reads them, and `trust()` is
for programs. What a path of a trusted package resolves to is still held to the option's rules: a class that is defined
in that package and is of the kind that the option asks for, or a function that is defined there.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from genre_lightning.errors import ConfigError, one_line

KINDS = {
    "model": "genre_lightning.models.base.GenreClassifier",
    "trainer.callbacks": "lightning.pytorch.callbacks.Callback",
    "trainer.logger": "lightning.pytorch.loggers.Logger",
}
"""By option: the class that a trusted class must extend."""

_packages: set[str] = set()
_classes: set[str] = set()


def trust(packages: Iterable[str]) -> None:
    """Trust these packages, and no others from now on.

    Raises:
        ConfigError: There is no such package here, or it is of Python's standard library.
    """
    named = set(packages)
    for package in sorted(named):
        if _is_pythons(package):
            raise ConfigError(
                f"--trust {package} would let a configuration run any program: name a package of your own"
            )
        if not all(part.isidentifier() for part in package.split(".")) or not _is_found(package):
            raise ConfigError(
                f"--trust {package}: there is no such package: install it, or name its folder in PYTHONPATH"
            )
    _packages.clear()
    _classes.clear()
    _packages.update(named)


def with_trust(arguments: Sequence[str]) -> list[str]:
    """Trust the packages that the arguments name by --trust, and return the other arguments.

    Raises:
        ConfigError: There is no such package here.
    """
    rest: list[str] = []
    packages: list[str] = []
    waiting = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if waiting:
            packages.append(argument)
            waiting = False
        elif name == "--trust":
            waiting = not equals
            packages += [value] if equals else []
        else:
            rest.append(argument)
    if waiting:
        raise ConfigError("--trust needs the name of a package: --trust my_package")
    trust(packages)
    return rest


def or_trust(path: str) -> str:
    """Return the end of an error about a path that is not trusted: how to trust it, if it can be the user's own."""
    package = path.partition(".")[0]
    if package in ("genre_lightning", "lightning") or not package.isidentifier() or _is_pythons(package):
        return ""
    return f", or add --trust {package} if the package is your own"


def trusted_packages() -> list[str]:
    """List the packages that are trusted."""
    return sorted(_packages)


def is_trusted(path: str) -> bool:
    """Return whether an import path is in a trusted package."""
    return any(path.startswith(f"{package}.") for package in _packages)


def trusted_classes() -> list[str]:
    """List the paths of the classes that have been checked: the parser may import them too."""
    return sorted(_classes)


def check_class(path: str, option: str) -> None:
    """Import a class of a trusted package and check that the option may name it.

    Args:
        path: In a trusted package.
        option: One of `KINDS`.

    Raises:
        ConfigError: It is not there, is defined elsewhere, or is of another kind.
    """
    found = _import(path, option)
    kind = imported(KINDS[option])
    if not inspect.isclass(found) or not issubclass(found, kind) or not is_trusted(f"{found.__module__}."):
        raise ConfigError(
            f"{option} is {path}, which is not a {kind.__name__} that a trusted package defines: name one"
        )
    _classes.add(path)


def function(path: str, option: str) -> Callable[..., Any]:
    """Import a function of a trusted package.

    Raises:
        ConfigError: The package is not trusted, or no function of its own is there.
    """
    if not is_trusted(path):
        raise ConfigError(
            f"{option} is {path}, and only functions of packages that you trust are called: leave it out"
            f"{or_trust(path)}, or from Python pass the function itself"
        )
    found = _import(path, option)
    if not callable(found) or not is_trusted(f"{getattr(found, '__module__', '')}."):
        raise ConfigError(f"{option} is {path}, which is not a function that a trusted package defines: name one")
    return found


def imported(path: str) -> Any:
    """Import an object of the package's own or of Lightning's by its path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _import(path: str, option: str) -> Any:
    try:
        return imported(path)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(f"{option} is {path}, which cannot be imported ({one_line(error)[:200]}): fix it") from error


def _is_pythons(package: str) -> bool:
    return package.partition(".")[0] in sys.stdlib_module_names


def _is_found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
