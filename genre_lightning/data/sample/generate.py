"""The embedded sample: a seeded generator of a movies file in the real file's format, for runs that have no data yet.

It copies the shape of The Movies Dataset's movies_metadata.csv (columns, cell formats, genre frequencies and pairs,
text lengths, every kind of bad row), and none of its text: plots come from a grammar over `phrases`. Its
difficulty is meant to be instructive: a genre leaves no trace in about one film of eight, some phrases belong to no
genre, and a few to one that the film does not have, so that a linear model does well and none does perfectly.

The same seed gives the same bytes on every platform and Python: all chance is drawn from `random.Random.random`, whose
sequence is guaranteed, and used in plain IEEE arithmetic, for the last bit of log or pow differs between C libraries.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from pathlib import Path

from genre_lightning.data.sample import phrases as bank
from genre_lightning.data.sample.dice import Dice
from genre_lightning.data.sample.plots import overview
from genre_lightning.errors import ConfigError
from genre_lightning.files import replacing

__all__ = ["COLUMNS", "GENRE_IDS", "generate_rows", "planted_counts", "write_sample"]

_HEADER = """
adult belongs_to_collection budget genres homepage id imdb_id original_language original_title overview popularity
poster_path production_companies production_countries release_date revenue runtime spoken_languages status tagline
title video vote_average vote_count
"""
COLUMNS = _HEADER.split()

# share of films with 1, 2, ... genres, in percent, as in the real file
_GENRE_COUNTS = [25, 34, 27, 10.5, 2.9, 0.6]
# TMDB's own number; percent of the films of one genre only; weight in the draw of films of several genres, fitted so
# that the frequencies come out as in the real file
_GENRES = {
    "Action": (28, 2.1, 41.2),
    "Adventure": (12, 0.6, 21.7),
    "Animation": (16, 1.0, 12.8),
    "Comedy": (35, 27.5, 66.5),
    "Crime": (80, 0.6, 25.3),
    "Documentary": (99, 13.5, 6.1),
    "Drama": (18, 36.6, 100.0),
    "Family": (10751, 0.7, 16.9),
    "Fantasy": (14, 0.3, 13.0),
    "Foreign": (10769, 0.3, 5.9),
    "History": (36, 0.2, 9.4),
    "Horror": (27, 8.1, 24.5),
    "Music": (10402, 0.5, 8.7),
    "Mystery": (9648, 0.3, 12.8),
    "Romance": (10749, 0.9, 54.2),
    "Science Fiction": (878, 1.4, 17.7),
    "TV Movie": (10770, 0.3, 5.7),
    "Thriller": (53, 3.4, 56.3),
    "War": (10752, 0.2, 6.6),
    "Western": (37, 1.5, 4.4),
}
_WEIGHTS = {name: weight for name, (_, _, weight) in _GENRES.items()}
GENRE_IDS = {name: number for name, (number, _, _) in _GENRES.items()}
# how much likelier than by chance two genres meet; pairs with Drama or Comedy that are not named have 1, others 0.3
_LIFTS = """
Drama: Romance 1.6, History 1.9, War 1.8, Foreign 1.6, Animation 0.3, Documentary 0.4
Comedy: Romance 1.7, Family 1.7, Thriller 0.3, War 0.3, Mystery 0.4, History 0.2
Action: Thriller 1.8, Crime 1.9, Adventure 2.8, Science Fiction 2, War 1.6, Western 2.6, Fantasy 1
Thriller: Crime 2.4, Mystery 3, Horror 2.5, Science Fiction 1
Adventure: Western 2, Science Fiction 2.2, Family 3, Fantasy 3.1, Animation 3
Science Fiction: Horror 2.7, Fantasy 2.7, Animation 2
Mystery: Crime 2.4, Horror 2.7
Family: Fantasy 3.4, Animation 6.8, TV Movie 3.2, Music 1
Fantasy: Animation 3.5, TV Movie 1.7, Horror 1
Music: Romance 1.7, Documentary 8, TV Movie 2
History: War 8, Documentary 3.4, Western 1.8
Documentary: War 1.8, Foreign 3.9
Romance: Foreign 1.2, War 0.8
"""
_FLOOR = 0.0145  # every genre is in this share of the films or more: 29 of 2,000, enough for each split to have some


# bad rows for each 2,000 films: a few times the real rates (0.01% to 1.5%), so that a small file has each kind
_BAD = {
    "shifted": 3,
    "bad_genres": 7,
    "duplicate_id": 12,
    "missing_overview": 16,
    "placeholder_overview": 14,
    "no_genres": 36,
}
_SHARED_TEXTS = 2  # for each 2,000 films: a remake with the first film's overview, good rows both
_PLACEHOLDERS = ("No overview found.", "No overview yet.", "Released", "n/a", "No overview found.")
# no dialect of the column can read these: names in a list or between bars would be another file's well-formed cells
_BAD_GENRES = (
    "False",
    "{'id': 18}",
    "[18, 35]",
    "[{'id': 18, 'name': 'Drama'}, {'id': 107",
    "[{'id': 18, 'name': Drama}]",
    "[{'id': 35}]",
    "nan",
)

_PLACES = (
    ("en", "English", "US", "United States of America"),
    ("en", "English", "GB", "United Kingdom"),
    ("fr", "Français", "FR", "France"),
    ("it", "Italiano", "IT", "Italy"),
    ("de", "Deutsch", "DE", "Germany"),
    ("ja", "日本語", "JP", "Japan"),
    ("es", "Español", "ES", "Spain"),
    ("hi", "हिन्दी", "IN", "India"),
    ("ru", "Русский", "RU", "Russia"),
    ("sv", "svenska", "SE", "Sweden"),
)
_PLACE_WEIGHTS = [66, 11, 6, 3, 3, 3, 2.5, 2.5, 2, 1]


@cache
def _lifts() -> dict[tuple[str, str], float]:
    lifts = {(one, other): 1.0 if {"Drama", "Comedy"} & {one, other} else 0.3 for one in _GENRES for other in _GENRES}
    for line in _LIFTS.strip().splitlines():
        one, _, pairs = line.partition(": ")
        for pair in pairs.split(", "):
            other, _, lift = pair.rpartition(" ")
            lifts[one, other] = lifts[other, one] = float(lift)
    return lifts


def _genre_sets(dice: Dice, films: int) -> list[list[str]]:
    """Draw each film's genres, then give genres that came out too rare to the films that they suit."""
    names, lifts = list(_GENRES), _lifts()
    alone = [percent for _, percent, _ in _GENRES.values()]
    together = [weight for _, _, weight in _GENRES.values()]
    sets: list[list[str]] = []
    for _ in range(films):
        size = dice.weighted(range(1, len(_GENRE_COUNTS) + 1), _GENRE_COUNTS)
        chosen = [dice.weighted(names, alone)] if size == 1 else []
        while len(chosen) < size:
            weights = [0.0 if name in chosen else weight for name, weight in zip(names, together, strict=True)]
            for have in chosen:
                weights = [weight * lifts[name, have] for name, weight in zip(names, weights, strict=True)]
            chosen.append(dice.weighted(names, weights))
        dice.shuffle(chosen)
        sets.append(chosen)
    for name in names:
        missing = max(1, round(_FLOOR * films)) - sum(name in chosen for chosen in sets)
        for _ in range(missing):
            candidates = [chosen for chosen in sets if name not in chosen and len(chosen) < 4]
            if candidates:
                dice.weighted(candidates, [lifts[name, chosen[0]] for chosen in candidates]).append(name)
    return sets


