"""A run that continues from a finished one, as its user starts it, cuts it off, and starts it again."""

import csv
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from csv_files import written
from made_runs import without_page as _without_page
from power_cuts import power_cut
from sklearn.metrics import f1_score
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions
from genre_lightning.config.data import DataOptions
from genre_lightning.data.continued import OldFilms
from genre_lightning.data.corrections import Correction
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.prepare import prepare_films, read_files
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.data.splits import text_digests
from genre_lightning.data.unlabelled import without_genres
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.report import report_values
from genre_lightning.evaluation.runs import Run
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.learning.pseudo_labels import cutoffs_of, pseudo_labels
from genre_lightning.learning.store import Feedback, FeedbackStore
from genre_lightning.learning.training_labels import joined_labels
from genre_lightning.models.metadata import CHECKPOINT_KEY
from genre_lightning.runs import RunDirectory

KEPT = ("Drama", "Comedy", "Thriller", "Action", "Romance")
NEW_GENRE = "Horror"
DISTILLED = ["--continue.distillation=0.5"]


@contextmanager
def pictureless():
    with pytest.MonkeyPatch.context() as patch:
        _without_page(patch)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Older films of five genres, and newer ones that are labelled for a sixth too; one old film is in both."""
    place = tmp_path_factory.mktemp("films")
    rows = []
    with write_sample(place / "sample.csv", films=600, seed=3).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = [name for name in (*KEPT, NEW_GENRE) if f"'{name}'" in row["genres"]]
            if names and row["id"].isdecimal() and row["overview"]:
                rows.append({**{n: row[n] for n in ("id", "title", "overview", "release_date")}, "genres": names})
    old, new = rows[:250], rows[250:400]
    without = [{**row, "genres": [name for name in row["genres"] if name != NEW_GENRE]} for row in old]
    kept = [{**row, "genres": "|".join(row["genres"])} for row in without if row["genres"]]
    newer = [{**row, "genres": "|".join(row["genres"])} for row in new]
    return written(place / "old.csv", kept), written(place / "new.csv", [*newer, kept[0]])


@pytest.fixture(scope="module")
def parent(files, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "old"
    with pictureless():
        assert main(["fit", f"--data.csv={files[0]}", f"--run_dir={place}", *SMALL]) == 0
    return place


def continue_from(parent, file, run_dir, *more):
    with pictureless():
        return main(["fit", "--continue_from", str(parent), f"--data.csv={file}", f"--run_dir={run_dir}", *more])


@pytest.fixture(scope="module")
def child(files, parent, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "new"
    assert continue_from(parent, files[1], place, *DISTILLED) == 0
    return place


def sides(run):
    table = pq.read_table(run / "splits.parquet").to_pydict()
    return dict(zip(table["id"], table["split"], strict=True))


def best(run, name="best"):
    return torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)


def test_old_films_keep_their_side_and_genres_grow(parent, child):
    before, now = sides(parent), sides(child)
    assert before.items() <= now.items()
    assert len(now) > len(before)
    genres = best(child)[CHECKPOINT_KEY]["genres"]
    assert set(genres) == {*best(parent)[CHECKPOINT_KEY]["genres"], NEW_GENRE}


def test_tokenizer_and_lowered_rates_are_the_parents(parent, child):
    name = "tokenizer.json"
    assert (child / "tokenizer" / name).read_bytes() == (parent / "tokenizer" / name).read_bytes()
    old, new = (yaml.safe_load((run / "config.yaml").read_text()) for run in (parent, child))
    rate = json.loads((parent / "run_state.json").read_text())["training"]["learning_rate"]
    assert new["model"]["init_args"]["lr"] == pytest.approx(rate / 3, rel=0.01)
    assert (old["trainer"]["max_epochs"], new["trainer"]["max_epochs"]) == (2, 1)
    assert new["data"]["older_csv"] == [old["data"]["csv"]]


def test_lineage_is_in_the_run_the_checkpoint_and_the_report(parent, child):
    sha256 = json.loads((parent / "checkpoints/best.ckpt.manifest.json").read_text())["sha256"]
    kept = best(child)[CHECKPOINT_KEY]["parent"]
    assert kept == {"run": str(parent), "checkpoint_sha256": sha256, "generation": 1}
    assert json.loads((child / "lineage.json").read_text())["checkpoint_sha256"] == sha256
    assert ("continues from", f"{parent.name}, checkpoint {sha256[:12]}") in report_values(Run(child), "test")["cost"]


def test_the_same_command_does_nothing_when_finished(files, parent, child, capsys):
    before = (child / "checkpoints/best.ckpt").stat().st_mtime_ns
    assert continue_from(parent, files[1], child, *DISTILLED) == 0
    assert "is finished" in capsys.readouterr().err
    assert (child / "checkpoints/best.ckpt").stat().st_mtime_ns == before


def test_a_finished_run_is_evaluated_again_without_its_parent(files, parent, child, tmp_path):
    copy = shutil.copytree(child, tmp_path / "copy")
    lineage = json.loads((copy / "lineage.json").read_text())
    (copy / "lineage.json").write_text(json.dumps({**lineage, "run": str(tmp_path / "gone")}))
    before = pq.read_table(copy / "evaluation/test/predictions.parquet").to_pandas()
    with pictureless():
        assert main(["test", str(copy)]) == 0
    now = pq.read_table(copy / "evaluation/test/predictions.parquet").to_pandas()
    np.testing.assert_array_equal(np.stack(before["logits"]), np.stack(now["logits"]))


def test_resumed_run_is_bit_identical(files, parent, child, tmp_path, monkeypatch):
    from genre_lightning.training.callbacks.checkpoints import RunCheckpoint

    stopped = tmp_path / "new"
    save = RunCheckpoint.on_train_batch_end

    def stop(self, trainer, *arguments):
        save(self, trainer, *arguments)
        if trainer.global_step == 8:
            raise OSError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "on_train_batch_end", stop)
        with pytest.raises(OSError, match="pulled"):
            continue_from(parent, files[1], stopped, *DISTILLED)
    assert best(stopped, "last")["global_step"] == 8
    assert continue_from(parent, files[1], stopped, *DISTILLED) == 0
    whole, resumed = best(child)["state_dict"], best(stopped)["state_dict"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def predicted(run):
    table = pq.read_table(run / "evaluation/test/predictions.parquet")
    genres = json.loads(table.schema.metadata[b"vocabulary"])
    return table.to_pandas().set_index("id"), genres


def test_old_films_are_unknown_for_a_genre_that_came_later(parent, child):
    films, genres = predicted(child)
    old = films.index.astype(str).isin(list(sides(parent)))
    known = np.stack(films["known"])
    column = genres.index(NEW_GENRE)
    assert old.any()
    assert not old.all()
    assert not known[old, column].any()
    assert known[~old, column].all()
    assert np.delete(known, column, axis=1).all()
    audit = json.loads((child / "data_audit.json").read_text())["splits"]["train"]
    assert audit["genres"][NEW_GENRE] <= audit["known"][NEW_GENRE] < audit["films"]
    weight = dict(zip(genres, best(child)[CHECKPOINT_KEY]["pos_weight"], strict=True))[NEW_GENRE]
    positives = audit["genres"][NEW_GENRE]
    assert weight == pytest.approx(((audit["known"][NEW_GENRE] - positives) / positives) ** 0.5, rel=1e-5)


def flooded(run, old):
    """The fraction of a parent's test films for which a continued run finds the new genre the likeliest."""
    films, genres = predicted(run)
    likeliest = np.stack(films.loc[films.index.astype(str).isin(old), "logits"]).argmax(axis=1)
    return np.mean(likeliest == genres.index(NEW_GENRE))


