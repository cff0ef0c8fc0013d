"""`predict` as its user runs it: every row once and in order, in any format, cut off and resumed."""

import csv
import gzip
import json
import shutil
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import refused, without_page
from power_cuts import PowerCutError
from small_run import SMALL

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.signals import FLAG
from genre_lightning.inference.tagged_files import TaggedFile

ROWS = [
    # id, title, overview, reason
    ("862", "Home", "A dog finds its way home over the mountains.", None),
    ("1997-08-20", "Shifted", "Two soldiers fall in love with the same nurse in a war.", None),
    ("862", "Again", "A killer hunts teenagers in a cabin in the woods.", None),
    ("3", "Nothing", "", "missing_overview"),
    ("4", "Blank", "   ", "missing_overview"),
    ("5", "Placeholder", "No overview found.", "placeholder_overview"),
    ("", "", "A thief plans a last robbery with an old friend, who betrays him.", None),
    ("7", "Comma, quote \" and\nline", "An alien, lost on earth, wants to phone home.", None),
    *((str(100 + n), f"Film {n}", f"A cop {'chases the gang and ' * (n * 3 % 7)}sleeps.", None) for n in range(12)),
]  # fmt: skip


def write_rows(path, rows=ROWS, header=("id", "title", "overview"), encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(row[: len(header)] for row in rows)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An encoder whose film file is gone, a baseline, and the ensemble of both."""
    place = tmp_path_factory.mktemp("runs")
    sample = write_sample(place / "sample.csv", films=200, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        patch.setattr("genre_lightning.evaluation.report.write_report", lambda *a, **k: None)
        fit = ["fit", f"--data.csv={sample}", f"--run_dir={place / 'encoder'}", *SMALL, "--trainer.max_epochs=1"]
        assert main(fit) == 0
        assert main(["baseline", "tfidf_nb", f"--data.csv={sample}", f"--run_dir={place / 'tfidf_nb'}"]) == 0
        members = [str(place / "encoder"), str(place / "tfidf_nb")]
        assert main(["ensemble", *members, f"--run_dir={place / 'ensemble'}"]) == 0
    sample.unlink()
    return place


@pytest.fixture(scope="module")
def run(runs):
    return runs / "encoder"


def predict(run, file, out, *more):
    return main(["predict", str(run), "--data.csv", str(file), "--out", str(out), *map(str, more)])


def table_of(path):
    return pq.read_table(path).to_pylist()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("films") / "new.csv")


@pytest.fixture(scope="module")
def whole(run, films):
    """The table of an unbroken start."""
    out = films.with_name("whole.parquet")
    assert predict(run, films, out) == 0
    return table_of(out)


@pytest.mark.parametrize("kind", ["encoder", "tfidf_nb", "ensemble"])
def test_every_row_stands_in_the_table_once_and_in_order(runs, films, tmp_path, kind, capfd):
    out = tmp_path / "tagged.parquet"
    assert predict(runs / kind, films, out) == 0
    said = capfd.readouterr()
    assert said.out.strip() == str(out)
    assert "tagged 17 of 20 rows" in said.err
    assert "2 missing_overview, 1 placeholder_overview" in said.err
    rows = table_of(out)
    assert [row["id"] for row in rows] == [row[0] or None for row in ROWS]
    assert [row["title"] for row in rows] == [row[1] for row in ROWS]
    assert [row["reason"] for row in rows] == [row[3] for row in ROWS]
    tagger = Tagger(runs / kind, device="cpu")
    assert json.loads(pq.read_schema(out).metadata[b"vocabulary"]) == list(tagger.genres)
    for row, (*_, overview, reason) in zip(rows, ROWS, strict=True):
        if reason:
            assert (row["genres"], row["probabilities"], row["logits"]) == (None, None, None)
            continue
        expected = tagger(overview)
        got = dict(zip(tagger.genres, row["probabilities"], strict=True))
        assert got == pytest.approx(expected.probabilities, abs=2e-5)
        assert set(row["genres"]) == set(expected.names)
    assert [path.name for path in tmp_path.iterdir()] == ["tagged.parquet"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_csv_says_the_same(run, films, whole, tmp_path, ending):
    out = tmp_path / f"tagged.{ending}"
    assert predict(run, films, out) == 0
    text = gzip.decompress(out.read_bytes()).decode() if ending == "csv.gz" else out.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines(keepends=True)))
    genres = Tagger(run).genres
    assert rows[0] == ["id", "title", "genres", "reason", *genres]
    for got, expected in zip(rows[1:], whole, strict=True):
        assert got[:2] == [expected["id"] or "", expected["title"]]
        assert got[2] == "|".join(expected["genres"] or [])
        assert got[3] == (expected["reason"] or "")
        figures = expected["probabilities"]
        assert [float(cell) for cell in got[4:] if cell] == pytest.approx(figures or [], abs=1e-5)


def test_input_in_other_formats_and_under_other_names(run, whole, tmp_path):
    rows = [row for row in ROWS if row[0].isdigit()]
    expected = [row for row in whole if (row["id"] or "").isdigit()]
    table = pa.table({"id": [int(r[0]) for r in rows], "title": [r[1] for r in rows], "overview": [r[2] for r in rows]})
    pq.write_table(table, tmp_path / "films.parquet")
    zipped = tmp_path / "films.csv.gz"
    zipped.write_bytes(gzip.compress(write_rows(tmp_path / "films.csv", rows).read_bytes()))
    plots = write_rows(tmp_path / "plots.csv", [(row[2],) for row in rows], header=("plot",))
    for file in ("films.parquet", "films.csv.gz"):
        out = tmp_path / f"{file}.out.parquet"
        assert predict(run, tmp_path / file, out) == 0
        got = table_of(out)
        # whole numbers are numbers
        assert [row["id"] for row in got] == [int(row["id"]) for row in expected]
        assert [row["genres"] for row in got] == [row["genres"] for row in expected]
    out = tmp_path / "plots.out.parquet"
    assert predict(run, plots, out, "--data.columns.overview=plot") == 0
    assert [row["genres"] for row in table_of(out)] == [row["genres"] for row in expected]
    assert [row["id"] for row in table_of(out)] == list(range(1, len(rows) + 1))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("genre_lightning.training.predict.CHUNK_ROWS", 3)


def same_table(got, expected):
    assert [row["id"] for row in got] == [row["id"] for row in expected]
    assert [row["genres"] for row in got] == [row["genres"] for row in expected]
    for one, other in zip(got, expected, strict=True):
        assert one["logits"] == pytest.approx(other["logits"], abs=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "tfidf_nb"])
def test_a_start_that_was_cut_off_is_resumed(runs, films, tmp_path, monkeypatch, small_chunks, kind, capfd):
    out, written = tmp_path / "tagged.parquet", []
    write_part = TaggedFile.write_part

    def cut(self, number, rows, logits):
        if number == 3:
            raise PowerCutError
        write_part(self, number, rows, logits)

    def note(self, number, rows, logits):
        written.append(number)
        write_part(self, number, rows, logits)

    monkeypatch.setattr(TaggedFile, "write_part", cut)
    with pytest.raises(PowerCutError):
        predict(runs / kind, films, out)
    assert not out.exists()
    # what a write that was killed leaves
    (tmp_path / ".tagged.parquet.parts" / ".tmp-x.parquet").write_bytes(b"half")
    capfd.readouterr()
    monkeypatch.setattr(TaggedFile, "write_part", note)
    assert predict(runs / kind, films, out) == 0
    assert "resuming after 9 rows" in capfd.readouterr().err
    assert written == [3, 4, 5, 6]
    broken = table_of(out)
    assert [path.name for path in tmp_path.iterdir()] == ["tagged.parquet"]
    monkeypatch.setattr("genre_lightning.training.predict.CHUNK_ROWS", 1000)
    assert predict(runs / kind, films, out) == 0
    same_table(broken, table_of(out))


def test_parts_of_another_file_are_not_used_to_resume(run, films, tmp_path, monkeypatch, small_chunks, capfd):
    out = tmp_path / "tagged.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(TaggedFile, "assemble", lambda self: (_ for _ in ()).throw(PowerCutError))
        with pytest.raises(PowerCutError):
            predict(run, films, out)
    other = write_rows(tmp_path / "other.csv", ROWS[:4])
    capfd.readouterr()
    assert predict(run, other, out) == 0
    assert "resuming after" not in capfd.readouterr().err
    assert len(table_of(out)) == 4


def test_a_table_that_was_only_to_be_put_together_is(run, films, whole, tmp_path, monkeypatch, small_chunks):
    out = tmp_path / "tagged.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(TaggedFile, "assemble", lambda self: (_ for _ in ()).throw(PowerCutError))
        with pytest.raises(PowerCutError):
            predict(run, films, out)
    assert predict(run, films, out) == 0
    same_table(table_of(out), whole)


@pytest.mark.parametrize("kind", ["encoder", "tfidf_nb"])
def test_a_signal_stops_it_with_what_is_done(runs, films, tmp_path, monkeypatch, small_chunks, kind, capfd):
    out, write_part = tmp_path / "tagged.csv", TaggedFile.write_part

    def signalled(self, number, rows, logits):
        write_part(self, number, rows, logits)
        if number == 1:
            FLAG.handle(signal.SIGTERM, None)

    with monkeypatch.context() as patch:
        patch.setattr(TaggedFile, "write_part", signalled)
        assert predict(runs / kind, films, out) == 75
    assert "run the same command again to resume" in capfd.readouterr().err
    assert not out.exists()
    assert predict(runs / kind, films, out) == 0
    assert "resuming after" in capfd.readouterr().err
    with out.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == len(ROWS) + 1


def test_a_file_that_turns_out_to_be_broken_leaves_nothing(run, tmp_path, small_chunks, capfd):
    place = tmp_path / "out"
    place.mkdir()
    rows = [("1", "a long title " * 20, "")] * 90  # a file is decoded some thousand bytes at a time
    latin = write_rows(tmp_path / "latin.csv", [*rows, ("2", "x", "Un garçon")], encoding="latin-1")
    assert predict(run, latin, place / "tagged.parquet") == 2
    assert "not UTF-8" in capfd.readouterr().err
    assert list(place.iterdir()) == []


def test_bad_use_is_refused_before_anything_is_loaded(run, films, tmp_path, capfd):
    words = ["predict", run, "--data.csv", films, "--out", tmp_path / "x.parquet"]
    refused(capfd, ["predict", tmp_path, *words[2:]], "is not a run directory")
    refused(capfd, ["predict", "--data.csv", films], "needs a run")
    refused(capfd, [*words[:2], "--out", tmp_path / "x.parquet"], "--data.csv is missing")
    refused(capfd, [*words[:3], "none.csv", *words[4:]], "no such file", "--data.csv")
    refused(capfd, [*words[:-1], tmp_path / "x.txt"], ".csv, .csv.gz or .parquet")
    refused(capfd, [*words[:-1], films], "is the file of the films")
    refused(capfd, [*words, "--data.text", "{title}"], "--data.text", "as trained")
    refused(capfd, [*words, "--data.columns.plot", "x"], "columns.plot")
    refused(capfd, [*words[:-1]], "--out: expected one argument")
    empty = tmp_path / "empty.csv"
    empty.touch()
    refused(capfd, [*words[:3], empty, *words[4:]], "is empty")
    wrong = write_rows(tmp_path / "wrong.csv", header=("id", "name", "plot"))
    refused(capfd, [*words[:3], wrong, *words[4:]], "no column 'overview'")
    assert not (tmp_path / "x.parquet").exists()


def test_two_processes_do_not_write_one_file(runs, films, tmp_path, monkeypatch, capfd):
    statuses, write_part = [], TaggedFile.write_part

    def second(self, number, rows, logits):
        monkeypatch.setattr(TaggedFile, "write_part", write_part)
        statuses.append(predict(runs / "tfidf_nb", films, tmp_path / "x.parquet"))
        write_part(self, number, rows, logits)

    monkeypatch.setattr(TaggedFile, "write_part", second)
    assert predict(runs / "tfidf_nb", films, tmp_path / "x.parquet") == 0
    assert statuses == [2]
    assert "another process is writing" in capfd.readouterr().err


def test_an_unfinished_run_is_not_used(run, films, tmp_path, capfd):
    place = tmp_path / "run"
    shutil.copytree(run, place)
    (place / "run_state.json").write_text('{"status": "training"}')
    refused(capfd, ["predict", place, "--data.csv", films], "has not finished training")


def test_the_help_names_its_options(capfd):
    with pytest.raises(SystemExit) as leaving:
        main(["predict", "--help"])
    assert leaving.value.code == 0
    out = capfd.readouterr().out
    for option in ("--out", "--data.csv", "--trainer.devices"):
        assert option in out
