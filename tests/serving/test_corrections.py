"""Corrections over HTTP: stored beside the prediction, refused with the fix, and no end of tagging when they fail."""

import csv

import pytest

from genre_lightning.errors import SaveError
from genre_lightning.learning.store import FeedbackStore


def stored(client):
    with FeedbackStore(client.options.database) as store:
        return list(store.rows())


def test_correction_is_stored_beside_the_prediction(client, counting):
    body = {"text": "A soldier goes to war", "genres": ["war", "Drama"], "user": "eva", "title": "War", "film": "7"}
    answer = client.post("/v1/feedback", body).json()
    assert (answer["stored"], answer["genres"]) == (True, ["War", "Drama"])
    assert client.post("/v1/feedback", body).json()["stored"] is False
    [row] = stored(client)
    assert (row.user, row.title, row.film, row.source) == ("eva", "War", "7", "http")
    assert row.genres == ("War", "Drama")
    assert row.predicted == counting.tagger(body["text"]).names
    assert row.checkpoint_sha256 == counting.checkpoint
    other = client.post("/v1/feedback", {**body, "user": "ben", "genres": []}).json()
    assert other["conflicts"] == 1


def test_a_list_is_stored_as_the_words_that_the_run_reads(client):
    body = {"fields": {"overview": ["A soldier", "goes to war"]}, "genres": ["War"], "user": "eva"}
    assert client.post("/v1/feedback", body).json()["stored"]
    assert [row.text for row in stored(client)] == ["A soldier, goes to war"]


def test_the_name_of_the_token_is_the_user(client, make_token):
    client.set(tokens=(make_token("u" * 20, user="eva"),))
    headers = {"Authorization": "Bearer " + "u" * 20}
    client.post("/v1/feedback", {"text": "A war", "genres": [], "user": "ben"}, headers=headers)
    assert [row.user for row in stored(client)] == ["eva"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"genres": ["Dramma"]}, "is it Drama?"),
        ({"genres": "Drama"}, "genres: input should be a valid list"),
        ({"user": None}, "give your name as user"),
        ({"user": "  "}, "give your name as user"),
        ({"user": "x" * 201}, "user: string should have at most 200"),
        ({"text": ""}, "has no text"),
        ({"genres": ["x" * 300]}, "genres.0: string should have at most 200"),
    ],
)
def test_bad_corrections_are_refused(client, assert_problem, change, words):
    body = {"text": "A soldier goes to war", "genres": ["War"], "user": "eva", **change}
    assert_problem(client.post("/v1/feedback", body), 422, words)
    assert not client.options.database.exists()


def test_a_full_disk_stops_feedback_and_not_tagging(client, assert_problem, monkeypatch):
    def full(path, **options):
        raise SaveError(f"{path}: database or disk is full: free space there")

    monkeypatch.setattr("genre_lightning.serving.service.FeedbackStore", full)
    body = {"text": "A soldier goes to war", "genres": ["War"], "user": "eva"}
    assert_problem(client.post("/v1/feedback", body), 507, "tagging continues")
    assert client.post("/v1/tag", {"text": "A war"}).status_code == 200


def test_a_foreign_database_is_a_problem_without_its_path(client, assert_problem):
    client.options.database.write_text("not a database at all, but some text")
    answer = client.post("/v1/feedback", {"text": "A war", "genres": [], "user": "eva"})
    assert_problem(answer, 503, "the feedback database cannot be written")


def test_queue_leaves_out_what_is_labelled(client, assert_problem, tmp_path):
    assert_problem(client.get("/v1/queue"), 404, "start it with --queue FILE")
    queue = tmp_path / "queue.csv"
    with queue.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "text", "suggested", "reason", "field.keywords"])
        rows.writerow(["1", "'=cmd()", "A soldier goes to war", "War|Drama", "undecided", "army"])
        rows.writerow(["2", "", "A love story", "none", "", ""])
        rows.writerow(["3", "", "", "", "", ""])
    client.set(queue=queue)
    first, second = client.get("/v1/queue").json()["films"]
    assert (first["title"], first["suggested"], first["fields"]) == ("=cmd()", ["War", "Drama"], {"keywords": "army"})
    assert (second["film"], second["suggested"]) == ("2", [])
    client.post("/v1/feedback", {"text": "A love story", "genres": ["Romance"], "user": "eva"})
    left = client.get("/v1/queue").json()
    assert (len(left["films"]), left["done"]) == (1, 1)
    with queue.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text"])
        rows.writerows([[f"Film {number}"] for number in range(1001)])
        rows.writerow(["A love story"])
    left = client.get("/v1/queue").json()
    assert (len(left["films"]), left["done"]) == (1000, 1)
    queue.write_text("a,b\n1,2\n")
    assert_problem(client.get("/v1/queue"), 503, "queue.csv")


def test_similar_films_are_training_films(client, counting):
    from genre_lightning.serving.similar import SimilarFilms, training_films

    films = training_films(counting, 30)
    assert len(films) == 30
    similar = SimilarFilms(counting, films)
    while similar.step():
        pass
    nearest = similar.nearest(films[3]["cells"]["overview"], 2)
    assert nearest[0]["title"] == films[3]["title"]
    assert nearest[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert nearest[0]["genres"]
    assert client.post("/v1/similar", {"text": "A war"}).json() == {"films": [], "compared": 0}