@pytest.mark.slow
def test_a_new_genre_floods_texts_without_a_mask_and_not_with_it(files, parent, tmp_path):
    # new films were labelled for the new genre alone: nobody said whether they are dramas
    with files[1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = [film for film, side in sides(parent).items() if side == "test"]
    found = {}
    for name, looked_for in (("masked", NEW_GENRE), ("unmasked", "|".join([*KEPT, NEW_GENRE]))):
        labelled = [
            {**row, "genres": NEW_GENRE if NEW_GENRE in row["genres"] else "", "looked_for": looked_for} for row in rows
        ]
        extra = written(tmp_path / f"{name}.csv", labelled)
        words = ["--data.known_genres=looked_for", f"--data.csv={with_column(files[0], tmp_path)}"]
        options = ["--continue.replay=0.1", "--model.lr=3e-3", "--trainer.max_epochs=6", "--model.pos_weight=none"]
        assert continue_from(parent, extra, tmp_path / name, *words, *options) == 0
        found[name] = flooded(tmp_path / name, held_out)
    assert found["unmasked"] > 0.5
    assert found["masked"] < 0.1


def with_column(file, folder):
    with file.open(newline="", encoding="utf-8") as content:
        return written(folder / "old.csv", [{**row, "looked_for": ""} for row in csv.DictReader(content)])


def test_the_run_is_compared_with_its_parent_on_the_old_test_films(files, parent, child, capsys):
    found = json.loads((child / "evaluation/against_parent.json").read_text())
    held_out = [film for film, side in sides(parent).items() if side == "test"]
    assert found["n"] == len(held_out)
    assert [row["name"] for row in found["genres"]] == sorted(KEPT)
    films, genres = predicted(parent)
    labels, decided = np.stack(films["labels"]), films["genres"]
    column = genres.index("Drama")
    given = np.array(["Drama" in names for names in decided])
    row = next(row for row in found["genres"] if row["name"] == "Drama")
    assert row["old"] == pytest.approx(f1_score(labels[:, column], given))
    capsys.readouterr()
    assert main(["compare", str(parent), str(child), "--out", str(child.parent / "compared"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["n"] == len(held_out)
    assert compared["lineage"][0].startswith(f"{child.name} continues from {parent.name}")


def test_a_run_that_is_worse_than_its_parent_exits_with_1(files, parent, child, tmp_path, capsys):
    copy = shutil.copytree(child, tmp_path / "copy")
    words = ["--continue_from", str(parent), f"--data.csv={files[1]}", f"--run_dir={copy}", *DISTILLED]
    assert main(["fit", *words, "--require_no_worse"]) == 0
    found = json.loads((copy / "evaluation/against_parent.json").read_text())
    found["genres"][0] |= {"worse": True, "p": 0.001}
    (copy / "evaluation/against_parent.json").write_text(json.dumps(found))
    capsys.readouterr()
    assert main(["fit", *words, "--require_no_worse"]) == 1
    assert f"significantly worse than the parent on its test films: {sorted(KEPT)[0]}" in capsys.readouterr().err
    assert main(["fit", *words]) == 0  # the flag is of one call


def test_require_no_worse_needs_a_parent(files, tmp_path, capsys):
    assert main(["fit", f"--data.csv={files[0]}", f"--run_dir={tmp_path / 'a'}", *SMALL, "--require_no_worse"]) == 2
    assert "name the parent with --continue_from" in capsys.readouterr().err


@pytest.mark.slow
def test_distillation_keeps_the_parents_probabilities_when_its_file_is_gone(files, parent, tmp_path, capsys):
    gone = shutil.copytree(parent, tmp_path / "old")
    settings = yaml.safe_load((gone / "config.yaml").read_text())
    settings["data"]["csv"] = str(tmp_path / "gone.csv")
    (gone / "config.yaml").write_text(yaml.safe_dump(settings))
    assert continue_from(gone, files[1], tmp_path / "refused") == 2
    assert "gone.csv, with films of" in capsys.readouterr().err
    moved = {}
    for name, weight in (("kept", 5), ("free", 0)):
        options = ["--continue.replay=none", f"--continue.distillation={weight}", "--model.lr=3e-3"]
        assert continue_from(gone, files[1], tmp_path / name, *options) == 0
        assert not json.loads((tmp_path / name / "data_audit.json").read_text())["file"].endswith("old.csv")
        moved[name] = distance(parent, tmp_path / name)
    # each run's calibration, fitted on its own validation films, adds to both distances
    assert moved["kept"] < 0.9 * moved["free"]


def distance(parent, run):
    """The mean distance between the probabilities of a run and of its parent on the run's own test films."""
    from genre_lightning.inference.tagger import Tagger

    texts = predicted(run)[0]["text"].tolist()
    tags = [Tagger(place)(texts) for place in (parent, run)]
    rows = [[[tagged.probabilities[genre] for genre in KEPT] for tagged in of_run] for of_run in tags]
    return np.abs(np.array(rows[0]) - np.array(rows[1])).mean()


def test_a_run_continues_from_a_continued_one(files, parent, child, tmp_path):
    place = tmp_path / "third"
    assert continue_from(child, files[1], place, "--continue.replay=0.2") == 0
    assert sides(child).items() <= sides(place).items()
    assert best(place)[CHECKPOINT_KEY]["parent"]["generation"] == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model.backbone=distilbert-base-uncased"], "model.backbone is 'distilbert-base-uncased'"),
        (["--model.architecture.layers=2"], "model.architecture.layers is 2"),
        (["--data.tokenizer=bert-base-uncased"], "data.tokenizer is 'bert-base-uncased'"),
        (["--data.split=[0.6,0.2,0.2]"], "data.split is"),
        (["--continue.replay=1.5"], "continue.replay is 1.5"),
    ],
)
def test_settings_that_contradict_the_parent_are_refused(files, parent, tmp_path, capsys, more, said):
    assert continue_from(parent, files[1], tmp_path / "new", *more) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "new").exists()


def damage(run):
    with (run / "checkpoints/best.ckpt").open("ab") as file:
        file.write(b"x")


def unfinish(run):
    state = json.loads((run / "run_state.json").read_text())
    (run / "run_state.json").write_text(json.dumps({**state, "status": "training"}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (shutil.rmtree, "is not a run directory"),
        (unfinish, "has not finished (it is training)"),
        (damage, "is damaged"),
        (lambda run: (run / "splits.parquet").unlink(), "the side of each film"),
    ],
)
def test_a_parent_that_cannot_be_used_is_refused(files, parent, tmp_path, capsys, harm, said):
    copy = shutil.copytree(parent, tmp_path / "old")
    harm(copy)
    assert continue_from(copy, files[1], tmp_path / "new") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_genre_that_disappears_needs_a_flag(files, parent, tmp_path, capsys):
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "Romance" not in row["genres"]]
    fewer = written(tmp_path / "fewer.csv", rows)
    words = [f"--data.csv={fewer}"]  # the older file is the same, so that the parent's is left out
    assert continue_from(parent, fewer, tmp_path / "new", *words) == 2
    assert "has Romance, which" in capsys.readouterr().err
    assert continue_from(parent, fewer, tmp_path / "new", *words, "--continue.drop_genres=true") == 0
    assert "Romance" not in best(tmp_path / "new")[CHECKPOINT_KEY]["genres"]


