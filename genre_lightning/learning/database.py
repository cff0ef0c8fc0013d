"""The file of the feedback store: made, opened and checked, with SQLite's errors in one line and their fix."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from genre_lightning.errors import ConfigError, DataError, SaveError, one_line
from genre_lightning.files import draft_beside, finish_draft
from genre_lightning.locks import locked

APPLICATION_ID = 0x67_6C_66_62
"""In the file's header: "glfb". Every other program's SQLite file has another number, most have 0."""

MIGRATIONS = (
    """
    CREATE TABLE feedback(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        user TEXT NOT NULL,
        source TEXT NOT NULL,
        film TEXT,
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        text_digest BLOB NOT NULL,
        fields TEXT NOT NULL,
        predicted TEXT,
        run TEXT,
        checkpoint_sha256 TEXT,
        genres TEXT NOT NULL
    );
    CREATE INDEX feedback_of_text ON feedback(text_digest, user);
    CREATE INDEX feedback_of_user ON feedback(user);
    CREATE TABLE vocabulary(name TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
)
"""What brings a database from each schema version to the next; a released one is never changed."""

_BUSY_SECONDS = 30.0
_MAX_CELL_BYTES = 8 << 20
"""Of a value that SQLite reads: the fields of a film as JSON, escaped, stay below it."""
_MAX_SQL_BYTES = 100_000


def require_regular_files(path: Path) -> None:
    """Refuse links, pipes and devices in the place of the database and of its log.

    Raises:
        ConfigError: With the fix.
    """
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        try:
            mode = file.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(f"--db {path} cannot be read ({one_line(error)}): name another with --db") from None
        if not stat.S_ISREG(mode):
            raise ConfigError(f"--db {file} is not a regular file: name another with --db")


def create(path: Path) -> None:
    """Make an empty database, whole or not at all; of several processes one does it."""
    busy = f"another process has been making {path} for a minute: stop it, then run the same command again"
    with locked(path.with_name(f".{path.name}.lock"), 60, busy):
        if path.exists() and path.stat().st_size:
            return
        with draft_beside(path) as draft, explained(path):
            connection = sqlite3.connect(draft, isolation_level=None)
            try:
                # kept in the file; a file system without shared memory keeps a rollback journal, as safe and slower
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN")
                for script in MIGRATIONS:
                    for statement in statements(script):
                        connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
                connection.execute("COMMIT")
            finally:
                connection.close()
            finish_draft(draft)
            draft.replace(path)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open it with limits on what its file can make SQLite do; mode is "ro" or "rw"."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)  # VACUUM attaches its copy
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    # a file that was made by hand must not run functions of its schema, nor be mapped while it is cut short
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Read a number that SQLite keeps in the file."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def statements(script: str) -> list[str]:
    """Split a script, which holds no semicolon but between statements."""
    return [statement for part in script.split(";") if (statement := part.strip())]


def schema(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Read every table, index, view and trigger, without what SQLite adds itself."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'")
    return sorted((str(kind), str(name), " ".join(str(sql).split())) for kind, name, sql in rows)


def schema_of(version: int) -> list[tuple[str, str, str]]:
    """Make the schema of a version, as `schema` reads it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for script in MIGRATIONS[:version]:
            connection.executescript(script)
        return schema(connection)
    finally:
        connection.close()


def damaged(path: Path, reason: object) -> DataError:
    """Give the error of a file that does not hold what was written to it."""
    return DataError(
        f"{path} is damaged ({one_line(reason)[:200]}): restore it from a copy, or move it away and import its exports"
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Report SQLite's errors in one line with their fix."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _of_operation(path, error) from None
    except (sqlite3.DatabaseError, UnicodeDecodeError, OverflowError) as error:
        reason = one_line(error)
        if "not a database" in reason:
            raise DataError(f"{path} is not a feedback database: name another with --db") from None
        raise damaged(path, reason) from None


def _of_operation(path: Path, error: sqlite3.OperationalError) -> Exception:
    """Give the error to show for one of SQLite's that has its reason outside of the file, or in it."""
    reason = one_line(error)
    of_place: dict[str, Callable[[], Exception]] = {
        "locked": lambda: SaveError(
            f"{path} has been locked by another process for {_BUSY_SECONDS:.0f} s: wait for it or stop it, then run "
            "the same command again; nothing is stored"
        ),
        "full": lambda: SaveError(f"{path}: {reason}: free space there, then run the same command again"),
        "readonly": lambda: ConfigError(f"{path} cannot be written ({reason}): fix its permissions"),
        "unable to open": lambda: ConfigError(
            f"{path} cannot be opened ({reason}): fix the permissions of the file and of its folder, in which SQLite "
            "keeps a log, or copy it elsewhere"
        ),
        "I/O": lambda: SaveError(
            f"{path}: {reason}: check the disk and the space left on it, then run the same command again"
        ),
    }
    return next((make() for sign, make in of_place.items() if sign in reason), damaged(path, reason))
