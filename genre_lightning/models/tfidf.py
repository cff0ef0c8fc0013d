"""Baselines that count words: TF-IDF features under a linear model for each genre, in one file without pickle."""

from __future__ import annotations

import json
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from genre_lightning.bounds import Bounds, above, at_least, bound_problems
from genre_lightning.errors import CheckpointError, ConfigError, DataError, one_line
from genre_lightning.files import file_digest, parse_json, replacing
from genre_lightning.models.linear import LinearGenres, column_count, missing_columns, naive_bayes, prior_log_odds
from genre_lightning.types import FittedInput

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["BASELINES", "TfidfBaseline", "TfidfLogisticRegression", "TfidfNaiveBayes", "read_baseline"]


@dataclass
class TfidfBaseline(ABC):
    """TF-IDF features; a subclass finds the weights.

    Attributes:
        max_ngram: Longest run of words that counts as a term; 1 takes single words only.
        min_films: Films of the training split that must hold a term.
        max_share: Fraction of the films above which a term says nothing and is left out.
        stop_words: Leave out English function words ("the", "of").
        sublinear: A term that occurs n times counts 1 + ln n, not n.
        input_weight: Weight of each input of data.features in the head, beside the words.
        drop_inputs: Fraction of the training films that are learnt from a second time as if nothing but the overview
            were known, so that such films are tagged well; 1 doubles the time of training. It has no effect without
            inputs.
    """

    max_ngram: Annotated[int, at_least(1, 5)] = 2
    min_films: Annotated[int, at_least(1)] = 2
    max_share: Annotated[float, Bounds(0, 1, open_below=True)] = 0.5
    stop_words: bool = True
    sublinear: bool = True
    input_weight: Annotated[float, above(0)] = 1.0
    drop_inputs: Annotated[float, Bounds(0, 1)] = 1.0
    linear: LinearGenres | None = field(default=None, init=False, repr=False, compare=False)
    """What `fit` found."""

    name: ClassVar[str]

    def check(self) -> None:
        """Refuse impossible options.

        Raises:
            ConfigError: Every problem, each with its fix.
        """
        if problems := bound_problems(type(self), vars(self), "model"):
            raise ConfigError("; and ".join(problems))

    @abstractmethod
    def _solve(
        self, features: csr_matrix, labels: NDArray[np.bool_], seed: int, known: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return weights (terms, genres) and bias (genres,) from features (films, terms) and labels (films, genres).

        `known` is None or marks the films of which each label is known.
        """

    @property
    def parameters(self) -> int:
        """Numbers that training has set: weights and biases."""
        linear = self.fitted()
        return linear.weights.size + linear.bias.size

    def fit(
        self,
        texts: Sequence[str],
        labels: NDArray[np.bool_],
        genres: Sequence[str],
        seed: int = 0,
        inputs: Sequence[FittedInput] = (),
        columns: csr_matrix | None = None,
        known: NDArray[np.bool_] | None = None,
        overviews: Sequence[str] | None = None,
    ) -> None:
        """Find terms and weights.

        Args:
            texts: Texts of the training split.
            labels: bool (films, genres).
            genres: Names of the columns.
            seed: Random seed of solvers that draw random numbers.
            inputs: Inputs beside the texts.
            columns: float32 (films, columns): what they are for the films, not negative; None without inputs.
            known: bool (films, genres): films whose label of a genre is known; None for all.
            overviews: Texts of the films if nothing but their overviews is known, for `drop_inputs`; None takes texts.

        Raises:
            DataError: No term is left.
        """
        from scipy.sparse import vstack

        vectorizer = self._vectorizer()
        try:
            features = vectorizer.fit_transform(texts)
        except ValueError as error:  # scikit-learn's way to say that nothing is left
            raise DataError(
                f"the {len(texts)} training texts leave no term ({one_line(error)}): "
                "lower model.min_films, raise model.max_share, or use more films"
            ) from None
        terms = tuple(vectorizer.get_feature_names_out().tolist())
        rows = self._beside(features, columns)
        if columns is not None and self.drop_inputs:
            numbers = np.random.default_rng([seed, 0xD209])  # not those by which others draw
            drawn = np.flatnonzero(numbers.random(len(labels)) < self.drop_inputs)
            bare = (
                features[drawn]
                if overviews is None
                else vectorizer.transform([overviews[film] for film in drawn.tolist()])
            )
            rows = vstack([rows, self._beside(bare, missing_columns(inputs, len(drawn)))], format="csr")
            labels = np.concatenate([labels, labels[drawn]])
            known = None if known is None else np.concatenate([known, known[drawn]])
        weights, bias = self._solve(rows, labels, seed, known)
        self.linear = LinearGenres(tuple(genres), terms, np.asarray(vectorizer.idf_), weights, bias, tuple(inputs))

    def _beside(self, features: csr_matrix, columns: csr_matrix | None) -> csr_matrix:
        """Return the features of words with the columns of the inputs beside them."""
        if columns is None:
            return features
        from scipy.sparse import hstack

        return hstack([features, columns * np.float32(self.input_weight)], format="csr", dtype=np.float32)

    def logits(self, texts: Sequence[str], columns: csr_matrix | None = None) -> NDArray[np.float32]:
        """Return the log-odds, finite, (texts, genres).

        Args:
            texts: What the template makes.
            columns: Columns of the inputs; see `fit`.
        """
        linear = self.fitted()
        vectorizer = self._vectorizer(linear.terms)
        vectorizer.idf_ = linear.idf
        if len(texts) == 0:
            return np.zeros((0, len(linear.genres)), dtype=np.float32)
        features = self._beside(vectorizer.transform(texts), columns)
        return np.asarray(features @ linear.weights + linear.bias, dtype=np.float32)

    def contributions(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return what each word of a text adds to the log-odds: with the bias, the sum over the words is `logits`.

        A term of several words gives each of them an equal part, and one that occurs several times each occurrence.

        Returns:
            First character of each word that counts and the one behind it, (words,) each, and log-odds (words, genres).
        """
        linear = self.fitted()
        vectorizer = self._vectorizer(linear.terms)
        vectorizer.idf_ = linear.idf
        features = vectorizer.transform([text])
        value_of = dict(zip(features.indices.tolist(), features.data.tolist(), strict=True))
        # character by character, to know where each came from: accents that are stripped change the length
        plain = list(map(vectorizer.build_preprocessor(), text))
        origin = np.repeat(np.arange(len(text)), list(map(len, plain)))
        stop_words = vectorizer.get_stop_words() or ()
        found = [m for m in re.finditer(vectorizer.token_pattern, "".join(plain)) if m.group() not in stop_words]
        occurrences: dict[int, list[tuple[int, int]]] = {}
        for length in range(1, self.max_ngram + 1):
            for first in range(len(found) - length + 1):
                term = vectorizer.vocabulary_.get(" ".join(m.group() for m in found[first : first + length]))
                if term in value_of:
                    occurrences.setdefault(term, []).append((first, length))
        values = np.zeros((len(found), len(linear.genres)))
        for term, places in occurrences.items():
            for first, length in places:
                part = value_of[term] / (len(places) * length)
                values[first : first + length] += part * linear.weights[term].astype(np.float64)
        origin = np.append(origin, len(text))
        starts, ends = (origin[[place(m) for m in found]].astype(np.int64) for place in (re.Match.start, re.Match.end))
        return starts, ends, values

    def write(self, path: str | os.PathLike[str]) -> str:
        """Write model and options as safetensors, whole or not at all.

        Returns:
            The SHA-256 of the file, as hexadecimal digits.
        """
        from safetensors.numpy import save_file

        linear = self.fitted()
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        tensors: dict[str, NDArray[Any]] = {
            "terms": np.frombuffer("\n".join(linear.terms).encode(), dtype=np.uint8),
            "idf": linear.idf,
            "weights": np.ascontiguousarray(linear.weights),
            "bias": linear.bias,
        }
        if not linear.inputs:
            del options["input_weight"], options["drop_inputs"]
        described: dict[str, Any] = {"baseline": self.name, "options": options, "genres": linear.genres}
        if linear.inputs:
            described["inputs"] = [asdict(one) for one in linear.inputs]
        content = json.dumps(described)
        with replacing(path) as temporary:
            # one entry: the format keeps several in no order, and the same model must be the same file
            save_file(tensors, temporary, {"facts": content})
        return file_digest(path)

    def fitted(self) -> LinearGenres:
        """Return what `fit` found.

        Raises:
            CheckpointError: It has not been called.
        """
        if self.linear is None:
            raise CheckpointError(f"{self.name} has not been trained: run 'genre-lightning baseline {self.name}'")
        return self.linear

    def _vectorizer(self, terms: Sequence[str] | None = None) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            strip_accents="unicode",
            ngram_range=(1, self.max_ngram),
            stop_words="english" if self.stop_words else None,
            sublinear_tf=self.sublinear,
            dtype=np.float32,
            # with the terms given, the counts that choose them are not asked
            **({"min_df": self.min_films, "max_df": self.max_share} if terms is None else {"vocabulary": terms}),
        )