def opinion(row, genres, user="anna"):
    return Feedback(row["overview"], tuple(genres), user, "2026-01-01T00:00:00Z", "import", title=row["title"])


def test_feedback_is_trained_on_and_never_held_out(files, parent, tmp_path):
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    by_side = {side: [name for name, of in sides(parent).items() if of == side] for side in ("train", "test")}
    trained, held_out = rows[by_side["train"][0]], rows[by_side["test"][0]]
    unseen = {"overview": "A wizard and a cook open an inn at the end of the world.", "title": "The Inn"}
    database = tmp_path / "feedback.db"
    with FeedbackStore(database, write=True) as store:
        store.add([opinion(trained, ["Romance"]), opinion(held_out, ["Romance"]), opinion(unseen, ["Comedy", "Drama"])])
    words = [f"--feedback={database}", "--continue.replay=0.3", "--continue.feedback_weights={import: 0.5}"]
    place = tmp_path / "new"
    assert continue_from(parent, files[1], place, *words) == 0
    kept = [json.loads(line) for line in (place / "feedback.jsonl").read_text().splitlines()]
    assert {one["weight"] for one in kept} == {0.5}
    notes = json.loads((place / "data_audit.json").read_text())["notes"]
    assert any("feedback on 2 films is trained on; on 1 films of the validation and test" in note for note in notes)
    assert sides(parent).items() <= sides(place).items()
    assert {side for name, side in sides(place).items() if int(name) < 0} == {"train"}
    films, _ = predicted(place)
    old, _ = predicted(parent)
    name = int(held_out["id"])
    assert set(films.loc[name, "true_genres"]) == set(old.loc[name, "true_genres"])
    # what was said is the run's own now: the database may go
    database.unlink()
    for command in ("validate", "test"):
        with pictureless():
            assert main([command, str(place)]) == 0
    assert continue_from(parent, files[1], place, *words) == 0


