"""The feedback store: several processes, sudden ends, erasure, and files that are not what they should be."""

import signal
import sqlite3
import subprocess
import sys

import pytest

from genre_lightning.errors import ConfigError, DataError, GenreLightningError, SaveError
from genre_lightning.learning import database as module
from genre_lightning.learning.database import APPLICATION_ID
from genre_lightning.learning.store import Feedback, FeedbackStore


def said(text, genres=("Drama",), user="anna", day=31, **more):
    time = f"2026-01-{day:02}T12:00:00Z"
    return Feedback(text=text, genres=tuple(genres), user=user, time=time, source="import", **more)


def filled(path, *rows):
    with FeedbackStore(path, write=True) as store:
        store.add(rows or [said("A boy finds a map.")], ("Drama", "War"))
    return path


def stored(path):
    with FeedbackStore(path) as store:
        return list(store.rows())


WRITER = """
import sys
from pathlib import Path
from genre_lightning.learning.store import Feedback, FeedbackStore

def said(number):
    return Feedback(text=f"{sys.argv[2]} {number}", genres=("War",), user=sys.argv[2], time="2026-01-31T12:00:00Z",
                    source="import")
print("ready", flush=True)
sys.stdin.readline()
"""
ONE_BY_ONE = (
    WRITER
    + """
for number in range(int(sys.argv[3])):
    with FeedbackStore(Path(sys.argv[1]), write=True) as store:
        store.add([said(number)])
    print(number, flush=True)
"""
)
IN_THE_MIDDLE = (
    WRITER
    + """
def rows():
    for number in range(2000):
        yield said(number)
    print("half", flush=True)
    sys.stdin.readline()
with FeedbackStore(Path(sys.argv[1]), write=True) as store:
    store.add(rows())
"""
)


def process(script, path, name, rows=0):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path), name, str(rows)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def proceed(writer):
    writer.stdin.write("\n")
    writer.stdin.flush()


def test_a_row_is_read_back_as_it_was_stored(tmp_path):
    row = said(
        "Zwei Soldaten … 💔\nlieben",
        ("Drama", "War"),
        film="12",
        title="Krieg",
        fields={"overview": "a", "tagline": "b"},
        predicted=(),
        run="runs/a",
        checkpoint_sha256="ab" * 32,
    )
    (found,) = stored(filled(tmp_path / "f.db", row))
    assert found == Feedback(**{**vars(row), "id": 1})