def _filled(dice: Dice, templates: Sequence[str]) -> str:
    words = {
        "adjective": dice.pick(bank.TITLE_ADJECTIVES),
        "noun": dice.pick(bank.TITLE_NOUNS),
        "other_noun": dice.pick(bank.TITLE_NOUNS),
        "first": dice.pick(bank.FIRST_NAMES_F),
        "other": dice.pick(bank.FIRST_NAMES_M),
        "last": dice.pick(bank.LAST_NAMES),
        "place": dice.pick(bank.TOWNS),
        "number": dice.pick(bank.TITLE_NUMBERS),
    }
    return dice.pick(templates).format(**words)


def _poster(dice: Dice) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "/" + "".join(dice.pick(letters) for _ in range(27)) + ".jpg"


def _row(dice: Dice, genres: list[str], overview: str, numbers: set[int]) -> dict[str, str]:
    """Make the 24 columns of one film; `numbers` holds the ids that are taken."""
    number = 2 + dice.below(460_000)
    while number in numbers:
        number = 2 + dice.below(460_000)
    numbers.add(number)
    home = dice.weighted(_PLACES, _PLACE_WEIGHTS)
    if "Foreign" in genres:
        home = dice.pick(_PLACES[2:])
    title = original_title = _filled(dice, bank.TITLES)
    if home[0] != "en" and dice.random() < 0.7:
        words = {name: dice.pick(choices) for name, choices in bank.FOREIGN_WORDS.items()}
        original_title = dice.pick(bank.FOREIGN_TITLES).format(**words, b=dice.pick(bank.FIRST_NAMES_F))
    collection = ""
    if dice.random() < 0.09:
        of = {"id": 1000 + dice.below(400_000), "name": f"{title} Collection"}
        collection = repr(of | {"poster_path": _poster(dice), "backdrop_path": _poster(dice)})
    homepage = f"http://www.{re.sub('[^a-z0-9]', '', title.lower())}-film.example/" if dice.random() < 0.17 else ""
    companies = [{"name": dice.pick(bank.COMPANIES), "id": 3 + dice.below(90_000)} for _ in range(dice.below(4))]
    age = dice.random()  # its square: films grow rarer the older they are
    released = date(2017, 7, 1) - timedelta(days=1 + int(age * age * 36_500))
    rank = dice.random()
    votes = int(1 + 30 * rank / (1.001 - rank) * rank)
    rich = dice.random() < 0.22
    budget = 500_000 * (1 + dice.below(30 + int(120 * rank))) if rich else 0
    values = {
        "adult": "False",
        "belongs_to_collection": collection,
        "budget": str(budget),
        "genres": repr([{"id": GENRE_IDS[name], "name": name} for name in genres]),
        "homepage": homepage,
        "id": str(number),
        "imdb_id": f"tt{10_000 + dice.below(6_000_000):07d}",
        "original_language": home[0],
        "original_title": original_title,
        "overview": overview,
        "popularity": f"{dice.random() * (0.2 + votes / 60):.6f}",
        "poster_path": _poster(dice) if dice.random() < 0.99 else "",
        "production_companies": repr(companies),
        "production_countries": repr([{"iso_3166_1": home[2], "name": home[3]}]),
        "release_date": released.isoformat(),
        "revenue": str(int(budget * 4 * dice.random())),
        "runtime": f"{68 + dice.below(30) + dice.below(40)}.0",
        "spoken_languages": repr([{"iso_639_1": home[0], "name": home[1]}]),
        "status": "Released" if dice.random() < 0.99 else "Rumored",
        "tagline": _filled(dice, bank.TAGLINES) if dice.random() < 0.45 else "",
        "title": title,
        "video": "False",
        "vote_average": f"{(30 + dice.below(30) + dice.below(30)) / 10:.1f}",
        "vote_count": str(votes),
    }
    return {column: values[column] for column in COLUMNS}


