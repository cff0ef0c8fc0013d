"""The feedback store: one SQLite file of opinions on films, safe with several writers and sudden ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from genre_lightning.data.splits import text_digests
from genre_lightning.errors import DataError, SaveError
from genre_lightning.files import check_output, parse_json
from genre_lightning.learning import database
from genre_lightning.shapes import require_shape, text

MAX_TEXT_CHARACTERS = 65_536
"""Of a text; no model reads more."""
MAX_NAME_CHARACTERS = 200
MAX_GENRES = 1000

_NAMES = [text]
_COLUMNS = (
    "time", "user", "source", "film", "title", "text", "fields", "predicted", "run", "checkpoint_sha256", "genres",
)  # fmt: skip


@dataclass(frozen=True)
class Feedback:
    """A person's opinion of a film.

    Attributes:
        text: Overview of the film.
        genres: Genres that the film has, by this person.
        user: Name of the person.
        time: When, in UTC, as "2026-01-31T12:00:00Z".
        source: Where it comes from: "tag", "import" or another name.
        film: Id of the film in its file, if known.
        title: Title of the film, or "".
        fields: What a run's text template is filled with, by the name of the column.
        predicted: Genres that a run predicted, if one did.
        run: Directory of that run.
        checkpoint_sha256: Checksum of that run's checkpoint.
        id: Number of the row in the store; 0 before it is stored.
    """

    text: str
    genres: tuple[str, ...]
    user: str
    time: str
    source: str
    film: str | None = None
    title: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    predicted: tuple[str, ...] | None = None
    run: str | None = None
    checkpoint_sha256: str | None = None
    id: int = 0

    @property
    def digest(self) -> bytes:
        """Digest of the normalised text: equal for two copies of one overview."""
        return text_digests([self.text]).tobytes()

    def problems(self) -> list[str]:
        """List what keeps it from being stored."""
        names = (self.user, self.source, *self.genres, *(self.predicted or ()))
        found = []
        if not self.text.strip():
            found.append("its text is empty")
        if max(map(len, (self.text, self.title, *self.fields.values()))) > MAX_TEXT_CHARACTERS:
            found.append(f"a text has more than {MAX_TEXT_CHARACTERS:,} characters: shorten it")
        if any(not name.strip() or len(name) > MAX_NAME_CHARACTERS for name in names):
            found.append(f"a name (user, source or genre) is empty or has more than {MAX_NAME_CHARACTERS} characters")
        if max(len(self.genres), len(self.predicted or ()), len(self.fields)) > MAX_GENRES:
            found.append(f"it has more than {MAX_GENRES:,} genres")
        return found


@dataclass(frozen=True)
class Added:
    """What became of feedback that was to be stored.

    Attributes:
        stored: Rows added.
        repeated: Rows left out, as the same user's opinion of the text at that time is there and the same.
        changed: Pairs of the same user's opinion before and the new one; an opinion older than the newest changes none.
        conflicts: Pairs of another user's newest opinion and the new one, which is stored beside it.
    """

    stored: int
    repeated: int
    changed: list[tuple[Feedback, Feedback]]
    conflicts: list[tuple[Feedback, Feedback]]


class FeedbackStore:
    """A feedback database; use it as a context manager.

    A transaction that was committed is on the disk, and one that was not leaves nothing, whatever ends the process.
    Writers wait for each other. Nothing that the file holds is run: no extension, trigger or view.

    Args:
        path: Of the file. To write, it is made if it is missing.
        write: Whether rows are to be added or erased.

    Raises:
        DataError: The file is missing, damaged, another program's, or of a newer version.
        ConfigError: The place cannot be written.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        if write:
            check_output(path, "--db")
        database.require_regular_files(path)
        if not path.exists() or not path.stat().st_size:
            if not write:
                raise DataError(f"there is no feedback in {path}: import some, or name another database with --db")
            database.create(path)
        with database.explained(path):
            self._connection = database.connect(path, "rw" if write else "ro")
        try:
            self._check(write)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> FeedbackStore:
        """Keep it open for the block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self._connection.close()

    def _check(self, write: bool) -> None:
        path = self.path
        with database.explained(path):
            application, version = database.pragma(self._connection, "application_id"), self._version
            if application != database.APPLICATION_ID:
                raise DataError(f"{path} is another program's database: name a feedback database with --db")
            if version > len(database.MIGRATIONS):
                raise DataError(
                    f"{path} has schema version {version}, and this version of genre-lightning knows up to "
                    f"{len(database.MIGRATIONS)}: update genre-lightning"
                )
            if not version >= 1 or database.schema(self._connection) != database.schema_of(version):
                raise database.damaged(path, "its tables are not those of a feedback database")
            if (found := self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise database.damaged(path, found)
        if version < len(database.MIGRATIONS):
            if not write:
                raise DataError(
                    f"{path} has the older schema version {version}: run any command that writes feedback to update "
                    f"it, such as 'genre-lightning feedback import'"
                )
            self._migrate()

    @property
    def _version(self) -> int:
        return database.pragma(self._connection, "user_version")

    def _migrate(self) -> None:
        with self._writing():
            # another process may have done it since
            for version in range(self._version, len(database.MIGRATIONS)):
                for statement in database.statements(database.MIGRATIONS[version]):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={version + 1}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run a transaction that holds the write lock from its start."""
        with database.explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add(self, rows: Iterable[Feedback], vocabulary: Sequence[str] = ()) -> Added:
        """Store feedback, all of it or none.

        Args:
            rows: To be stored. The time of each says which is newer; of one time, the later row.
            vocabulary: Genres known from now on.

        Raises:
            DataError: A row cannot be stored.
            SaveError: The disk is full, or other processes keep the database locked.
        """
        stored = repeated = 0
        changed, conflicts = [], []
        with self._writing():
            self._connection.executemany("INSERT OR IGNORE INTO vocabulary VALUES (?)", [(n,) for n in vocabulary])
            for row in rows:
                if problems := row.problems():
                    raise DataError(f"feedback by {row.user[:40]!r} cannot be stored: {'; '.join(problems)}")
                opinions = list(self._select("WHERE text_digest = ? ORDER BY time, id", (row.digest,)))
                mine = [one for one in opinions if one.user == row.user]
                before = [one for one in mine if one.time <= row.time]
                # also a row of that very time that another one follows, such as one of an export
                alike = [one for one in before if one.time == row.time] + before[-1:]
                if any(set(one.genres) == set(row.genres) for one in alike):
                    repeated += 1
                    continue
                self._insert(row)
                stored += 1
                if len(before) < len(mine):
                    continue  # history: the user's newest opinion stays
                changed += [(one, row) for one in before[-1:]]
                others = {one.user: one for one in opinions if one.user != row.user}
                conflicts += [(other, row) for other in others.values() if set(other.genres) != set(row.genres)]
        return Added(stored, repeated, changed, conflicts)

    def _insert(self, row: Feedback) -> None:
        values = {name: getattr(row, name) for name in _COLUMNS}
        values["fields"] = json.dumps(row.fields)
        values["genres"] = json.dumps(row.genres)
        values["predicted"] = None if row.predicted is None else json.dumps(row.predicted)
        values["text_digest"] = row.digest
        cells = [_storable(value) if isinstance(value, str) else value for value in values.values()]
        marks = ", ".join("?" * len(cells))
        self._connection.execute(f"INSERT INTO feedback({', '.join(values)}) VALUES ({marks})", cells)

    def rows(self, *, newest: bool = False) -> Iterator[Feedback]:
        """Read the feedback in the order of its arrival.

        Args:
            newest: Only each user's newest opinion of each text, the oldest first.

        Raises:
            DataError: The database is damaged.
        """
        if not newest:
            yield from self._select("ORDER BY id")
            return
        places = "SELECT id, row_number() OVER (PARTITION BY text_digest, user ORDER BY time DESC, id DESC) AS place"
        newest_ids = f"SELECT id FROM ({places} FROM feedback) WHERE place = 1"
        yield from self._select(f"WHERE id IN ({newest_ids}) ORDER BY time, id")

    def _select(self, clause: str, values: Sequence[Any] = ()) -> Iterator[Feedback]:
        with database.explained(self.path):
            for found in self._connection.execute(f"SELECT id, {', '.join(_COLUMNS)} FROM feedback {clause}", values):
                yield _feedback(self.path, found)

    def digests(self) -> set[bytes]:
        """Read the digests of all texts that somebody has labelled."""
        with database.explained(self.path):
            return {row[0] for row in self._connection.execute("SELECT DISTINCT text_digest FROM feedback")}

    def vocabulary(self) -> tuple[str, ...]:
        """Read the genres that are known, sorted."""
        with database.explained(self.path):
            return tuple(str(row[0]) for row in self._connection.execute("SELECT name FROM vocabulary ORDER BY name"))

    def forget(self, user: str) -> int:
        """Erase a person: every row of the user, overwritten in the file and in its log.

        Returns:
            Rows erased.

        Raises:
            DataError: There is none.
            SaveError: Another process keeps the log from being emptied.
        """
        with database.explained(self.path):
            self._connection.execute("PRAGMA secure_delete=ON")
        with self._writing():
            erased = self._connection.execute("DELETE FROM feedback WHERE user = ?", (user,)).rowcount
        with database.explained(self.path):
            self._connection.execute("VACUUM")  # the rows also leave the free space of pages
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise SaveError(
                f"the rows are erased from {self.path}, but not yet from its log {self.path.name}-wal, which another "
                "process is reading: run the same command again when it has ended"
            )
        if not erased:
            raise DataError(
                f"{self.path} holds no feedback by {user!r} (it was rewritten, and its log is empty): 'genre-lightning "
                "feedback stats' lists the users"
            )
        return erased