def test_writers_that_start_at_once_lose_nothing(tmp_path):
    path = tmp_path / "f.db"
    writers = [process(ONE_BY_ONE, path, f"user{number}", 12) for number in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        proceed(writer)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    rows = stored(path)
    assert sorted(row.text for row in rows) == sorted(f"user{u} {n}" for u in range(3) for n in range(12))


def test_killed_writers_leave_what_they_had_stored_and_nothing_else(tmp_path):
    path = tmp_path / "f.db"
    one_by_one, in_the_middle = process(ONE_BY_ONE, path, "one", 10_000), process(IN_THE_MIDDLE, path, "half")
    with one_by_one, in_the_middle:
        proceed(one_by_one)
        for expected in ("ready", *range(5)):
            assert one_by_one.stdout.readline().strip() == str(expected)
        one_by_one.send_signal(signal.SIGKILL)
        proceed(in_the_middle)
        assert [in_the_middle.stdout.readline() for _ in range(2)] == ["ready\n", "half\n"]
        before = len(stored(path))  # readers are not kept out by an open transaction
        in_the_middle.send_signal(signal.SIGKILL)
    rows = stored(path)
    assert len(rows) == before
    assert [row.text for row in rows][:5] == [f"one {number}" for number in range(5)]
    assert {row.user for row in rows} == {"one"}
    filled(path, said("Later."))
    assert len(stored(path)) == before + 1


def test_a_repeated_opinion_is_not_stored_again(tmp_path):
    path = filled(tmp_path / "f.db", said("A boy finds a map."))
    with FeedbackStore(path, write=True) as store:
        added = store.add([
            said("a boy finds a map", user="anna"),
            said("A boy finds a map.", ("War",), user="bob"),
            said("A boy finds a map.", ("War", "Drama"), user="anna"),
        ])  # fmt: skip
        assert (added.stored, added.repeated) == (2, 1)
        assert [(a.user, b.user, b.genres) for a, b in added.changed] == [("anna", "anna", ("War", "Drama"))]
        assert [(a.user, b.user) for a, b in added.conflicts] == [("anna", "bob"), ("bob", "anna")]
        assert [(row.user, row.genres) for row in store.rows(newest=True)] == [
            ("bob", ("War",)),
            ("anna", ("War", "Drama")),
        ]


def test_the_time_of_an_opinion_decides_which_is_the_newest(tmp_path):
    text = "A boy finds a map."
    path = filled(tmp_path / "f.db", said(text, ("War",), day=9), said(text, ("Crime",), user="bob", day=5))
    with FeedbackStore(path, write=True) as store:
        # imported later, said earlier
        added = store.add([said(text, ("Drama",), day=3)])
        assert (added.stored, added.repeated, added.changed, added.conflicts) == (1, 0, [], [])
        assert [(row.user, row.genres) for row in store.rows(newest=True)] == [("bob", ("Crime",)), ("anna", ("War",))]
        added = store.add([said(text, ("Drama",), day=20)])
        assert [(before.genres, after.genres) for before, after in added.changed] == [(("War",), ("Drama",))]
        assert [row.genres for row in store.rows(newest=True)] == [("Crime",), ("Drama",)]
        # the same opinion once more, at another time
        assert store.add([said(text, ("Drama",), day=21)]).repeated == 1


@pytest.mark.parametrize("backwards", [False, True])
def test_an_export_that_is_imported_again_adds_nothing(tmp_path, backwards):
    text = "A boy finds a map."
    rows = [
        said(text, ("Drama",), day=1), said(text, ("War",), day=2), said(text, ("Drama",), day=3),
        said(text, ("Crime",), day=3), said(text, ("War",), user="bob", day=2),
    ]  # fmt: skip
    path = filled(tmp_path / "f.db", *rows)
    before = stored(path)
    assert len(before) == 5
    with FeedbackStore(path, write=True) as store:
        for _ in range(2):
            added = store.add(before[::-1] if backwards else before)
            assert (added.stored, added.repeated, added.changed) == (0, 5, [])
    assert stored(path) == before


def test_all_rows_are_stored_or_none(tmp_path):
    path = filled(tmp_path / "f.db")
    with FeedbackStore(path, write=True) as store, pytest.raises(DataError, match="65,536 characters"):
        store.add([said("Good."), said("x" * 65_537)])
    assert len(stored(path)) == 1


def test_forget_leaves_no_trace_in_any_file(tmp_path):
    secret = "A secret that Zacharias has told about himself"
    path = filled(tmp_path / "f.db", said("Kept."), *(said(f"{secret} {n}", user="zacharias") for n in range(200)))
    with FeedbackStore(path, write=True) as store:
        assert store.forget("zacharias") == 200
        with pytest.raises(DataError, match="no feedback by 'zacharias'"):
            store.forget("zacharias")
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"secret" not in content
        assert b"zacharias" not in content
    assert [row.text for row in stored(path)] == ["Kept."]


def test_forget_reports_a_reader_that_keeps_the_log(tmp_path):
    path = filled(tmp_path / "f.db", said("a"), said("b", user="bob"))
    with FeedbackStore(path) as reader, FeedbackStore(path, write=True) as store:
        rows = reader.rows()
        next(rows)
        store._connection.execute("PRAGMA busy_timeout=0")
        with pytest.raises(SaveError, match="another process is reading"):
            store.forget("bob")
        rows.close()


def test_an_older_schema_is_migrated_once(tmp_path, monkeypatch):
    path = filled(tmp_path / "f.db")
    newer = (*module.MIGRATIONS, "ALTER TABLE feedback ADD COLUMN trust REAL")
    monkeypatch.setattr(module, "MIGRATIONS", newer)
    with pytest.raises(DataError, match="older schema version 1"):
        FeedbackStore(path)
    filled(path, said("Two."))
    assert len(stored(path)) == 2
    monkeypatch.setattr(module, "MIGRATIONS", newer[:1])
    with pytest.raises(DataError, match=r"schema version 2.*update genre-lightning"):
        FeedbackStore(path, write=True)


def of_another_program(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks(url)")
    connection.close()


def with_a_trigger(path):
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON feedback BEGIN DELETE FROM feedback; END")
    connection.close()


def with_a_view(path):
    connection = sqlite3.connect(path)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
    connection.executescript(
        f"CREATE VIEW feedback AS {endless}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1"
    )
    connection.close()


def with_overwritten_pages(path):
    filled(path, *(said(f"text {number} " + "long " * 50) for number in range(100)))
    content = bytearray(path.read_bytes())
    content[8192:20480] = b"\xff" * 12288
    path.write_bytes(content)


def cut_short(path):
    filled(path, *(said(f"text {number} " + "long " * 50) for number in range(100)))
    path.write_bytes(path.read_bytes()[:9000])


def with_a_cell_of_another_type(path):
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE feedback SET genres = '[1]'")
    connection.commit()
    connection.close()


def with_a_time_that_is_none(path):
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE feedback SET time = '2026-99-99'")
    connection.commit()
    connection.close()


def with_a_huge_cell(path):
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE feedback SET title = zeroblob(9000000)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (of_another_program, "another program's database"),
        (lambda path: path.write_text("genres,text\nDrama,a\n" * 100), "is not a feedback database"),
        (with_a_trigger, "is damaged"),
        (with_a_view, "is damaged"),
        (with_overwritten_pages, "is damaged"),
        (cut_short, "is damaged"),
        (with_a_cell_of_another_type, "genres"),
        (with_a_time_that_is_none, "is damaged"),
        (with_a_huge_cell, "is damaged"),
        (lambda path: path.mkdir(), "is not a regular file|is a directory"),
        (lambda path: path.symlink_to(path.with_name("other.db")), "is not a regular file|is a link"),
        (lambda path: None, "there is no feedback"),
        (lambda path: path.write_bytes(b""), "there is no feedback"),
    ],
)
def test_files_that_are_not_feedback_are_refused_and_left_alone(tmp_path, make, words):
    path = tmp_path / "f.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(GenreLightningError, match=words) as refused, FeedbackStore(path) as store:
        list(store.rows())
    assert "\n" not in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        FeedbackStore(file / "f.db", write=True)


def test_a_locked_database_is_waited_for_and_then_reported(tmp_path, monkeypatch):
    path = filled(tmp_path / "f.db")
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.01)
    with FeedbackStore(path, write=True) as other, FeedbackStore(path, write=True) as store:
        with other._writing(), pytest.raises(SaveError, match="locked by another process"):
            store.add([said("b")])
        store.add([said("b")])
    assert len(stored(path)) == 2
