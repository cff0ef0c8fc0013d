"""`feedback` and `tag --correct` as their user runs them."""

import csv
import json
import subprocess
import sys

import pytest
from made_runs import everything_under, make_run, refused

from genre_lightning.__main__ import main
from genre_lightning.learning.feedback_files import read_names
from genre_lightning.learning.store import FeedbackStore


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def table(path, *rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def stored(path):
    with FeedbackStore(path) as store:
        return list(store.rows())


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("Drama, war", ("Drama", "War")),
        ("war|drama|War", ("War", "Drama")),
        ("War; Drama", ("War", "Drama")),
        ("action, adventure", ("Action, Adventure",)),
        (["War"], ("War",)),
        ("None", ()),
    ],
)
def test_genres_are_read_as_people_write_them(written, names):
    assert read_names(written, ["Drama", "War", "Action, Adventure"]) == names


def test_labels_are_imported_with_who_when_before_and_after(run, tmp_path, capfd):
    queue = table(
        tmp_path / "queue.csv",
        {"id": "7", "title": "A", "text": "One.", "suggested": "Drama", "genres": "ok", "user": ""},
        {"id": "8", "title": "'=B", "text": "Two.", "suggested": "Drama|War", "genres": "horror", "user": "bob"},
        {"id": "9", "title": "C", "text": "Three.", "suggested": "", "genres": "", "user": ""},
    )
    words = ["feedback", "import", str(queue), "--run", str(run), "--user", "anna", "--json"]
    assert main(words) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["stored"], result["empty"], result["conflicts"]) == (2, 1, [])
    one, two = stored(run / "feedback.db")
    assert (one.user, one.film, one.predicted, one.genres, one.source) == (
        "anna",
        "7",
        ("Drama",),
        ("Drama",),
        "import",
    )
    assert (two.user, two.title, two.predicted, two.genres) == ("bob", "=B", ("Drama", "War"), ("Horror",))
    assert main(words) == 0
    assert json.loads(capfd.readouterr().out)["repeated"] == 2
    other = table(tmp_path / "other.csv", {"overview": "one", "genres": "War", "user": "bob"})
    assert main(["feedback", "import", str(other), "--run", str(run)]) == 0
    assert "conflict: 'one': anna" in capfd.readouterr().err


def test_an_export_is_imported_as_the_same_feedback(run, tmp_path, capfd):
    labels = table(
        tmp_path / "labels.csv",
        {
            "text": "One.",
            "genres": "War",
            "predicted": "Drama",
            "user": "anna",
            "time": "2025-03-01",
            "field.cast": "x",
        },
        {"text": "=Two()", "genres": "none", "predicted": "none", "user": "bob", "time": "2025-04-01 10:00+02:00"},
        {"text": "Three.", "genres": "War", "predicted": "", "user": "bob"},
    )
    assert main(["feedback", "import", str(labels), "--run", str(run)]) == 0
    expected = stored(run / "feedback.db")
    assert [row.predicted for row in expected] == [("Drama",), (), None]
    assert [row.time for row in expected[:2]] == ["2025-03-01T00:00:00Z", "2025-04-01T08:00:00Z"]
    assert expected[0].fields == {"overview": "One.", "title": "", "cast": "x"}
    for name in ("e.csv", "e.jsonl"):
        out, copy = tmp_path / name, tmp_path / f"{name}.db"
        assert main(["feedback", "export", "--run", str(run), "--out", str(out)]) == 0
        assert main(["feedback", "import", str(out), "--run", str(run), "--db", str(copy)]) == 0
        assert stored(copy) == expected