def test_corrections_replace_genres_and_weigh_in_the_loss(files, parent, tmp_path):
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    name = next(name for name, side in sides(parent).items() if side == "train")
    said = [Correction(rows[name]["overview"], ("Romance",), 0.25, "", {})]
    old = OldFilms("runs/old", KeptSplits.read(parent / "splits.parquet"), tuple(sorted(KEPT)))
    options = DataOptions(csv=files[1], older_csv=[files[0]], cache_dir=tmp_path)
    data = prepare_films(options, old=old, corrections=said)
    train = data.splits["train"]
    place = data.films.ids[data.rows[train.films]].tolist().index(int(name))
    assert [data.vocabulary.names[column] for column in np.flatnonzero(train.labels[place])] == ["Romance"]
    assert train.weights[place] == 0.25
    assert np.delete(train.weights, place).min() == 1
    assert all(data.splits[split].weights is None for split in ("validation", "test"))


@pytest.mark.parametrize("content", [None, b"not a database"])
def test_feedback_that_cannot_be_used_is_refused(files, parent, tmp_path, capsys, content):
    database = tmp_path / "feedback.db"
    if content is not None:
        database.write_bytes(content)
    assert continue_from(parent, files[1], tmp_path / "new", f"--feedback={database}") == 2
    assert "feedback" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main(["fit", f"--data.csv={files[0]}", f"--run_dir={tmp_path / 'a'}", *SMALL, f"--feedback={database}"]) == 2
    assert "name it with --continue_from" in capsys.readouterr().err


