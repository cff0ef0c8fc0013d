"""`tag` as its user runs it: texts, files and lines, for a person and for a program."""

import io
import json
import os
import subprocess
import sys

import pytest
from made_runs import refused, trained_baseline
from rich.console import Console

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.commands.tag import print_bars
from genre_lightning.inference.tagger import Genre, TaggedText
from genre_lightning.learning.store import FeedbackStore

TEXTS = ["A dog finds its way home over the mountains.", "Two soldiers fall in love with the same nurse in a war."]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def tagger(run):
    return Tagger(run)


def feed(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_one_line_for_each_text(run, tagger, capfd):
    assert main(["tag", str(run), *TEXTS]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == [f"{tagger(text)}\t{text}" for text in TEXTS]
    assert err == ""


def test_half_of_a_character_is_read_as_an_unknown_one(run, capfd):
    assert main(["tag", str(run), "--json", "A dog \ud800 home."]) == 0
    half = json.loads(capfd.readouterr().out)
    assert main(["tag", str(run), "--json", "A dog \ufffd home."]) == 0
    assert half["probabilities"] == json.loads(capfd.readouterr().out)["probabilities"]


def test_json_lines_hold_all_that_is_known(run, tagger, capfd):
    assert main(["tag", str(run), "--json", "--top_k", "2", *TEXTS, ""]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines == [tagger(text, top_k=2).as_dict() for text in [*TEXTS, ""]]
    assert (lines[2]["genres"], lines[2]["notes"]) == ([], ["the text is empty"])


def test_files_and_the_standard_input_line_by_line(run, tmp_path, monkeypatch, capfd):
    assert main(["tag", str(run), "--threshold", "0.2", *TEXTS, "", "Un garçon"]) == 0
    expected = capfd.readouterr().out
    content = "\n".join([*TEXTS, "", "Un garçon"])
    for name, encoded in (
        ("unix", content.encode() + b"\n"),
        ("no newline at the end", content.encode()),
        ("windows", content.replace("\n", "\r\n").encode("utf-8-sig")),
        ("latin", content.encode("cp1252")),
        ("powershell", content.replace("\n", "\r\n").encode("utf-16")),
    ):
        file = tmp_path / name
        file.write_bytes(encoded)
        assert main(["tag", str(run), "--threshold", "0.2", "--file", str(file)]) == 0
        out, err = capfd.readouterr()
        assert out == expected, name
        assert ("line 4" in err and "not UTF-8" in err) == (name == "latin")
        if name != "powershell":  # lines are not known to end before its encoding is
            feed(monkeypatch, encoded)
            assert main(["tag", str(run), "--threshold", "0.2"]) == 0
            assert capfd.readouterr().out == expected, name


@pytest.mark.slow
def test_each_line_is_answered_before_the_next_has_come(run):
    code = "from genre_lightning.__main__ import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "tag", str(run)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        for text in TEXTS:
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().decode().endswith(f"\t{text}\n")
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_line_of_many_megabytes_is_one_text(run, monkeypatch, capfd):
    feed(monkeypatch, b"word " * 2_000_000 + b"\nA dog.\n")
    assert main(["tag", str(run), "--json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [len(line["text"]) > 10**6 for line in lines] == [True, False]
    assert "the first 65,536 characters" in lines[0]["notes"][0]


def shown(tagged):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    print_bars(tagged, console)
    return console.file.getvalue().splitlines()


def test_bars_are_as_long_as_the_probabilities():
    chances = {"Drama": 0.75, "War": 0.5, "Horror": 0.02, "Western": 0.01, "Music": 0.0}
    limits = dict.fromkeys(chances, 0.4)
    decided = (Genre("Drama", 0.75, 0.4), Genre("War", 0.5, 0.4))
    lines = shown(TaggedText("A war.", decided, chances, limits, ("something",)))
    assert lines[0] == "A war."
    assert lines[1].strip() == "note: something"
    # the two likeliest of the others stand below
    assert [line.split()[0] for line in lines[2:]] == ["Drama", "War", "Horror", "Western"]
    assert [line.count("█") for line in lines[2:]] == [18, 12, 0, 0]
    assert "from 0.400 on" in lines[2]
    assert "below 0.400" in lines[4]
    nothing = shown(TaggedText("A war.", (), chances, dict.fromkeys(chances, 0.9)))
    assert "no genre reaches its threshold" in nothing[1]
    assert shown(TaggedText("", notes=("the text is empty",))) == ["  note: the text is empty"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--file", "nosuch.txt"], "no such file: nosuch.txt"),
        (["--top_k", "0", "x"], "--top_k: 0 is not allowed"),
        (["--top_k", "many", "x"], "--top_k"),
        (["--threshold", "7", "x"], "--threshold: 7 is not allowed"),
        (["--policy", "x"], "--policy"),
    ],
)
def test_bad_use_is_one_line(run, capfd, words, expected):
    refused(capfd, ["tag", run, *words], expected)


def test_a_directory_that_is_not_a_run(tmp_path, capfd):
    refused(capfd, ["tag", tmp_path, "x"], "is not a run directory")
    refused(capfd, ["tag"], "RUN")


@pytest.mark.parametrize("error", [KeyError, OSError, ImportError])
def test_a_correction_of_a_user_without_a_login_name_needs_a_name(run, tmp_path, monkeypatch, capfd, error):
    def getuser():
        raise error("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", getuser)
    words = ["tag", str(run), "--correct", "Drama", "--db", str(tmp_path / "f.db"), "A boy finds a map."]
    refused(capfd, words, "no login name: give --user NAME")
    assert main([*words, "--user", "anna"]) == 0


def test_tag_stores_a_correction_beside_the_prediction(run, tmp_path, capfd):
    database = tmp_path / "f.db"
    text = "Two soldiers fall in love with the same nurse in a war."
    assert main(["tag", str(run), text]) == 0
    shown = capfd.readouterr().out
    words = ["tag", str(run), "--correct", "drama, War", "--user", "anna", "--db", str(database), text]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert out == shown
    assert "stored in" in err
    with FeedbackStore(database) as store:
        (row,) = store.rows()
    assert (row.text, row.genres, row.user, row.source) == (text, ("Drama", "War"), "anna", "tag")
    assert [f"{name} " in shown for name in row.predicted] == [True] * len(row.predicted)
    assert len(row.checkpoint_sha256) == 64
    assert main(words) == 0
    assert "already has this opinion" in capfd.readouterr().err
    refused(capfd, ["tag", run, "--correct", "Dramma", text], "'Dramma'", "is it Drama?")
    refused(capfd, ["tag", run, "--correct", "Drama", text, text], "one text")
    refused(capfd, ["tag", run, "--user", "anna", "--db", str(database), text], "--correct")
    with FeedbackStore(database) as store:
        assert len(list(store.rows())) == 1