def _scaled(count: int, films: int) -> int:
    return max(1, round(count * films / 2000))


def _checked(films: int, seed: int) -> None:
    if films < 1:
        raise ConfigError(f"films is {films}: ask for at least 1 film in the sample")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give 0 or a positive whole number (chance is the same for -1 and 1)")


def planted_counts(films: int = 2000, seed: int = 0) -> dict[str, int]:
    """Return how many rows of `generate_rows(films, seed)` an audit should find under each reason, and kept.

    Rows with two faults count under the first reason of the audit's order, which is the order of the keys. The counts
    depend on `films` alone; `seed` is taken so that both functions are called alike.
    """
    _checked(films, seed)
    planted = {kind: _scaled(count, films) for kind, count in _BAD.items()}
    malformed = planted.pop("shifted") + planted.pop("bad_genres")
    return {"malformed": malformed, **planted, "kept": films}


def generate_rows(films: int = 2000, seed: int = 0) -> list[dict[str, str]]:
    """Generate `films` good rows and, besides them, the bad rows that `planted_counts` tells of, shuffled.

    Args:
        films: Number of films that an audit keeps; each genre is in 1.45% of them or more.
        seed: Every draw depends on it; the same seed and number give the same rows everywhere.

    Returns:
        Rows of the file in its order, each with the 24 columns in theirs. As in the real file, a film that spilled over
        is two rows: a good one with blanks after its overview (the title too), then the shifted rest.
    """
    _checked(films, seed)
    dice, numbers, texts = Dice(seed), set[int](), set[str]()
    bad = {kind: _scaled(count, films) for kind, count in _BAD.items()}
    drawn = _genre_sets(dice, films)
    spare = [dice.pick(drawn) for _ in range(sum(bad.values()))]

    def film(genres: list[str]) -> dict[str, str]:
        text = overview(dice, genres, _WEIGHTS)
        while text in texts:  # short plots can meet by chance
            text = overview(dice, genres, _WEIGHTS)
        texts.add(text)
        return _row(dice, genres, text, numbers)

    rows = [film(genres) for genres in drawn]
    for _ in range(round(_SHARED_TEXTS * films / 2000)):
        first, remake = dice.pick(rows), dice.pick(rows)
        remake.update(overview=first["overview"], genres=first["genres"])
    good = list(rows)
    for index in range(bad["bad_genres"]):
        rows.append(film(spare.pop()) | {"genres": _BAD_GENRES[index % len(_BAD_GENRES)]})
    # every sixth lacks genres too: one row, counted under the first reason
    for index in range(bad["missing_overview"]):
        row = film(spare.pop()) | {"overview": " " if index % 8 == 7 else ""}
        rows.append(row | {"genres": "[]"} if index % 6 == 5 else row)
    for index in range(bad["placeholder_overview"]):
        row = film(spare.pop()) | {"overview": _PLACEHOLDERS[index % len(_PLACEHOLDERS)]}
        rows.append(row | {"genres": "[]"} if index % 6 == 5 else row)
    rows.extend(film(spare.pop()) | {"genres": "[]"} for _ in range(bad["no_genres"]))
    dice.shuffle(rows)
    for index in range(bad["duplicate_id"]):
        at = _position(rows, dice.pick(good))
        again = dict(rows[at])
        if index % 3 == 1:
            again["popularity"] = f"{dice.random() * 3:.6f}"
        elif index % 3 == 2:
            again["overview"] = ""
        # after the first, which is the one to keep
        rows.insert(at + 1 + dice.below(len(rows) - at), again)
    for _ in range(min(bad["shifted"], len(good))):
        head = good.pop(dice.below(len(good)))
        rows.insert(_position(rows, head) + 1, _spill(dice, head))
    return rows