def test_statistics_count_agreement_for_each_genre_and_month(run, tmp_path, capfd):
    rows = [
        {"text": "One.", "genres": "War", "predicted": "War|Drama", "user": "anna", "time": "2025-03-01"},
        {"text": "Two.", "genres": "War|Drama", "predicted": "War", "user": "anna", "time": "2025-04-01"},
        {"text": "Two.", "genres": "War", "predicted": "War", "user": "bob", "time": "2025-04-01"},
    ]
    assert main(["feedback", "import", str(table(tmp_path / "l.csv", *rows)), "--run", str(run)]) == 0
    capfd.readouterr()
    assert main(["feedback", "stats", "--run", str(run), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["rows"], found["texts"], found["disputed"], found["exact"]) == (3, 2, 1, 1)
    assert found["genres"]["War"] == {"agreed": 3, "wrong": 0, "missed": 0, "agreement": 1.0}
    assert found["genres"]["Drama"] == {"agreed": 0, "wrong": 1, "missed": 1, "agreement": 0.0}
    assert found["over_time"]["2025-03"]["Drama"]["wrong"] == 1
    assert main(["feedback", "stats", "--run", str(run)]) == 0
    assert "| Drama |      0 |     1 |      1 |     0.000 | 0.000 (1) | 0.000 (1) |" in capfd.readouterr().out


def test_a_person_is_forgotten(run, tmp_path, capfd):
    labels = table(tmp_path / "l.csv", *({"text": f"{n}.", "genres": "War", "user": u} for n, u in enumerate("abb")))
    assert main(["feedback", "import", str(labels), "--run", str(run)]) == 0
    assert main(["feedback", "forget", "b", "--run", str(run)]) == 0
    assert "rows erased: 2" in capfd.readouterr().out
    assert [row.user for row in stored(run / "feedback.db")] == ["a"]
    refused(capfd, ["feedback", "forget", "c", "--run", run], "no feedback by 'c'", "stats")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "One.", "genres": "Dramma", "user": "a"}], ["row 1", "'Dramma'", "is it Drama?", "--new_genres"]),
        ([{"text": "One.", "genres": "War"}], ["row 1", "no user", "--user"]),
        ([{"text": "", "genres": "War", "user": "a"}], ["row 1", "no text"]),
        ([{"text": "One.", "genres": "ok", "user": "a"}], ["row 1", "no genres are suggested"]),
        ([{"text": "One.", "genres": "", "user": "a"}], ["no labelled film", "'none'"]),
        ([{"text": "One.", "genres": "War", "user": "a", "time": "soon"}], ["row 1", "'soon'"]),
        ([{"text": "x" * 65_537, "genres": "War", "user": "a"}], ["row 1", "65,536"]),
        ([{"text": "One.", "user": "a"}], ["no column genres", "genre-lightning queue"]),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_stored(run, tmp_path, capfd, rows, words):
    good = {"text": "Good.", "genres": "War", "user": "a"} if "genres" in rows[0] and rows[0]["genres"] else {}
    path = table(tmp_path / "l.csv", *rows, *([good] if good else []))
    before = everything_under(tmp_path)
    refused(capfd, ["feedback", "import", path, "--run", run], *words)
    assert everything_under(tmp_path) == before


def test_a_file_of_labels_that_is_missing_or_of_another_form_is_refused(run, tmp_path, capfd):
    refused(capfd, ["feedback", "import", str(tmp_path / "no.csv"), "--run", str(run)], "no such file", "queue")
    path = table(tmp_path / "plots.csv", {"plot": "One.", "genres": "War", "user": "a"})
    expected = "no column overview or text; its header is: plot, genres, user"
    refused(capfd, ["feedback", "import", str(path), "--run", str(run)], expected)
    path = tmp_path / "l.csv"
    path.write_bytes("text,genres,user\nCafé.,War,a\n".encode("cp1252"))
    refused(capfd, ["feedback", "import", str(path), "--run", str(run)], "--data.encoding", "windows-1252")
    assert main(["feedback", "import", str(path), "--run", str(run), "--data.encoding", "windows-1252"]) == 0


def test_new_genres_are_kept_when_they_are_asked_for(run, tmp_path, capfd):
    path = table(tmp_path / "l.csv", {"text": "One.", "genres": "western, War", "user": "a"})
    assert main(["feedback", "import", str(path), "--run", str(run), "--new_genres"]) == 0
    for number, place in enumerate((["--db", str(run / "feedback.db")], ["--run", str(run)]), start=1):
        again = table(tmp_path / "again.csv", {"text": f"Again {number}.", "genres": "WESTERN", "user": "a"})
        assert main(["feedback", "import", str(again), *place]) == 0
        assert stored(run / "feedback.db")[number].genres == ("western",)


def test_places_that_are_not_named_or_not_there_are_refused(run, tmp_path, capfd):
    refused(capfd, ["feedback", "stats"], "--run RUN or --db FILE")
    refused(capfd, ["feedback", "stats", "--run", run], "there is no feedback")
    refused(capfd, ["feedback", "stats", "--run", tmp_path], "run directory")
    refused(capfd, ["feedback", "forget", "a", "--db", tmp_path / "no.db"], "there is no feedback")
    labels = table(tmp_path / "l.csv", {"text": "One.", "genres": "War", "user": "a"})
    refused(capfd, ["feedback", "import", labels, "--db", tmp_path / "no.db"], "--run RUN")
    refused(capfd, ["feedback", "import", labels, "--run", run, "--db", labels / "f.db"], "--db", "cannot be written")
    assert not list(tmp_path.rglob("*.db*"))


def test_help_loads_no_library():
    code = (
        "import sys\nfrom genre_lightning.__main__ import main\n"
        "for name in sys.argv[1:]:\n"
        "    try: main([*name.split(), '--help'])\n    except SystemExit: pass\n"
        "print(*{'torch', 'sklearn', 'scipy', 'pyarrow', 'sqlite3'} & {*sys.modules}, 'loaded')"
    )
    names = [
        "data doubts",
        "queue",
        "monitor",
        "feedback import",
        "feedback export",
        "feedback stats",
        "feedback forget",
    ]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"
