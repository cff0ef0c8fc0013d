"""The words that add most to each genre, over the films of a split that a run gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.features import features_in
from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.evaluation.predictions import StoredPredictions, read_stored_predictions
from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.explainer import Explainer
from genre_lightning.explain.words import common_form
from genre_lightning.metrics import BoolArray
from genre_lightning.runs import RunDirectory

FEWEST_FILMS = 3
"""Films with a genre that a word must stand in: the mean over fewer is an accident of one plot."""
LEAST_LOG_ODDS = 0.1
"""Of a word that is named: less is what every "the" adds or takes."""
WORDS_KEPT = 20


class WordMeans:
    """Gathers what each word adds to the log-odds of each genre, film by film.

    Args:
        genres: Names of all genres.
    """

    def __init__(self, genres: tuple[str, ...]) -> None:
        self.genres = genres
        self.films = np.zeros(len(genres), dtype=np.int64)
        self._values: list[dict[str, list[float]]] = [defaultdict(list) for _ in genres]

    def add(self, attribution: Attribution, genres: Iterable[int]) -> None:
        """Take a film in; a word that it has several times counts once, with their sum.

        Args:
            attribution: Attribution of the film's text.
            genres: Genres of its columns.
        """
        names = [common_form(name) for name in attribution.words.names]
        read = attribution.words.ends <= attribution.read
        for place, genre in enumerate(genres):
            sums: dict[str, float] = defaultdict(float)
            for name, value in zip(
                (name for name, is_read in zip(names, read, strict=True) if is_read),
                attribution.values[read, place].tolist(),
                strict=True,
            ):
                if name is not None:
                    sums[name] += value
            for name, value in sums.items():
                self._values[genre][name].append(value)
            self.films[genre] += 1

    def rows(self, fewest: int = FEWEST_FILMS, kept: int = WORDS_KEPT) -> list[dict[str, Any]]:
        """Return each genre's films and its words of highest mean that at least `fewest` of its films have."""
        rows = []
        for genre, films, values in zip(self.genres, self.films.tolist(), self._values, strict=True):
            means = [(float(np.mean(v)), len(v), name) for name, v in values.items() if len(v) >= fewest]
            best = sorted(means, key=lambda entry: (-entry[0], entry[2]))[:kept]
            words = [
                {"word": name, "films": count, "log_odds": mean} for mean, count, name in best if mean >= LEAST_LOG_ODDS
            ]
            rows.append({"genre": genre, "films": films, "words": words})
        return rows


def stored_split(run: RunDirectory, split: str) -> StoredPredictions:
    """Return the films of a split, with the genres that the run gave them.

    Raises:
        CheckpointError: The split has not been evaluated.
        ConfigError: The run's head reads inputs, which are not stored beside the texts.
    """
    if inputs := [f.column for f in features_in(run.settings().get("data") or {}) if not f.in_text]:
        raise ConfigError(
            f"{run.path} reads {', '.join(inputs)} in its head, and --top_words reads the stored texts alone: explain "
            "a film with its fields by --field or a line of JSON"
        )
    place = run.evaluation(split).predictions
    if not place.is_file():
        raise CheckpointError(
            f"{run.path} has no evaluation on {split}: run 'genre-lightning {split} --run_dir {run.path}' first"
        )
    return read_stored_predictions(place)


def draw_films(decided: BoolArray, films: int, seed: int) -> NDArray[np.int64]:
    """Draw films so that rare genres are heard too.

    Genre by genre, the rarest first, films that have it are drawn until there are as many as its equal part; the
    rest is drawn from all.

    Args:
        decided: bool (films, genres).
        films: Number of films to draw; all if there are no more.
        seed: Random seed of the sample.

    Returns:
        int64: positions, ascending.
    """
    order = np.random.default_rng(seed).permutation(len(decided))
    share = films // decided.shape[1]
    chosen = np.zeros(len(decided), dtype=bool)
    for genre in np.argsort(decided.sum(axis=0), kind="stable"):
        missing = max(0, share - int((chosen & decided[:, genre]).sum()))
        chosen[[film for film in order if decided[film, genre] and not chosen[film]][:missing]] = True
    rest = [film for film in order if not chosen[film]][: films - int(chosen.sum())]
    chosen[rest] = True
    return np.flatnonzero(chosen)


def top_words(
    explainer: Explainer,
    stored: StoredPredictions,
    split: str,
    films: int,
    progress: Callable[[int], None],
    seed: int = 0,
) -> dict[str, Any]:
    """Explain a sample of a split's films and return what top_words.json holds.

    Args:
        explainer: The run's explainer.
        stored: The split's films.
        split: Its name.
        films: Number of films of the sample; the whole split if it has no more.
        progress: Called for each film that is done.
        seed: Random seed of the sample.

    Raises:
        ConfigError: No film is asked for.
        DataError: The run decided no genre of any of them.
    """
    if films < 1:
        raise ConfigError(f"--films is {films}: give a positive whole number")
    texts = stored.predictions.texts
    sample = draw_films(stored.decided, films, seed)
    means = WordMeans(stored.predictions.genres)
    errors: list[float] = []
    changes: list[float] = []
    for film in sample:
        decided = np.flatnonzero(stored.decided[film]).tolist()
        if decided:
            attribution = explainer.attribute(texts[film], decided)
            means.add(attribution, decided)
            errors.extend(attribution.errors.tolist())
            changes.extend(np.abs(attribution.log_odds - attribution.baseline).tolist())
        progress(1)
    if not errors:
        raise DataError(f"the run gives none of the {len(sample)} films of {split} a genre: raise --films")
    return {
        "split": split,
        "films": len(sample),
        "seed": seed,
        "fewest_films_of_a_word": FEWEST_FILMS,
        "baseline": explainer.attributor.baseline,
        "checkpoint_sha256": explainer.decision.checkpoint_sha256,
        "completeness": {
            "explanations": len(errors),
            "largest_error": max(errors),
            # of the sums: a single change may be near 0
            "error_share": sum(errors) / sum(changes) if sum(changes) else None,
        },
        "genres": means.rows(),
    }