def _position(rows: list[dict[str, str]], row: dict[str, str]) -> int:
    return next(at for at, other in enumerate(rows) if other is row)


def _spill(dice: Dice, head: dict[str, str]) -> dict[str, str]:
    """Move what follows the overview of `head` into a row of its own, one column in: its id is the release date."""
    after = COLUMNS.index("overview") + 1
    credit = f" - Written by {dice.pick(bank.FIRST_NAMES_M)} {dice.pick(bank.LAST_NAMES)}"
    moved = [credit, *(head[column] for column in COLUMNS[after:])]
    head.update(dict.fromkeys(COLUMNS[after:], ""))
    return dict(zip(COLUMNS, moved + [""] * (len(COLUMNS) - len(moved)), strict=True))


def write_sample(path: Path, films: int = 2000, seed: int = 0) -> Path:
    """Write the sample's rows as a movies file: UTF-8, lines end in a line feed, compressed if the name ends in .gz.

    The file appears whole or not at all: it is written beside its place, synced to disk and then moved over any
    older one. The same seed gives the same bytes (of a .gz: once decompressed, for zlib's versions differ).

    Args:
        path: A name that ends in .csv or .csv.gz, in a directory that exists or can be made.
        films: Number of films, as in `generate_rows`.
        seed: Random seed, as in `generate_rows`.

    Returns:
        The path.
    """
    path = Path(path)
    if not path.name.endswith((".csv", ".csv.gz")):
        raise ConfigError(f"the sample's path is {path}: let its name end in .csv or .csv.gz")
    if path.exists():
        raise ConfigError(f"{path} exists already: delete it, or name another file for the sample")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(generate_rows(films, seed))
    content = text.getvalue().encode("utf-8")
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # mtime 0: no time of writing in the file
    with replacing(path) as beside:
        beside.write_bytes(content)
    return path
