"""Which films are to be labelled next."""

import csv
import json

import numpy as np
import pytest
from made_runs import refused

from genre_lightning.__main__ import main
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.data.splits import text_digests
from genre_lightning.escapes import split_names
from genre_lightning.inference.model_scorer import ModelScorer
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.learning.selection import diverse_films, score_films
from genre_lightning.learning.store import FeedbackStore


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def new_films(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("new") / "new.csv", films=150, seed=9)


def test_films_near_the_thresholds_score_highest():
    log_odds = np.array([[-9.0, 9.0], [-1.5, 9.0], [-1.0, 0.1]])
    thresholds = 1 / (1 + np.exp([1.5, 0.0]))
    found = score_films(log_odds, thresholds, np.array([50, 50]), rare_weight=0.3)
    assert found.uncertainty[1, 0] == pytest.approx(1)
    assert found.uncertainty[0, 0] == pytest.approx(4 * np.exp(-7.5) / (1 + np.exp(-7.5)) ** 2)
    assert np.argsort(-found.score).tolist() == [2, 1, 0]
    assert (found.rare == 0).all()  # neither genre is rarer than the median


def test_films_of_rare_genres_score_higher():
    log_odds = np.array([[3.0, -3.0, 0.0], [-3.0, 3.0, 0.0]])
    found = score_films(log_odds, np.full(3, 0.5), np.array([900, 9, 300]), rare_weight=0.3)
    assert found.score[1] > found.score[0]
    assert found.rare[1, 1] == pytest.approx(4 / (1 + np.exp(-3)))  # √(300 / 9) - 1 is over the limit
    equal = score_films(log_odds, np.full(3, 0.5), np.array([900, 9, 300]), rare_weight=0.0)
    assert equal.score[1] == pytest.approx(equal.score[0])


def test_each_kind_of_film_is_chosen_once_by_its_best():
    rng = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], [60, 5, 15])
    vectors = np.eye(3)[kind] + rng.normal(0, 0.01, (80, 3))
    scores = rng.uniform(0.1, 1, 80)
    chosen, like_it = diverse_films(vectors, scores, 3, seed=0)
    assert sorted(chosen.tolist()) == [int(np.flatnonzero(kind == k)[scores[kind == k].argmax()]) for k in range(3)]
    assert (np.diff(scores[chosen]) <= 0).all()
    assert like_it.tolist() == [np.bincount(kind)[kind[place]] for place in chosen]


def test_equal_films_fill_the_queue_by_their_scores():
    chosen, _ = diverse_films(np.ones((9, 2)), np.linspace(0.1, 0.9, 9), 4, seed=0)
    assert chosen.tolist() == [8, 7, 6, 5]


def test_pooled_states_are_what_the_head_reads(trained_encoder):
    scorer = open_scorer(trained_encoder, "cpu", "32-true")
    films = [{"title": "A", "overview": "war " * n} for n in (3, 40, 1, 7, 90, 2)]
    import torch

    with torch.inference_mode():
        logits = scorer.model.head(torch.from_numpy(scorer.pooled(films))).numpy()
    np.testing.assert_allclose(logits, scorer.logits(films), rtol=1e-5, atol=1e-6)
    assert scorer.pooled([]).shape == (0, 0)


@pytest.mark.parametrize("pools", [True, False])
def test_a_queue_is_written_filled_in_and_read_back(trained_encoder, new_films, tmp_path, monkeypatch, capfd, pools):
    monkeypatch.setattr(ModelScorer, "pools", pools)
    first, second, database = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "f.db"
    words = ["queue", str(trained_encoder), "--data.csv", str(new_films), "--size", "12", "--db", str(database)]
    for out in (first, second):
        assert main([*words, "--out", str(out)]) == 0
    assert first.read_bytes() == second.read_bytes()
    queue = rows(first)
    assert list(queue[0])[:8] == ["id", "title", "text", "suggested", "genres", "user", "reason", "score"]
    assert len({row["text"] for row in queue}) == 12
    assert all("undecided" in row["reason"] or "least clear" in row["reason"] for row in queue)
    assert [float(row["score"]) for row in queue] == sorted((float(row["score"]) for row in queue), reverse=True)
    for row, said in zip(queue, ["ok", "none", "Drama, War"], strict=False):
        row["genres"] = said
    with first.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(queue[0]), delimiter=";")  # as a spreadsheet program saves it
        writer.writeheader()
        writer.writerows(queue)
    place = ["--run", str(trained_encoder), "--db", str(database)]
    assert main(["feedback", "import", str(first), "--user", "anna", *place]) == 0
    assert "9 rows without genres" in capfd.readouterr().out
    with FeedbackStore(database) as store:
        stored = list(store.rows())
    assert [set(row.genres) for row in stored] == [
        set(split_names(queue[0]["suggested"])) - {"none"},
        set(),
        {"Drama", "War"},
    ]
    assert [(row.film, row.title, row.text) for row in stored] == [(r["id"], r["title"], r["text"]) for r in queue[:3]]
    assert (stored[0].run, stored[0].fields["title"]) == (str(trained_encoder), queue[0]["title"])
    assert main([*words, "--out", str(tmp_path / "c.csv")]) == 0
    assert not {row.text for row in stored} & {row["text"] for row in rows(tmp_path / "c.csv")}


def test_films_of_the_run_are_left_out(trained_encoder, new_films, tmp_path, capfd):
    known = set(KeptSplits.read(trained_encoder / "splits.parquet").digests)
    own = (trained_encoder.parent / "sample.csv").read_text()
    both = tmp_path / "both.csv"
    both.write_text(own + "".join(new_films.read_text().splitlines(keepends=True)[1:]))
    words = ["queue", trained_encoder, "--other_ids", "--data.csv"]
    assert main([*map(str, words), str(both), "--size", "1000", "--out", str(tmp_path / "q.csv")]) == 0
    queue = rows(tmp_path / "q.csv")
    assert len(queue) > 100
    assert not known & {row.tobytes() for row in text_digests(row["text"] for row in queue)}
    films = [row for row in rows(trained_encoder.parent / "sample.csv") if (row.get("overview") or "").strip()]
    kept = [row["overview"] for row in films if text_digests([row["overview"]]).tobytes() in known]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps({"overview": t, "title": ""}) + "\n" for t in kept))
    capfd.readouterr()
    refused(capfd, [*words, tmp_path / "known.jsonl", "--out", tmp_path / "r.csv"], "no film to label", "are known")


def test_a_queue_that_people_fill_in_is_not_overwritten(trained_encoder, new_films, tmp_path, capfd):
    out = tmp_path / "q.csv"
    out.write_text("genres\nDrama\n")
    words = ["queue", trained_encoder, "--data.csv", new_films]
    refused(capfd, [*words, "--out", out], "filled it in")
    assert out.read_text() == "genres\nDrama\n"
    refused(capfd, [*words, "--out", tmp_path / "q.txt"], ".csv")
    refused(capfd, [*words, "--out", tmp_path / "a.csv", "--size", "0"], "--size")
    refused(capfd, ["queue", trained_encoder, "--data.csv", tmp_path / "no.csv", "--out", tmp_path / "a.csv"], "no.csv")
    refused(capfd, [*words, "--data.columns.overview", "plot", "--out", tmp_path / "a.csv"], "plot")
    refused(capfd, ["queue", tmp_path, "--data.csv", new_films, "--out", tmp_path / "a.csv"], "run directory")
    assert list(tmp_path.iterdir()) == [out]