def test_a_job_continues_with_the_parents_settings(files, parent, tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 42\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(parent.parent)
    run = tmp_path / "job"
    words = ["--continue_from", parent.name, f"--data.csv={files[1]}", f"--run_dir={run}", "--gpus-per-node=0"]
    assert main(["submit", *words]) == 0
    [frozen] = (run / "slurm").glob("config-*.yaml")
    settings = yaml.safe_load(frozen.read_text())
    assert settings["continue_from"] == str(parent)  # a job runs in another directory
    assert settings["model"]["init_args"]["architecture"]["width"] == 32
    assert settings["data"]["older_csv"] == [str(files[0])]


@pytest.fixture(scope="module")
def self_trained(files, parent, tmp_path_factory):
    """A run that learns from films without genres, of which one has a test text and one a training text."""
    place = tmp_path_factory.mktemp("self-training")
    with files[1].open(newline="", encoding="utf-8") as file:
        rows = [{**row, "genres": ""} for row in csv.DictReader(file)]
    with files[0].open(newline="", encoding="utf-8") as file:
        old = {row["id"]: row for row in csv.DictReader(file)}
    for number, side in enumerate(("test", "train")):
        name = next(name for name, its in sides(parent).items() if its == side)
        rows.append({**old[name], "id": 900_000 + number, "genres": ""})
    unlabelled = written(place / "unlabelled.csv", rows)
    words = [f"--data.unlabelled={unlabelled}", *SURE]
    assert continue_from(parent, files[0], place / "run", *words) == 0
    return place / "run"


SURE = ["--self_training.precision=0.5", "--self_training.negative_precision=0.8", "--self_training.weight=0.5"]


def test_pseudo_labels_are_trained_on_and_nowhere_else(parent, self_trained):
    audit = json.loads((self_trained / "data_audit.json").read_text())
    counts = audit["pseudo_labels"]
    assert counts["films"] > 10
    assert 0 < sum(counts["genres"].values()) <= sum(counts["known"].values()) < counts["films"] * len(KEPT)
    assert any(f"pseudo-labels of {counts['films']:,} films" in note for note in audit["notes"])
    before, after = sides(parent), sides(self_trained)
    new = {name: side for name, side in after.items() if name not in before}
    assert len(new) == counts["films"]
    assert set(new.values()) == {"train"}
    assert {name: after[name] for name in before} == before
    kept = [json.loads(line) for line in (self_trained / "feedback.jsonl").read_text().splitlines()]
    assert all(0 < one["weight"] <= 0.5 for one in kept)
    assert all(set(one["genres"]) <= set(one["known"]) for one in kept)
    parents = set(KeptSplits.read(parent / "splits.parquet").digests)
    assert not parents & {digest.tobytes() for digest in text_digests(one["text"] for one in kept)}


def test_the_next_round_labels_the_same_films_again(files, self_trained):
    settings = yaml.safe_load((self_trained / "config.yaml").read_text())["data"]
    options = DataOptions(csv=files[0], unlabelled=settings["unlabelled"], cache_dir=self_trained / "cache")
    options.columns, options.genre_separator = None, "|"
    found = pseudo_labels(options, RunDirectory(self_trained), SelfTrainingOptions(precision=0.5))
    before = [json.loads(line)["text"] for line in (self_trained / "feedback.jsonl").read_text().splitlines()]
    assert {one.text for one in found} & set(before)


def test_films_without_labels_need_no_ids(files, parent, self_trained, tmp_path):
    with (self_trained.parent / "unlabelled.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: cell for name, cell in row.items() if name != "id"} for row in csv.DictReader(file)]
    bare = tmp_path / "bare.csv"
    with bare.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    # the parent's films have the numbers of its rows
    kept = KeptSplits.read(parent / "splits.parquet")
    copy = shutil.copytree(parent, tmp_path / "parent")
    replace(kept, ids=[str(n) for n in range(1, len(kept.ids) + 1)]).write(copy / "splits.parquet")
    options = DataOptions(csv=files[0], unlabelled=str(bare), cache_dir=tmp_path / "cache")
    options.columns, options.genre_separator = None, "|"
    settings = SelfTrainingOptions(precision=0.5, negative_precision=0.8)
    found = pseudo_labels(options, RunDirectory(copy), settings)
    before = [json.loads(line)["text"] for line in (self_trained / "feedback.jsonl").read_text().splitlines()]
    assert [one.text for one in found] == before


def test_a_labeller_that_has_seen_held_out_films_is_refused(files, parent, self_trained, tmp_path, capsys):
    words = ["--data.seed=5", f"--run_dir={tmp_path / 'nb'}", "--data.genre_separator=|"]
    assert main(["baseline", "tfidf_nb", f"--data.csv={files[0]}", *words]) == 0
    unlabelled = self_trained.parent / "unlabelled.csv"
    words = [f"--data.unlabelled={unlabelled}", *SURE, f"--self_training.teacher={tmp_path / 'nb'}"]
    assert continue_from(parent, files[0], tmp_path / "run", *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "self_training.teacher" in said
    assert "of this run's validation and test films" in said
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def rounds(files, parent, self_trained, tmp_path_factory):
    """Two rounds, of which the second was cut off and resumed."""
    place = tmp_path_factory.mktemp("rounds") / "all"
    unlabelled = self_trained.parent / "unlabelled.csv"
    words = [f"--data.unlabelled={unlabelled}", *SURE, "--self_training.rounds=2"]
    with power_cut(6, run="round-2"):
        continue_from(parent, files[0], place, *words)
    first = (place / "round-1/checkpoints/best.ckpt").stat().st_mtime_ns
    assert continue_from(parent, files[0], place, *words, "--json") == 0
    assert (place / "round-1/checkpoints/best.ckpt").stat().st_mtime_ns == first
    return place


@pytest.mark.slow  # three trainings
def test_each_round_is_a_run_whose_teacher_is_the_round_before(parent, rounds, self_trained, capsys):
    assert {path.name for path in rounds.iterdir()} == {"round-1", "round-2"}
    for number, before in ((1, parent), (2, rounds / "round-1")):
        run = rounds / f"round-{number}"
        lineage = json.loads((run / "lineage.json").read_text())
        assert (lineage["run"], lineage["generation"]) == (str(before), number)
        assert json.loads((run / "run_state.json").read_text())["status"] == "finished"
        assert json.loads((run / "evaluation/against_parent.json").read_text())["parent"] == str(before)
    settings = [yaml.safe_load((rounds / f"round-{number}/config.yaml").read_text()) for number in (1, 2)]
    assert [one["self_training"]["rounds"] for one in settings] == [1, 1]
    assert settings[0]["model"] == settings[1]["model"]
    assert json.loads((rounds / "round-2/run_state.json").read_text())["starts"] == 2
    labels = [(run / "feedback.jsonl").read_text() for run in (rounds / "round-1", rounds / "round-2")]
    assert labels[0] != labels[1]
    # a single round is the run that a command without rounds makes
    one, alone = (best(run)["state_dict"] for run in (rounds / "round-1", self_trained))
    assert all(torch.equal(one[name], alone[name]) for name in alone)
    assert main(["status", f"{rounds}/*"]) == 0
    assert capsys.readouterr().out.count("finished") == 2


@pytest.mark.slow
def test_a_cut_off_round_is_resumed_exactly(files, rounds, tmp_path):
    config = rounds / "round-2/config.yaml"
    words = ["--config", str(config), f"--data.csv={files[0]}", f"--run_dir={tmp_path / 'uncut'}"]
    with pictureless():
        assert main(["fit", *words]) == 0
    one, other = (best(run)["state_dict"] for run in (rounds / "round-2", tmp_path / "uncut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data.unlabelled=null"], "name them with --data.unlabelled"),
        (["--data.max_films=10"], "data.max_films"),
        (["--trainer.devices=2"], "rounds are trained on one device"),
        (["--self_training.rounds=0"], "self_training.rounds is 0"),
        (["--data.split=[0.9,0.1]"], "data.split"),
    ],
)
def test_rounds_that_cannot_be_trained_are_refused(files, parent, tmp_path, capsys, words, reason):
    given = ["--data.unlabelled=main", "--self_training.rounds=2", *words]
    assert continue_from(parent, files[0], tmp_path / "run", *given) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_later_round_is_checked_before_the_first(files, parent, tmp_path, capsys):
    words = ["--data.unlabelled=main", "--self_training.rounds=3"]
    (tmp_path / "round-3").mkdir()
    (tmp_path / "round-3/notes.txt").write_text("mine")
    assert continue_from(parent, files[0], tmp_path, *words) == 2
    assert "round-3 holds other files" in capsys.readouterr().err
    assert not (tmp_path / "round-1").exists()
    assert continue_from(parent, files[0], parent, *words) == 2


def test_other_commands_refuse_rounds(files, parent, tmp_path, capsys):
    words = [f"--data.csv={files[0]}", f"--run_dir={tmp_path / 'run'}", "--continue_from", str(parent)]
    assert main(["submit", "--dry-run", *words, "--data.unlabelled=main", "--self_training.rounds=2"]) == 2
    assert "only 'genre-lightning fit' trains them" in capsys.readouterr().err


def test_an_ensemble_teaches_in_place_of_the_parent(files, parent, self_trained, tmp_path):
    with pictureless():
        assert main(["ensemble", str(parent), str(self_trained), f"--run_dir={tmp_path / 'both'}"]) == 0
    options = DataOptions(
        csv=files[0], unlabelled=str(self_trained.parent / "unlabelled.csv"), cache_dir=tmp_path / "cache"
    )
    options.columns, options.genre_separator = None, "|"
    settings = SelfTrainingOptions(teacher=tmp_path / "both", precision=0.5, negative_precision=0.8)
    found = pseudo_labels(options, RunDirectory(parent), settings)
    cutoffs, _ = cutoffs_of(RunDirectory(tmp_path / "both"), settings)
    scorer = open_scorer(tmp_path / "both")
    logits = scorer.logits([{"overview": one.text, **one.fields} for one in found])
    probabilities = scorer.decision.probabilities(logits)
    genres = np.array(scorer.decision.genres)
    for one, row in zip(found, probabilities, strict=True):
        assert set(one.genres) == set(genres[row >= cutoffs.upper].tolist())
        assert one.weight == pytest.approx(float(row[row >= cutoffs.upper].mean()), abs=1e-3)


def test_films_of_the_main_file_without_genres_are_found(files, tmp_path):
    with files[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["genres"] = rows[5]["genres"] = ""
    options = DataOptions(csv=written(tmp_path / "films.csv", rows), cache_dir=tmp_path / "cache")
    films, without = without_genres(options, read_files(options))
    assert films.ids[without].tolist() == [int(rows[0]["id"]), int(rows[5]["id"])]


def test_a_filled_in_queue_is_joined_with_stored_feedback(parent, tmp_path):
    text, genres = "A film that nobody has seen.", (KEPT[0],)
    with FeedbackStore(tmp_path / "feedback.db", write=True) as store:
        store.add([Feedback(text, genres, "anna", "2026-01-01T00:00:00Z", "tag")], KEPT)
    row = {"id": 1, "title": "One", "text": text, "suggested": KEPT[1], "genres": KEPT[1], "user": "ben"}
    queue = written(tmp_path / "queue.csv", [row, {**row, "id": 2, "text": "Another.", "genres": "ok", "user": ""},
                                           {**row, "id": 3, "text": "Not yet.", "genres": ""}])  # fmt: skip
    found, added = joined_labels(queue, tmp_path / "feedback.db", RunDirectory(parent), ContinueOptions())
    assert {one.text: one.genres for one in found} == {text: (KEPT[1],), "Another.": (KEPT[1],)}
    ((before, after),) = added.conflicts
    assert (before.user, before.genres, after.user, after.genres) == ("anna", genres, "ben", (KEPT[1],))
    with FeedbackStore(tmp_path / "feedback.db") as store:
        assert len(list(store.rows())) == 1


def test_labels_without_a_user_need_a_login_name(parent, tmp_path, monkeypatch):
    def getuser():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", getuser)
    rows = [{"text": "A wizard opens an inn.", "genres": "Drama", "user": "anna"}]
    named = written(tmp_path / "named.csv", rows)
    found, _ = joined_labels(named, None, RunDirectory(parent), ContinueOptions())
    assert [one.genres for one in found] == [("Drama",)]
    bare = written(tmp_path / "bare.csv", [{**rows[0], "user": ""}])
    with pytest.raises(ConfigError, match=r"no login name: add a column user to .*bare\.csv"):
        joined_labels(bare, None, RunDirectory(parent), ContinueOptions())


def test_labels_reach_the_training(files, parent, tmp_path, capsys):
    row = {"id": 1, "title": "One", "text": "A man and a woman.", "genres": KEPT[1], "user": "ben"}
    queue = written(tmp_path / "queue.csv", [row])
    words = ["--trainer.max_epochs=1", f"--labels={queue}"]
    assert continue_from(parent, files[0], tmp_path / "run", *words) == 0
    assert "1 opinions, 0 conflicts" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/feedback.jsonl").read_text())["genres"] == [KEPT[1]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data.unlabelled=main"], "none of 0 films of data.unlabelled gets a genre"),
        (["--data.unlabelled=nowhere.csv"], "nowhere.csv"),
        (["--data.unlabelled=main", "--self_training.precision=0.2"], "self_training.precision is 0.2"),
        (["--labels=nowhere.csv"], "nowhere.csv"),
    ],
)
def test_labels_that_cannot_be_had_are_refused(files, parent, tmp_path, capsys, words, reason):
    assert continue_from(parent, files[0], tmp_path / "run", *words) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pseudo_labels_need_a_run(files, tmp_path, capsys):
    words = ["fit", f"--data.csv={files[0]}", f"--run_dir={tmp_path / 'run'}", *SMALL, "--data.unlabelled=main"]
    assert main(words) == 2
    assert "name that run with --continue_from" in capsys.readouterr().err
