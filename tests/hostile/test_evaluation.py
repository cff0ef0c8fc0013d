"""Evaluations that are cut off, stored files that are damaged, full disks: one line, and a fix that works."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from filelock import FileLock
from made_runs import everything_under, make_run, refused, trained_baseline, without_page

from genre_lightning.__main__ import main
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.files import read_json, replacing_folder, write_json
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.runs import RunDirectory
from genre_lightning.training.resume import locked

DEEP = "[" * 100_000


class CutOffError(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def nb(trained, tmp_path):
    """A copy of a real baseline's run, which the test may damage."""
    return shutil.copytree(trained, tmp_path / "nb")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    return [make_run(place / name, 2.0, seed=n) for n, name in enumerate(("one", "two"))]


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "a run")


@pytest.fixture
def runs(made, tmp_path):
    return [shutil.copytree(place, tmp_path / place.name) for place in made]


def cut_off_at(monkeypatch, name):
    """Ends the process at the first call of a function of the evaluation."""

    def cut(*args, **kwargs):
        raise CutOffError

    monkeypatch.setattr(name, cut)


def the_line(capfd, status, arguments, *words):
    """Runs a command that must end with a status and one line that holds the words."""
    assert main([str(word) for word in arguments]) == status
    err = capfd.readouterr().err
    last = err.splitlines()[-1]
    assert last.startswith("genre-lightning: "), err
    assert "Traceback" not in err
    for word in words:
        assert word in last
    return last


# an evaluation is replaced whole


@pytest.mark.parametrize("place", ["write_csv", "write_json", "shutil.copyfile"])
def test_an_evaluation_that_is_cut_off_leaves_the_old_one(run, monkeypatch, place):
    from made_runs import made_predictions

    files = RunDirectory(run)
    write_json(files.evaluation("test").top_words, {})
    before = everything_under(run)
    decision = read_decision(files.decision)
    words = (files.evaluation("test").path, made_predictions(40, 1.0), decision)
    options = {"split": "test", "figures": False, "resamples": 5}
    with monkeypatch.context() as patch:
        cut_off_at(patch, f"genre_lightning.evaluation.evaluate.{place}")
        with pytest.raises(CutOffError):
            write_evaluation(*words, **options)
    assert everything_under(run) == before
    assert write_evaluation(*words, **options)["n"] == 40
    assert read_json(files.evaluation("test").metrics)["n"] == 40
    assert files.evaluation("test").top_words.is_file()
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == ["test", "validation"]


