"""Outputs that would replace what someone needs: a run's films, its files, or what a command reads."""

import json
from pathlib import Path

import pytest
import yaml
from made_runs import make_run, trained_baseline, without_page

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.runs import RunDirectory, check_spare


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        run = trained_baseline(place)
    (place / "new.csv").write_text("id,overview\n9001,A soldier goes to war.\n9002,Two people fall in love.\n")
    (place / "more.csv").write_text((place / "new.csv").read_text())
    return run


OUTPUTS = {
    "the training file": (["predict", "{run}", "--data.csv", "{new}", "--out", "{films}"], "{films}"),
    "the file that is read": (["predict", "{run}", "--data.csv", "{new}", "--out", "{new}"], "{new}"),
    "splits of the run": (["predict", "{run}", "--data.csv", "{new}", "--out", "{splits}"], "{splits}"),
    "predictions of the run": (["predict", "{run}", "--data.csv", "{new}", "--out", "{predictions}"], "{predictions}"),
    "doubts": (["data", "doubts", "{run}", "--out", "{films}"], "{films}"),
    "a page": (["explain", "{run}", "A soldier", "--html", "{films}"], "{films}"),
    "a queue": (["queue", "{run}", "--data.csv", "{new}", "--out", "{films}"], "{films}"),
}
"""Commands, and the file that each must leave as it is."""


def names_in(run):
    return {
        "run": run,
        "films": run.parent / "sample.csv",
        "new": run.parent / "new.csv",
        "folder": run.parent,
        "splits": run / "splits.parquet",
        "predictions": run / "evaluation/test/predictions.parquet",
    }


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_output_replaces_what_is_needed(place, name, capsys):
    words, kept = OUTPUTS[name]
    file = Path(kept.format(**names_in(place)))
    before = file.read_bytes()
    assert main([word.format(**names_in(place)) for word in words]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1
    assert ("--out" in err[0]) or ("--html" in err[0])
    assert file.read_bytes() == before


def test_all_films_that_a_run_has_are_kept(tmp_path, capsys):
    names = ("csv", "older", "joined", "links", "unlabelled", "labels")
    files = [write_sample(tmp_path / f"{name}.csv", films=20, seed=1) for name in names]
    run = make_run(tmp_path / "run")
    join = {"file": str(files[2]), "via": str(files[3])}
    data = {"csv": str(files[0]), "older_csv": [str(files[1])], "join": [join], "unlabelled": ["main", str(files[4])]}
    settings = {**yaml.safe_load((run / "config.yaml").read_text()), "data": data, "labels": str(files[5])}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["predict", str(run), "--data.csv", str(tmp_path / "new.csv"), "--out"]
    for file in files:
        assert main([*words, str(file)]) == 2
        assert "is the file that the run was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [5, [], {"csv": [1]}, {"csv": "a\0b", "join": 3, "older_csv": {"a": 1}}, {"join": [4]}]
)
def test_a_configuration_without_files_keeps_nothing(tmp_path, data):
    run = make_run(tmp_path / "run")
    settings = {**yaml.safe_load((run / "config.yaml").read_text()), "data": data}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    out = tmp_path / "out.csv"
    out.touch()
    check_spare(out, "--out", run=RunDirectory(run))


def test_a_link_in_the_place_of_the_default_list_of_doubts_is_refused(place, tmp_path, capsys):
    (place / "doubts.csv").symlink_to(tmp_path / "elsewhere.csv")
    try:
        assert main(["data", "doubts", str(place)]) == 2
    finally:
        (place / "doubts.csv").unlink()
    assert "is a link" in capsys.readouterr().err


def test_an_output_of_ones_own_is_replaced(place, tmp_path):
    out = tmp_path / "tagged.csv"
    words = ["predict", str(place), "--data.csv", str(place.parent / "new.csv"), "--out", str(out)]
    assert main(words) == 0
    first = out.read_text()
    assert main(words) == 0
    assert out.read_text() == first


def test_an_ensemble_of_other_runs_is_not_replaced(place, tmp_path, capsys, monkeypatch):
    without_page(monkeypatch)
    others = [tmp_path / "b", tmp_path / "c"]
    for seed, other in enumerate(others, start=1):
        films = str(place.parent / "sample.csv")
        kind = ("tfidf_nb", "tfidf_logreg")[seed - 1]
        assert (
            main(["baseline", kind, "--data.csv", films, "--run_dir", str(other), f"--model.min_films={seed + 1}"]) == 0
        )
    together = str(tmp_path / "together")
    assert main(["ensemble", str(place), str(others[0]), "--run_dir", together]) == 0
    weights = json.loads((tmp_path / "together/config.yaml").read_text())
    assert main(["ensemble", str(place), str(others[0]), "--run_dir", together]) == 0
    capsys.readouterr()
    assert main(["ensemble", str(place), str(others[1]), "--run_dir", together]) == 2
    assert "holds an ensemble of" in capsys.readouterr().err
    assert json.loads((tmp_path / "together/config.yaml").read_text()) == weights


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["tag", "{run}", "a text", "--file", "{new}"], "--file"),
        (["tag", "{run}", "--file", "{folder}"], "is a directory"),
        (["tag", "{run}", "a text", "--device", "banana"], "device 'banana'"),
        (["evaluate", "{run}", "--data.csv", "{films}", "--precision", "banana"], "--precision"),
        (["evaluate", "{run}", "--data.csv", "{films}", "--precision", "32-true"], "--precision is 32-true"),
        (["evaluate", "{run}", "--data.csv", "{films}", "--seed", "-1"], "--seed"),
        (["evaluate", "{run}", "--data.csv", "{films}", "--data.encoding", "utf-16"], "UTF-16"),
        (["predict", "{run}", "--data.csv", "{new}", "--out", "e.csv", "--data.encoding", "utf-16"], "UTF-16"),
        (["features", "posters", "nosuch", "--backbone", "small", "--out", "v.parquet"], "no such folder: nosuch"),
    ],
)
def test_what_would_have_no_effect_or_end_late_is_refused_first(place, tmp_path, words, named, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(**names_in(place)) for word in words]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert named in err[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_there_is_reported(place, tmp_path, capsys):
    words = ["--data.csv", str(place.parent / "new.csv"), "--db", str(tmp_path / "nosuch")]
    assert main(["queue", str(place), *words, "--out", str(tmp_path / "queue.csv")]) == 0
    assert "nosuch does not exist: no feedback is read" in capsys.readouterr().err
