"""A student of a trained run, and of tables that runs of other folds make."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_runs import everything_under, refused, without_page
from power_cuts import power_cut, weights
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.config.data import DataOptions
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.inference.soft_labels import SoftLabels
from genre_lightning.models.tfidf import read_baseline
from genre_lightning.runs import RunDirectory
from genre_lightning.training.teacher import _kept, _mean, _of_table

FIT = [*SMALL, "--data.text={title}. {overview}"]


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        yield


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("films") / "films.csv", films=120, seed=4)


@pytest.fixture(scope="module")
def teacher(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "teacher"
    assert main(["baseline", "tfidf_nb", f"--data.csv={sample}", f"--run_dir={place}"]) == 0
    return place


@pytest.fixture(scope="module")
def folds(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("folds")
    words = [f"--data.csv={sample}", f"--run_dir={place}", "--folds=2", *FIT, "--trainer.max_epochs=1"]
    assert main(["folds", *words]) == 0
    return place


def fit(sample, run_dir, *more):
    return main(["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", *FIT, *map(str, more)])


def training_films(sample, **options):
    data = prepare_films(DataOptions(csv=sample, **options))
    return data, data.rows[data.splits["train"].films]


def test_a_student_resumes_to_the_bit_without_its_teacher(sample, teacher, tmp_path, capfd):
    assert fit(sample, tmp_path / "whole", f"--model.teacher={teacher}") == 0
    assert "was trained on 101 of the 101 training films" in capfd.readouterr().err
    moved = shutil.copytree(teacher, tmp_path / "teacher")
    with power_cut(7):
        fit(sample, tmp_path / "cut", f"--model.teacher={moved}")
    shutil.rmtree(moved)
    assert main(["fit", f"--run_dir={tmp_path / 'cut'}"]) == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    # and what it has learnt are the calibrated log-odds of the training films
    data, rows = training_films(sample)
    decision = read_decision(teacher / "decision.json")
    scale, shift = decision.affine
    raw = read_baseline(RunDirectory(teacher).baseline).logits(data.films.strings("overview", rows))
    kept = np.load(tmp_path / "whole/distillation.npz")["log_odds"]
    np.testing.assert_allclose(kept, raw * scale + shift, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_kept_probabilities_that_are_damaged_are_asked_for_again(tmp_path, content):
    (tmp_path / "distillation.npz").write_bytes(content)
    assert _kept(tmp_path / "distillation.npz", "key") is None


def test_folds_predict_films_that_they_were_not_trained_on(sample, folds, capfd):
    table = SoftLabels.read(folds / "logits.parquet")
    data, rows = training_films(sample)
    assert list(table.ids) == list(map(str, data.films.ids[rows]))
    for fold in (1, 2):
        left = np.flatnonzero(np.array(table.folds) == fold)
        own, of_own = training_films(sample, fold=f"{fold}/2")
        assert {*own.films.ids[of_own].tolist()} == {*data.films.ids[np.delete(rows, left)].tolist()}
        scorer = open_scorer(folds / f"fold-{fold}")
        texts = zip(data.films.strings("title", rows[left]), data.films.strings("overview", rows[left]), strict=True)
        scale, shift = scorer.decision.affine
        logits = scorer.logits([{"title": title, "overview": overview} for title, overview in texts])
        np.testing.assert_allclose(table.log_odds[left], logits * scale + shift, rtol=1e-4, atol=1e-4)
    assert set(table.made["checkpoints"]) == {str(folds / "fold-1"), str(folds / "fold-2")}
    capfd.readouterr()
    words = [f"--data.csv={sample}", f"--run_dir={folds}", "--folds=2", *FIT, "--trainer.max_epochs=1", "--json"]
    assert main(["folds", *words]) == 0  # nothing is trained again
    assert '"films": 101' in capfd.readouterr().out


def test_a_student_takes_a_table_of_folds(sample, folds, tmp_path, capfd):
    table = folds / "logits.parquet"
    assert fit(sample, tmp_path / "run", f"--model.teacher={table}", "--trainer.max_epochs=1") == 0
    said = capfd.readouterr().err
    assert "101 of 101 training films" in said
    assert "was trained on" not in said
    assert not np.isnan(np.load(tmp_path / "run/distillation.npz")["log_odds"]).any()


def test_a_student_takes_the_mean_of_several_teachers(sample, teacher, folds, tmp_path, capfd):
    words = [f"--data.csv={sample}", f"--run_dir={tmp_path / 'words'}", "--folds=2", "--baseline=tfidf_nb"]
    assert main(["folds", *words, "--data.text={title}. {overview}"]) == 0
    tables = [folds / "logits.parquet", tmp_path / "words/logits.parquet"]
    one, other = map(SoftLabels.read, tables)
    # the baseline of a fold is the baseline that is trained on the other films alone
    _, rows = training_films(sample, fold="1/2", text="{title}. {overview}")
    assert other.folds == one.folds
    left = np.flatnonzero(np.array(other.folds) == 1)
    run = RunDirectory(tmp_path / "words/fold-1")
    everyone, of_all = training_films(sample, text="{title}. {overview}")
    raw = read_baseline(run.baseline).logits(everyone.films.strings("text", of_all[left]))
    scale, shift = read_decision(run.decision).affine
    np.testing.assert_allclose(other.log_odds[left], raw * scale + shift, rtol=1e-4, atol=1e-4)
    assert len(rows) == len(of_all) - len(left)
    # a run in a list is a teacher, too
    capfd.readouterr()
    named = "[" + ", ".join(map(str, [*tables, teacher])) + "]"
    assert fit(sample, tmp_path / "run", f"--model.teacher={named}", "--trainer.max_epochs=1") == 0
    assert capfd.readouterr().err.count("of 101 training films, 20 of 20 genres") == 3
    assert fit(sample, tmp_path / "alone", f"--model.teacher={teacher}", "--trainer.max_epochs=1") == 0
    own = np.load(tmp_path / "alone/distillation.npz")["log_odds"].astype(np.float64)
    kept = np.load(tmp_path / "run/distillation.npz")["log_odds"]
    np.testing.assert_allclose(kept, (one.log_odds + other.log_odds + own) / 3, rtol=2e-3, atol=5e-3)
    assert fit(sample, tmp_path / "run", f"--model.teacher={named}", "--trainer.max_epochs=1") == 0
    assert "is finished" in capfd.readouterr().err


def test_a_genre_that_one_teacher_does_not_know_is_learnt_from_the_others():
    unknown = np.nan
    found = _mean([np.array([[1.0, unknown, unknown]]), np.array([[3.0, 2.0, unknown]])])
    np.testing.assert_array_equal(found, [[2.0, 2.0, unknown]])


def test_a_teacher_of_held_out_films_is_refused(sample, teacher, folds, tmp_path, capfd):
    for bad in (teacher, folds / "logits.parquet"):
        words = ["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'run'}", "--data.seed=1", *FIT]
        assert main([*words, f"--model.teacher={bad}"]) == 2
        assert "validation and test films" in capfd.readouterr().err.splitlines()[-1]
        assert not everything_under(tmp_path)


def test_a_row_of_a_table_counts_for_its_own_text_alone(sample, folds, tmp_path):
    table = SoftLabels.read(folds / "logits.parquet")
    data, _ = training_films(sample)
    swapped = [table.digests[1], table.digests[0], *table.digests[2:]]
    path = tmp_path / "swapped.parquet"
    replace(table, digests=swapped).write(path)
    _, log_odds = _of_table(path, data)
    np.testing.assert_array_equal(np.isnan(log_odds).all(axis=1), [True, True, *[False] * (len(swapped) - 2)])
    # of a file without ids the text decides
    data.films = replace(data.films, numbered=True)
    _, log_odds = _of_table(path, data)
    np.testing.assert_array_equal(log_odds[:2], table.log_odds[1::-1])


def test_impossible_teachers_are_refused(sample, folds, tmp_path, capfd):
    words = ["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'run'}", *FIT]

    def refuses(*more, about):
        assert main([*words, *more]) == 2
        assert about in capfd.readouterr().err.splitlines()[-1]

    refuses(f"--model.teacher={tmp_path / 'gone'}", about="neither a run directory nor a table")
    refuses(f"--model.teacher={tmp_path / 'gone.parquet'}", about="gone.parquet")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes((folds / "logits.parquet").read_bytes()[:-100])
    refuses(f"--model.teacher={damaged}", about="make it again with 'genre-lightning folds'")
    refuses(f"--model.teacher=[{folds / 'logits.parquet'}, {tmp_path / 'gone'}]", about="neither a run directory")
    refuses("--model.teacher=[]", about="model.teacher is an empty list")
    refuses("--data.fold=3/2", about="data.fold is '3/2'")
    more = [f"--data.csv={sample}", f"--run_dir={tmp_path / 'folds'}", *FIT]
    refused(capfd, ["folds", *more, "--trainer.devices=2"], "trainer.devices is 2")
    refused(capfd, ["folds", *more, "--data.fold=1/5"], "--data.fold is not for folds")
    assert not (tmp_path / "run").exists()


def test_folds_share_no_text_and_no_held_out_film(sample):
    whole, _ = training_films(sample)
    parts = [prepare_films(DataOptions(csv=sample, fold=f"{number}/3")) for number in (1, 2, 3)]
    trained = [set(part.splits["train"].films.tolist()) for part in parts]
    everything = set(whole.splits["train"].films.tolist())
    left = [everything - part for part in trained]
    assert set().union(*left) == everything
    assert sum(map(len, left)) == len(everything)
    assert max(map(len, left)) < 1.5 * min(map(len, left))  # few films, and each genre is spread by itself
    for part in parts:
        for split in ("validation", "test"):
            assert part.splits[split].sha256 == whole.splits[split].sha256
    assert "fold 1/3 of the training films is left out" in " ".join(parts[0].audit["notes"])
    with pytest.raises(DataError, match="do not make 100 folds"):
        prepare_films(DataOptions(csv=sample, max_films=40, fold="100/100"))
    with pytest.raises(ConfigError, match=r"data\.fold"):
        prepare_films(DataOptions(csv=sample, fold="1/101"))