def test_a_kill_between_the_two_renames_is_repaired(tmp_path):
    place = tmp_path / "test"
    place.mkdir()
    (place / "metrics.json").write_text("old")
    place.rename(tmp_path / ".test.old")
    with pytest.raises(CutOffError), replacing_folder(place):
        raise CutOffError
    assert (place / "metrics.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_a_folder_that_cannot_be_swapped_stays(tmp_path, monkeypatch):
    place = tmp_path / "test"
    place.mkdir()
    (place / "metrics.json").write_text("old")
    replace = Path.replace

    def failing(self, target):
        if self.name.startswith(".tmp-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="No space left"), replacing_folder(place) as draft:
        (draft / "metrics.json").write_text("new")
    assert (place / "metrics.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


@pytest.mark.parametrize("cut", ["evaluation.evaluate.write_json", "training.resume.write_report"])
def test_the_same_command_finishes_a_baseline_that_was_cut_off(trained, tmp_path, monkeypatch, cut):
    without_page(monkeypatch)
    place = tmp_path / "again"
    words = ["baseline", "tfidf_nb", f"--data.csv={trained.parent / 'sample.csv'}", f"--run_dir={place}"]
    with monkeypatch.context() as patch:
        cut_off_at(patch, f"genre_lightning.{cut}")
        with pytest.raises(CutOffError):
            main(words)
    assert main(words) == 0
    for split in ("validation", "test"):
        name = f"evaluation/{split}/metrics.json"
        ours, theirs = (read_json(run / name) for run in (place, trained))
        moments = dict.fromkeys(("seconds", "made_by", "training"))
        assert {**ours, **moments} == {**theirs, **moments}


@pytest.mark.parametrize("command", [["report"], ["report", "--paper"]])
def test_a_report_that_is_cut_off_leaves_the_old_page(run, monkeypatch, command):
    assert main([*command, str(run)]) == 0
    before = everything_under(run)
    with monkeypatch.context() as patch:
        cut_off_at(patch, "genre_lightning.files.os.fsync")
        with pytest.raises(CutOffError):
            main([*command, str(run)])
    assert everything_under(run) == before


def test_an_ensemble_that_is_cut_off_is_made_by_the_same_command(runs, tmp_path, monkeypatch):
    words = ["ensemble", *map(str, runs), f"--run_dir={tmp_path / 'both'}"]
    with monkeypatch.context() as patch:
        cut_off_at(patch, "genre_lightning.evaluation.evaluate.write_csv")
        with pytest.raises(CutOffError):
            main(words)
    assert main(words) == 0
    assert RunDirectory(tmp_path / "both").status == "finished"


# what killed commands leave, and the lock


def test_temporary_files_of_killed_commands_are_removed_and_links_not_followed(nb, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / ".tmp-kept").write_text("of somebody else")
    left = [nb / ".tmp-1.json", nb / "evaluation" / ".tmp-2" / "x", nb / "evaluation" / "test" / ".tmp-3.csv"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (nb / ".tmp-link").symlink_to(other)
    (nb / "evaluation" / "link").symlink_to(other)
    with pytest.raises(ConfigError, match="leads out of the run directory"), locked(RunDirectory(nb)):
        pass
    (nb / "evaluation" / "link").unlink()
    with locked(RunDirectory(nb)):
        pass
    assert not [path for path in left if path.exists()]
    assert not (nb / ".tmp-link").is_symlink()
    assert (other / ".tmp-kept").is_file()


def test_an_ensemble_and_a_report_take_the_lock(runs, tmp_path, capfd):
    (tmp_path / "both").mkdir()
    with FileLock(tmp_path / "both" / ".lock"):
        refused(capfd, ["ensemble", *runs, "--run_dir", tmp_path / "both"], "another process is working")
    with FileLock(runs[0] / ".lock"):
        refused(capfd, ["report", runs[0]], "another process is working")
    assert [path.name for path in (tmp_path / "both").iterdir()] == [".lock"]


# stored files are checked when they are read


def edited(path, change):
    """Changes a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


TEXTS = ["A war of two armies.", "They fall in love and laugh.", "A ghost in the house."]


def test_a_decision_in_another_order_names_the_same_genres(nb):
    cells = [{"overview": text} for text in TEXTS]

    def decided(scorer):
        decision = scorer.decision
        chosen = decision.decide(decision.probabilities(scorer.logits(cells)))
        return [sorted(np.array(decision.genres)[row]) for row in chosen]

    before = decided(open_scorer(nb))
    edited(nb / "decision.json", lambda values: values["genres"].reverse())
    assert decided(open_scorer(nb)) == before
    assert any(before)


def without(*path):
    def change(values):
        for name in path[:-1]:
            values = values[name]
        del values[path[-1]]

    return change


def setting(value, *path):
    def change(values):
        for name in path[:-1]:
            values = values[name]
        values[path[-1]] = value

    return change


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda values: values["thresholds"]["per_genre"].pop(values["genres"][0]), "has no value for"),
        (lambda values: values["genres"].pop(), "names an unknown genre"),
        (lambda values: values["genres"].append(values["genres"][0]), "distinct"),
        (setting([1, 2], "genres"), "genres[0]"),
        (setting(NAN, "thresholds", "global"), "thresholds.global"),
        (setting(-0.1, "thresholds", "global"), "thresholds.global"),
        (setting(1.5, "thresholds", "global"), "thresholds.global"),
        (lambda v: v["thresholds"]["per_genre"].update({v["genres"][0]: NAN}), "thresholds.per_genre"),
        (setting(0, "temperature"), "temperature"),
        (setting(-1, "temperature"), "temperature"),
        (setting(INFINITE, "temperature"), "temperature"),
        (setting("1", "temperature"), "temperature"),
        (lambda v: v.update(platt={"scale": dict.fromkeys(v["genres"], -1), "shift": dict.fromkeys(v["genres"], 0)}),
         "platt.scale"),
        (setting(3, "checkpoint_sha256"), "checkpoint_sha256"),
        (setting(-1, "n_films"), "n_films"),
        (without("thresholds"), "thresholds is missing"),
    ],
)  # fmt: skip
def test_a_decision_that_is_not_one_is_refused(nb, capfd, change, word):
    edited(nb / "decision.json", change)
    again = f"run 'genre-lightning baseline tfidf_nb --run_dir {nb}' again"
    refused(capfd, ["tag", nb, TEXTS[0]], "decision.json is damaged", word, again)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (setting(NAN, "a"), "weights.a"),
        (setting(-0.5, "a"), "weights.a"),
        (setting("1", "a"), "weights.a"),
        (setting(0.9, "a"), "add up to"),
        (without("a"), "add up to"),
    ],
)
def test_weights_that_are_not_ones_are_refused(tmp_path, capfd, change, word):
    both = RunDirectory(tmp_path / "both")
    weights = {"a": 0.5, "b": 0.5}
    for name in weights:
        make_run(tmp_path / name, splits=())
    change(weights)
    both.write_config(yaml.safe_dump({"ensemble": {"weights": weights}}))
    both.set_status("finished")
    refused(capfd, ["tag", both.path, "x"], "config.yaml is damaged", word, "make the ensemble again")


def ensemble_of(place, *members):
    run = RunDirectory(place)
    weights = {str(member): 1 / len(members) for member in members}
    run.write_config(yaml.safe_dump({"ensemble": {"weights": weights}}))
    run.set_status("finished")
    return place


def test_ensembles_that_name_themselves_or_in_a_circle_are_refused(tmp_path, capfd):
    single = make_run(tmp_path / "single", splits=())
    own = ensemble_of(tmp_path / "own", single, tmp_path / "own")
    refused(capfd, ["tag", own, "x"], "is a member of itself", "make it again from other runs")
    first = ensemble_of(tmp_path / "first", single, tmp_path / "second")
    ensemble_of(tmp_path / "second", single, first)
    refused(capfd, ["tag", first, "x"], "is a member of itself")
    twice = ensemble_of(tmp_path / "twice", single, tmp_path / "." / "x" / ".." / "single")
    (tmp_path / "x").mkdir()
    refused(capfd, ["tag", twice, "x"], "two or more different runs")


def test_an_ensemble_is_not_made_into_a_circle(runs, tmp_path, capfd):
    both = tmp_path / "both"
    assert main(["ensemble", *map(str, runs), "--run_dir", str(both)]) == 0
    capfd.readouterr()
    above = tmp_path / "above"
    assert main(["ensemble", str(runs[0]), str(both), "--run_dir", str(above)]) == 0
    capfd.readouterr()
    before = everything_under(tmp_path)
    refused(capfd, ["ensemble", runs[1], above, "--run_dir", both], "is a member of itself")
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize("name", ["run_state.json", "data_audit.json", "evaluation/test/metrics.json"])
@pytest.mark.parametrize("content", [DEEP, '{"a": ' * 100_000, "", "[]", "{", "null", "\x00", b"\xff\xfe"])
def test_json_of_any_kind_is_refused_in_one_line(run, capfd, name, content):
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(capfd, ["report", run], f"{name} is damaged", "genre-lightning fit --run_dir")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (without("policies", "global"), "policies.global"),
        (setting("x", "policies", "per_genre", "f1_micro"), "f1_micro"),
        (without("threshold_free", "ece"), "threshold_free.ece"),
        (setting("many", "n"), "n is"),
        (setting([1], "intervals", "threshold_free", "ece"), "intervals.threshold_free.ece"),
        (setting(None, "decision"), "decision"),
        (setting([0], "undefined"), "undefined[0]"),
    ],
)
def test_metrics_of_another_shape_are_refused(run, capfd, change, word):
    edited(run / "evaluation" / "test" / "metrics.json", change)
    line = refused(capfd, ["report", run], "metrics.json is damaged", word)
    assert refused(capfd, ["report", run, "--paper"]) == line


@pytest.mark.parametrize("name", ["per_genre.csv", "thresholds.csv"])
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda text: "", "no column"),
        (lambda text: text.replace("f1", "f2"), "no column f1"),
        (lambda text: text[: len(text) // 2].rstrip(",") + ",x\n", "damaged"),
        (lambda text: text + "a,b\n", "cells"),
        (lambda text: text.replace("0.", "zero", 1), "in row 2"),
        (lambda text: text.replace("\n", "\n\ud800", 1), "damaged"),
        (lambda text: text + '"', "damaged"),
    ],
)
def test_tables_that_are_damaged_are_refused(run, capfd, name, damage, word):
    path = run / "evaluation" / "test" / name
    path.write_bytes(damage(path.read_text()).encode(errors="surrogatepass"))
    refused(capfd, ["report", run], f"{name} is damaged", word)


@pytest.mark.parametrize(
    "content",
    ["epoch,step,val_loss\n0,1,low\n", "epoch,step\n0,1,2,3\n", "epoch,step\n0,-1\n", "epoch,step\n0,inf\n", b"\xff\n"],
)
def test_curves_that_are_damaged_are_refused_and_can_be_deleted(run, capfd, content):
    path = run / "curves.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in ("report", "status"):
        refused(capfd, [command, run], "curves.csv is damaged", "delete it")
    path.unlink()
    for command in ("report", "status"):
        assert main([command, str(run)]) == 0


@pytest.mark.parametrize("content", ["{}", '{"job": 3}', '{"job": "x"}', '{"job": "1;rm"}', DEEP, "[]"])
def test_a_job_that_is_not_one_is_refused_and_can_be_deleted(run, capfd, content):
    path = run / "slurm" / "job.json"
    path.parent.mkdir()
    path.write_text(content)
    refused(capfd, ["status", run], "job.json is damaged", "delete it")
    path.unlink()
    assert main(["status", str(run)]) == 0


@pytest.mark.parametrize(
    "change",
    [
        setting("done", "status"),
        setting("many", "steps"),
        setting({"time": "x", "step": 1}, "start"),
        setting([], "data"),
        setting({"time": 1, "step": 1, "job": "x"}, "start"),
    ],
)
def test_a_state_that_is_not_one_is_refused(run, capfd, change):
    edited(run / "run_state.json", change)
    for command in ("report", "status"):
        refused(capfd, [command, run], "run_state.json is damaged", "delete it")


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [
        ("labels", 2, "labels"),
        ("logits", NAN, "NaN"),
        ("id", None, "empty cells"),
        ("genres", ["Opera"], "vocabulary lacks"),
    ],
)
def test_predictions_that_are_damaged_are_refused(run, capfd, column, value, word):
    import pyarrow as pa

    path = run / "evaluation" / "test" / "predictions.parquet"
    table = pq.read_table(path)
    rows = table[column].to_pylist()
    rows[0] = [value, *rows[0][1:]] if column in ("labels", "logits") else value
    field = table.schema.field(column)
    pq.write_table(table.set_column(table.column_names.index(column), field, pa.array(rows, field.type)), path)
    refused(capfd, ["report", run], word)


@pytest.mark.parametrize("vocabulary", [DEEP, "[1, 2, 3, 4]", "{}", '["a", "a", "b", "c"]', "x"])
def test_a_vocabulary_that_is_not_one_is_refused(run, capfd, vocabulary):
    path = run / "evaluation" / "test" / "predictions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"vocabulary": vocabulary}), path)
    refused(capfd, ["report", run], "predictions.parquet is damaged")


# fixes that messages name do work

EVALUATED = ("decision.json", "evaluation/test/metrics.json", "evaluation/test/predictions.parquet",
             "evaluation/validation/per_genre.csv", "evaluation/test/thresholds.csv")  # fmt: skip


@pytest.mark.parametrize("name", EVALUATED)
@pytest.mark.parametrize("damage", [lambda path: path.write_text("x"), Path.unlink], ids=["damaged", "missing"])
def test_the_command_that_made_a_run_repairs_it(nb, trained, capfd, monkeypatch, name, damage):
    without_page(monkeypatch)
    damage(nb / name)
    assert main(["baseline", "tfidf_nb", "--run_dir", str(nb)]) == 0
    assert "again" in capfd.readouterr().err
    ours, theirs = (read_decision(place / "decision.json").to_dict() for place in (nb, trained))
    assert ours == theirs
    for split in ("validation", "test"):
        metrics = [read_json(place / "evaluation" / split / "metrics.json") for place in (nb, trained)]
        assert metrics[0]["policies"] == metrics[1]["policies"]
    assert main(["baseline", "tfidf_nb", "--run_dir", str(nb)]) == 0
    assert "all is done" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["run_state.json", "data_audit.json"])
def test_state_and_audit_can_be_deleted_and_are_written_again(nb, trained, monkeypatch, name):
    without_page(monkeypatch)
    (nb / name).unlink()
    assert main(["baseline", "tfidf_nb", "--run_dir", str(nb)]) == 0
    ours, theirs = (read_json(place / name) for place in (nb, trained))
    assert ours.keys() == theirs.keys()
    assert main(["report", str(nb)]) == 0


@pytest.mark.parametrize("content", [DEEP, "[]"])
def test_a_decision_that_is_not_a_json_object_is_refused(nb, capfd, content):
    (nb / "decision.json").write_text(content)
    refused(capfd, ["tag", nb, TEXTS[0]], "decision.json is damaged", "genre-lightning baseline tfidf_nb --run_dir")


# the disk and its permissions


def full_disk(monkeypatch, ending):
    """Lets writes of files with an ending fail as they do on a full disk."""
    write = Path.write_bytes

    def failing(self, content):
        if self.suffix == ending:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", failing)


def test_a_full_disk_ends_report_compare_and_ensemble_in_one_line(runs, tmp_path, capfd, monkeypatch):
    before = everything_under(tmp_path)
    for ending, words in {
        ".html": ["report", runs[0]],
        ".md": ["compare", *runs],
        ".json": ["ensemble", *runs, "--run_dir", tmp_path / "both"],
    }.items():
        with monkeypatch.context() as patch:
            full_disk(patch, ending)
            the_line(capfd, 1, words, "No space left on device", "free space")
    assert {path: content for path, content in everything_under(tmp_path).items() if path in before} == before
    assert not list(tmp_path.rglob(".tmp-*"))
    assert main(["ensemble", *map(str, runs), "--run_dir", str(tmp_path / "both")]) == 0


def test_a_full_disk_ends_a_baseline_in_one_line_and_it_can_be_run_again(trained, tmp_path, capfd, monkeypatch):
    without_page(monkeypatch)
    words = ["baseline", "tfidf_nb", f"--data.csv={trained.parent / 'sample.csv'}", f"--run_dir={tmp_path / 'nb'}"]
    with monkeypatch.context() as patch:
        full_disk(patch, ".csv")
        the_line(capfd, 1, words, "evaluation/validation", "No space left on device", "run the same command again")
    assert not list((tmp_path / "nb").rglob(".tmp-*"))
    assert main(words) == 0


def test_read_only_places_are_refused_before_any_work(run, made, capfd, monkeypatch):
    second = made[1]
    before = everything_under(run.parent)

    def read_only(dir=None, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr("genre_lightning.files.tempfile.TemporaryFile", read_only)
    refused(capfd, ["report", run], "Read-only file system", "fix its permissions")
    refused(capfd, ["compare", run, second, "--out", run.parent / "out"], "Read-only file system", "--out")
    refused(capfd, ["ensemble", run, second, "--run_dir", run.parent / "both"], "Read-only", "--run_dir")
    assert everything_under(run.parent) == before


def unreadable(monkeypatch, name):
    """Lets a file be one that may not be read: the tests may run as a user who may read everything."""
    read, opened = Path.read_text, Path.open

    def denied(self):
        if self.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    def read_text(self, *args, **options):
        denied(self)
        return read(self, *args, **options)

    def open_it(self, *args, **options):
        denied(self)
        return opened(self, *args, **options)

    def open_by_name(file, *args, **options):
        if isinstance(file, str | os.PathLike):
            denied(Path(file))
        return open_builtin(file, *args, **options)

    open_builtin = open
    monkeypatch.setattr("builtins.open", open_by_name)
    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "open", open_it)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.yaml", "report"),
        ("config.yaml", "tag"),
        ("model.safetensors", "tag"),
        ("decision.json", "tag"),
        ("per_genre.csv", "report"),
        ("run_state.json", "status"),
    ],
)
def test_files_that_may_not_be_read_are_named(nb, capfd, monkeypatch, name, command):
    unreadable(monkeypatch, name)
    the_line(capfd, 2, [command, nb, *([TEXTS[0]] * (command == "tag"))], name, "Permission denied", "permissions")


def test_json_that_is_nested_deeply_is_damaged_wherever_it_is(nb, tmp_path, capfd):
    from safetensors.numpy import load_file, save_file

    from genre_lightning.cache import MANIFEST, build_once
    from genre_lightning.distributed.checkpoint.manifests import manifest_path, verify_checkpoint
    from genre_lightning.errors import CheckpointError

    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_text("x")
    manifest_path(checkpoint).write_text(DEEP)
    with pytest.raises(CheckpointError, match="use another checkpoint"):
        verify_checkpoint(checkpoint)
    folder, _ = build_once(tmp_path / "cache", "key", lambda place: {"n": 1})
    (folder / MANIFEST).write_text(DEEP)
    assert build_once(tmp_path / "cache", "key", lambda place: {"n": 2})[1] == {"n": 2}
    model = nb / "model.safetensors"
    save_file(load_file(model), model, {"facts": DEEP})
    edited(nb / "decision.json", lambda values: values.pop("checkpoint_sha256"))
    refused(capfd, ["tag", nb, "x"], "model.safetensors", "nested too deeply")