def _feedback(path: Path, found: Sequence[Any]) -> Feedback:
    """Make feedback of a row.

    Raises:
        DataError: The row does not hold what `FeedbackStore.add` writes.
    """
    number, *cells = found
    values = dict(zip(_COLUMNS, cells, strict=True))
    try:
        for name, maybe in (("film", True), ("run", True), ("checkpoint_sha256", True), ("time", False),
                            ("user", False), ("source", False), ("title", False), ("text", False)):  # fmt: skip
            if not (isinstance(values[name], str) or (maybe and values[name] is None)):
                raise ValueError(f"{name} is not text")
        fields, genres = parse_json(values["fields"]), parse_json(values["genres"])
        predicted = None if values["predicted"] is None else parse_json(values["predicted"])
        require_shape(fields, {"*": text}, "fields")
        require_shape(genres, [text], "genres")
        require_shape(predicted or [], [text], "predicted")
        datetime.fromisoformat(values["time"])
    except (ValueError, TypeError) as error:
        raise database.damaged(path, f"row {number}: {error}") from None
    values |= {"fields": fields, "genres": tuple(genres), "predicted": None if predicted is None else tuple(predicted)}
    return Feedback(**values, id=number)


def _storable(value: str) -> str:
    """Replace lone surrogates, which are not UTF-8, and null characters, at which some programs end a text."""
    return value.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "�")