@dataclass
class TfidfNaiveBayes(TfidfBaseline):
    """Multinomial naive Bayes for each genre against the rest, with the genre's fraction of films as its prior.

    Attributes:
        smoothing: Count added to each term in each class, in TF-IDF units.
        evidence: What the words count against the prior. TF-IDF rows have length 1, however long the text, so that
            1 leaves rare genres to their prior.
    """

    min_films: Annotated[int, at_least(1)] = 3
    smoothing: Annotated[float, above(0)] = 0.1
    evidence: Annotated[float, above(0)] = 2.0

    name: ClassVar[str] = "tfidf_nb"

    def _solve(
        self, features: csr_matrix, labels: NDArray[np.bool_], seed: int, known: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        weights, bias = naive_bayes(features, labels, self.smoothing, known)
        return (self.evidence * weights).astype(np.float32), bias


@dataclass
class TfidfLogisticRegression(TfidfBaseline):
    """Logistic regression for each genre, with an L2 penalty.

    Attributes:
        inverse_penalty: Scikit-learn's C: higher fits the training split more closely.
        class_weight: "none", or "balanced" to weigh each genre's positives as much as its negatives.
        max_iter: Iterations of the solver for a genre.
    """

    inverse_penalty: Annotated[float, above(0)] = 3.0
    class_weight: Literal["none", "balanced"] = "none"
    max_iter: Annotated[int, at_least(1, 10**9)] = 1000

    name: ClassVar[str] = "tfidf_logreg"

    def _solve(
        self, features: csr_matrix, labels: NDArray[np.bool_], seed: int, known: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        weights = np.zeros((features.shape[1], labels.shape[1]), dtype=np.float32)
        bias = prior_log_odds(labels, known)
        weighting = "balanced" if self.class_weight == "balanced" else None
        films = len(labels) if known is None else known.sum(axis=0)
        for genre in np.flatnonzero(labels.any(axis=0) & (labels.sum(axis=0) < films)):
            rows = slice(None) if known is None else np.flatnonzero(known[:, genre])
            solver = LogisticRegression(
                C=self.inverse_penalty,
                class_weight=weighting,
                max_iter=self.max_iter,
                solver="liblinear",
                random_state=seed,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                try:
                    solver.fit(features[rows], labels[rows, genre])
                except ConvergenceWarning:
                    raise ConfigError(
                        f"logistic regression did not converge in {self.max_iter} iterations: "
                        "raise model.max_iter, or lower model.inverse_penalty"
                    ) from None
            weights[:, genre], bias[genre] = solver.coef_[0], solver.intercept_[0]
        return weights, bias


BASELINES: dict[str, type[TfidfBaseline]] = {kind.name: kind for kind in (TfidfNaiveBayes, TfidfLogisticRegression)}


def read_baseline(path: str | os.PathLike[str], sha256: str | None = None) -> TfidfBaseline:
    """Read what `TfidfBaseline.write` wrote; nothing in the file is ever run.

    Args:
        path: Path of the file.
        sha256: SHA-256 that the file must have, as a decision names it; None takes any.

    Raises:
        CheckpointError: The file is missing, damaged, no baseline, or not the one with that SHA-256.
    """
    from safetensors import SafetensorError, safe_open

    place = Path(path)
    if not place.is_file():
        raise CheckpointError(f"{place} is missing: train it with 'genre-lightning baseline'")
    if sha256 is not None and file_digest(place) != sha256:
        raise CheckpointError(f"{place} is not the model that its decision was fitted for: train the baseline again")
    try:
        with safe_open(place, framework="numpy") as file:
            content = parse_json((file.metadata() or {})["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        model = BASELINES[content["baseline"]](**content["options"])
        model.check()
        linear = LinearGenres(
            tuple(content["genres"]),
            tuple(tensors["terms"].tobytes().decode().split("\n")),
            tensors["idf"],
            tensors["weights"],
            tensors["bias"],
            tuple(map(FittedInput.from_dict, content.get("inputs", ()))),
        )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{place} is not a readable baseline ({one_line(error)[:120]}): train it again") from None
    terms, genres = len(linear.terms), len(linear.genres)
    shape = (terms + sum(column_count(one) for one in linear.inputs), genres)
    if linear.weights.shape != shape or linear.idf.shape != (terms,) or linear.bias.shape != (genres,):
        raise CheckpointError(f"{place} is damaged (its parts do not fit each other): train the baseline again")
    model.linear = linear
    return model
