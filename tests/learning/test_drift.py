"""Drift: found if it was made, and not if nothing has changed."""

import csv
import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from made_runs import refused
from scipy.stats import chi2, false_discovery_control
from sklearn.metrics import roc_auc_score

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.evaluation.bootstrap import holm
from genre_lightning.learning.drift import (
    Tagged,
    compare_calibration,
    compare_rates,
    compare_texts,
    find_drift,
    population_stability,
)

GENRES = ("Comedy", "Drama", "War")


def tagged(
    films, seed, *, rates=(0.3, 0.5, 0.1), words=40, labelled=True, skill=3.0, bias=0.0, new_genres=MappingProxyType({})
):
    """Films whose probabilities are right, unless `bias` moves their log-odds."""
    rng = np.random.default_rng(seed)
    log_odds = np.log(np.array(rates) / (1 - np.array(rates))) + rng.normal(0, skill, (films, 3))
    labels = rng.random((films, 3)) < 1 / (1 + np.exp(-log_odds))
    probabilities = 1 / (1 + np.exp(-log_odds - bias))
    known = [f"{'abcdefghij'[i]}{'klmnopqrst'[j]}" for i in range(10) for j in range(10)]
    texts = [" ".join(rng.choice(known, rng.poisson(words))) for _ in range(films)]
    flags = np.full(films, labelled)
    return Tagged(texts, probabilities, probabilities >= 0.5, labels, flags, new_genres=new_genres)


def test_holm_is_the_step_down_method():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    p = np.random.default_rng(0).random(20) ** 3
    assert (holm(p) >= false_discovery_control(p) - 1e-12).all()


def test_stability_of_equal_samples_is_chi_squared():
    rng = np.random.default_rng(0)
    p_values = [population_stability(rng.normal(size=400), rng.normal(size=600))[1] for _ in range(400)]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    psi, p = population_stability(rng.normal(size=400), rng.normal(1, 1, size=600))
    assert psi > 0.25
    assert p == pytest.approx(chi2.sf(psi / (1 / 400 + 1 / 600), 9))


def test_stability_of_few_values_is_defined():
    assert population_stability(np.zeros(50), np.zeros(20)) == (0, 1)
    psi, p = population_stability(np.repeat([0.0, 1.0], 50), np.ones(60))
    assert np.isfinite(psi)
    assert p < 0.001


def test_a_changed_rate_is_found_with_its_interval():
    rng = np.random.default_rng(1)
    reference, new = rng.random((500, 3)) < [0.3, 0.5, 0.1], rng.random((500, 3)) < [0.3, 0.5, 0.3]
    comedy, drama, war = compare_rates(GENRES, reference, new, 0.05)
    assert (comedy.drifted, drama.drifted, war.drifted) == (False, False, True)
    assert war.interval[0] < war.effect < war.interval[1]
    assert war.interval[0] > 0.1
    assert comedy.interval[0] < 0 < comedy.interval[1]


def test_wrong_probabilities_are_found():
    films = tagged(800, 2)
    assert not any(check.drifted for check in compare_calibration(GENRES, films.labels, films.probabilities, 0.05))
    over = films.probabilities.copy()
    over[:, 2] = np.minimum(over[:, 2] * 2, 1)
    checks = compare_calibration(GENRES, films.labels, over, 0.05)
    assert [check.drifted for check in checks] == [False, False, True]
    assert checks[2].effect < 0.8


def test_texts_in_another_language_are_found():
    here = ["The boy who finds a map goes to the sea with his dog and the old man of the island."] * 60
    there = ["Ein Junge findet eine Karte und reist mit seinem Hund ans Meer, wo ein alter Mann auf ihn wartet."] * 60
    assert [check.drifted for check in compare_texts(here, here, 0.05)] == [False, False, False]
    assert compare_texts(here, [*here, *there], 0.05)[2].drifted


@pytest.mark.parametrize(
    ("changes", "advice", "why"),
    [
        ({}, "nothing", "fit the labels"),
        ({"labelled": False}, "nothing", "like those of validation"),
        ({"rates": (0.3, 0.5, 0.4), "labelled": False}, "refit thresholds", "War"),
        ({"bias": -1.0}, "refit thresholds", "observed genres differ"),
        ({"words": 15, "labelled": False}, "continue training", "length in words"),
        ({"words": 15}, "nothing", "fit the labels"),
        ({"new_genres": {"Horror": 18, "Western": 17}}, "continue training", "does not know (Horror)"),
        ({"new_genres": {"Horror": 17}}, "nothing", "fit the labels"),
    ],
)
def test_the_advice_follows_from_what_has_changed(changes, advice, why):
    found = find_drift(GENRES, tagged(900, 3), tagged(900, 4, **changes))
    assert found.advice == advice
    assert why in found.why


@pytest.mark.parametrize(("films", "advice"), [(1, "nothing"), (4, "nothing"), (5, "continue training")])
def test_a_few_films_of_a_new_genre_do_not_count(films, advice):
    found = find_drift(GENRES, tagged(900, 3), tagged(40, 4, new_genres={"Horror": films}))
    assert (found.advice, "Horror" in found.why) == (advice, advice != "nothing")


