"""Where the trials of a study are kept: Optuna's journal in the study's directory, or a database."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.locks import HeldLock, locked

if TYPE_CHECKING:
    import optuna

PATIENCE_SECONDS = 60.0
"""How long a worker waits for another that is at the storage or takes a trial, which is a matter of milliseconds."""


def require_optuna(sampler: str = "") -> None:
    """Refuse to search without the packages for it.

    Raises:
        ConfigError: With the fix.
    """
    for package in ("optuna", *(["cmaes"] if sampler == "cmaes" else [])):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed: run pip install 'genre-lightning[tune]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def checked_storage(url: str | None) -> str | None:
    """Return a storage as every worker can open it; refuse one that is not a URL, or that holds a password.

    Raises:
        ConfigError: With the fix.
    """
    if url is None:
        return None
    import sqlalchemy

    try:
        parts = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise ConfigError(
            f"--storage {url} is not a URL: give one such as sqlite:///study.db, or leave it out"
        ) from None
    if parts.password is not None or "password" in parts.query:
        raise ConfigError(
            "--storage has a password in its URL, which study.json would hold: leave it out of the URL, and give it by "
            "~/.pgpass or PGPASSWORD"
        )
    _require_driver(url)
    if parts.get_backend_name() != "sqlite":
        return url
    file = parts.database or ""
    if file in ("", ":memory:") or file.startswith("file:"):
        raise ConfigError(
            f"--storage {url} does not name a file, in which the trials outlive the process: give one such as "
            "sqlite:///study.db, or leave it out"
        )
    return parts.set(database=str(Path(file).expanduser().absolute())).render_as_string()


def _require_driver(url: str) -> None:
    """Refuse a database that SQLAlchemy does not know, or whose driver is not installed.

    Raises:
        ConfigError: With the fix.
    """
    import sqlalchemy

    try:
        # the driver of a URL without one depends on SQLAlchemy's version
        dialect = sqlalchemy.make_url(url).get_dialect()
        dialect.import_dbapi()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ConfigError(
            f"--storage {url} is not the URL of a database ({one_line(error)[:120]}): give one such as "
            "sqlite:///study.db, or leave it out"
        ) from None
    except ImportError as error:
        fix = "run pip install 'psycopg[binary]'" if dialect.driver == "psycopg" else f"install {dialect.driver}"
        raise ConfigError(
            f"--storage {url} needs a driver ({one_line(error)[:120]}): {fix}, or leave --storage out"
        ) from None


def open_storage(folder: Path, url: str | None) -> optuna.storages.BaseStorage:
    """Open the storage of a study's trials.

    Args:
        folder: Of the study.
        url: Of a database; None is the journal in the folder.

    Raises:
        ConfigError: It cannot be reached.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url is None:
        lock: Any = _JournalLock(folder / ".journal.lock")
        backend = JournalFileBackend(str(folder / "journal.log"), lock_obj=lock)
        return optuna.storages.JournalStorage(backend)
    import sqlalchemy

    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise ConfigError(
            f"--storage {url} cannot be reached ({one_line(error)[:160]}): check the URL and that the server runs, or "
            "leave it out to keep the trials in the study's directory"
        ) from None


class _JournalLock:
    """A lock for Optuna's journal that ends with its process; Optuna's own would outlive one that is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: HeldLock | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held = locked(self._path, PATIENCE_SECONDS, f"another process holds {self._path}: stop it")
        return True

    def release(self) -> None:
        """Let other processes in."""
        if self._held is not None:
            self._held.release()
