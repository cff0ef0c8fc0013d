"""Texts in another language or script stand out from those that a run knows; its own do not."""

import csv

import pytest

from genre_lightning.data.familiarity import Familiar, familiar_of
from genre_lightning.data.sample.generate import write_sample


@pytest.fixture(scope="module")
def overviews(tmp_path_factory):
    path = write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=300, seed=0)
    with path.open(newline="", encoding="utf-8") as file:
        return [row["overview"] for row in csv.DictReader(file) if len(row["overview"]) > 60]


@pytest.mark.parametrize(
    "text",
    [
        "Un garçon découvre une carte au trésor dans le grenier de sa grand-mère et part avec ses amis.",
        "Der Einkaufsdirektor wird überraschend in den Vorruhestand geschickt und führt nun den Haushalt der Familie.",
        "Javier se ha casado con el amor de su vida, pero el destino se la quita poco después de la boda.",
        "Собака нашла дорогу домой через лес.",
        "少年发现了一张地图，地图指向海盗埋藏的宝藏，他和朋友们一起出发。",
    ],
)  # fmt: skip
def test_other_languages_stand_out(overviews, text):
    assert Familiar.of_texts(overviews).unlike(text)


def test_texts_of_the_same_kind_do_not(overviews):
    half = len(overviews) // 2
    familiar = Familiar.of_texts(overviews[:half])
    assert not [text for text in overviews[half:] if familiar.unlike(text)]
    # too short to tell
    assert not familiar.unlike("Un garçon.")
    assert not familiar.unlike("")


def test_another_language_may_be_the_runs_own():
    texts = ["Der Hund läuft durch den Wald und findet nach langer Reise den Weg zu der Familie."] * 20
    assert not Familiar.of_texts(texts).unlike("Der Mann und der Hund, den er findet, gehen nach langer Zeit den Weg.")
    assert Familiar.of_texts(texts).unlike("The man and the dog that he finds go all the way back to their old home.")


def test_without_texts_nothing_is_reported(tmp_path):
    assert familiar_of(tmp_path / "predictions.parquet") is None