def test_labels_that_are_not_known_do_not_count():
    new = tagged(900, 4)
    known = np.random.default_rng(6).random(new.labels.shape) < 0.6
    known[:500, 1] = False
    hidden = replace(new, labels=new.labels & known)
    masked, blind = (find_drift(GENRES, tagged(900, 3), replace(hidden, known=mask)) for mask in (known, None))
    assert masked.advice == "nothing"
    assert blind.advice != "nothing"
    alone = known[:, 1]
    check = masked.calibration[1]
    assert check.new == pytest.approx(new.labels[alone, 1].mean())
    assert check.reference == pytest.approx(new.probabilities[alone, 1].mean())
    expected = [roc_auc_score(new.labels[known[:, i], i], new.probabilities[known[:, i], i]) for i in range(3)]
    assert masked.auroc[1] == pytest.approx(np.mean(expected))


def test_a_run_that_ranks_worse_is_to_be_trained_further():
    new = tagged(900, 5)
    shuffled = np.random.default_rng(0).permutation(new.probabilities, axis=0)
    found = find_drift(GENRES, tagged(900, 3), Tagged(new.texts, shuffled, shuffled >= 0.5, new.labels, new.labelled))
    assert found.advice == "continue training"
    assert found.auroc[1] == pytest.approx(0.5, abs=0.05)
    assert found.auroc_interval[1] < -0.2


def test_monitor_prints_advice_and_gives_an_exit_status(trained_encoder, tmp_path, capfd):
    new = write_sample(tmp_path / "new.csv", films=120, seed=9)
    words = ["monitor", str(trained_encoder), "--data.csv", str(new)]
    status = main([*words, "--json"])
    found = json.loads(capfd.readouterr().out)
    assert status == int(found["advice"] != "nothing")
    assert (found["reference_films"], found["films"] > 100, found["labelled"] > 100) == (23, True, True)
    with new.open(newline="") as file:
        films = [{"overview": row["overview"][::-1], "title": row["title"]} for row in csv.DictReader(file)]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(film) + "\n" for film in films))
    assert main(["monitor", str(trained_encoder), "--data.csv", str(other)]) == 1
    out = capfd.readouterr().out
    assert "0 of them with labels" in out
    assert "advice: continue training: the texts are unlike" in out
    page = (trained_encoder / "report.html").read_text()
    assert "Advice: continue training: the texts are unlike" in page
    assert "films of other.jsonl, 0 of them with labels" in page


def test_labels_come_from_feedback_too(trained_encoder, tmp_path, capfd):
    new = write_sample(tmp_path / "new.csv", films=120, seed=9)
    with new.open(newline="") as file:
        films = [row for row in csv.DictReader(file) if len(row["overview"] or "") > 40]
    unlabelled = tmp_path / "new.jsonl"
    unlabelled.write_text("".join(json.dumps({k: row[k] for k in ("id", "overview", "title")}) + "\n" for row in films))
    said = tmp_path / "said.jsonl"
    said.write_text(
        "".join(json.dumps({"text": f["overview"], "genres": ["Drama"], "user": "a"}) + "\n" for f in films[:40])
    )
    database = ["--db", str(tmp_path / "f.db")]
    assert main(["feedback", "import", str(said), "--run", str(trained_encoder), *database]) == 0
    capfd.readouterr()
    main(["monitor", str(trained_encoder), "--data.csv", str(unlabelled), "--json", *database])
    assert 30 <= json.loads(capfd.readouterr().out)["labelled"] <= 40


def test_genres_that_the_run_does_not_know_are_counted(trained_encoder, tmp_path, capfd):
    with write_sample(tmp_path / "sample.csv", films=120, seed=9).open(newline="") as file:
        films = [{name: row[name] for name in ("id", "title", "overview")} for row in csv.DictReader(file)]
    films = [film for film in films if len(film["overview"] or "") > 40]
    rows = [{**film, "genres": ["Drama", "Zombies"] if i < 9 else ["Drama"]} for i, film in enumerate(films)]
    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["monitor", str(trained_encoder), "--data.csv", str(new)]) == 1
    assert "genres that the run does not know, with films: Zombies (9)" in capfd.readouterr().out
    assert "with films: Zombies (9)." in (trained_encoder / "report.html").read_text()


def test_too_few_films_are_refused(trained_encoder, tmp_path, capfd):
    few = tmp_path / "few.csv"
    few.write_text("id,title,overview\n1,A,A boy finds a map.\n")
    refused(capfd, ["monitor", trained_encoder, "--data.csv", few], "1 films", "30 or more")
    own = trained_encoder.parent / "sample.csv"
    refused(capfd, ["monitor", trained_encoder, "--data.csv", own], "are its own")
    refused(capfd, ["monitor", trained_encoder, "--data.csv", few, "--level", "2"], "--level")
    refused(capfd, ["monitor", tmp_path, "--data.csv", few], "run directory")


def test_a_single_film_of_a_rare_genre_proves_nothing():
    labels = np.zeros((10, 1), dtype=bool)
    labels[0] = True
    (check,) = compare_calibration(("Western",), labels, np.full((10, 1), 0.001), 0.05)
    assert check.p == pytest.approx(2 * (1 - np.exp(-0.01)))
    (check,) = compare_calibration(("Drama",), ~labels, np.full((10, 1), 0.999), 0.05)
    assert check.p == pytest.approx(2 * (1 - np.exp(-0.01)))


def test_right_probabilities_of_many_rare_genres_raise_few_alarms():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        probabilities = np.broadcast_to(rng.uniform(0.0005, 0.05, 100), (100, 100)) * rng.uniform(0, 2, (100, 100))
        labels = rng.random((100, 100)) < probabilities
        alarms += any(check.drifted for check in compare_calibration([""] * 100, labels, probabilities, 0.05))
    assert alarms <= 10
