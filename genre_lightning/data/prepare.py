"""From a movies file to films, splits and tokens: read, audited, split and tokenised, or opened from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of, share_with_group
from genre_lightning.config.data import DataOptions
from genre_lightning.data.audit import audit_of, inputs_of, notes_of_corrections, notes_of_unknown, pseudo_labels_of
from genre_lightning.data.combine import ORIGIN, combined
from genre_lightning.data.continued import (
    OldFilms,
    Origins,
    check_genres,
    continued_parts,
    continued_sides,
    films_in_use,
    origins,
)
from genre_lightning.data.corrections import Correction, corrected
from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.data.features.lines import FittedTexts
from genre_lightning.data.features.prepare import encoded_inputs, fit_inputs
from genre_lightning.data.films import FilmTable, ReadingProgress, load_films, no_reading_progress
from genre_lightning.data.folds import fold_numbers
from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.known_labels import LabelRules, known_labels
from genre_lightning.data.languages import language_columns
from genre_lightning.data.movies import check_data
from genre_lightning.data.own_reader import read_rows
from genre_lightning.data.splits import SPLIT_NAMES, Split, groups_of, ids_digest, split_films, text_digests
from genre_lightning.data.texts import LazyTexts
from genre_lightning.data.tokenizers import TRAINED, load_tokenizer, train_wordpiece
from genre_lightning.data.tokens import Progress, TokenStore, tokenise
from genre_lightning.distributed.ranks import is_first_rank
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.progress import file_progress, no_progress, task_progress
from genre_lightning.types import DataSpec, FittedInput
from genre_lightning.vocabulary import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ProgressBar = Callable[[str, int], AbstractContextManager[Progress | None]]
"""Shows the progress of a task of n units: a context that gives the function to report units done to."""

_FILMS_TO_JUDGE_BY = 20
"""Fewer films may well have a genre each."""
_MOST_UNKNOWN = 0.5
"""Fraction of unknown tokens from which on hardly anything of a text is left."""


@dataclass
class PreparedFilms:
    """What `prepare_films` has made of the file; `films` is memory-mapped."""

    films: FilmTable
    rows: NDArray[np.int64]
    """int64: positions in `films` of the films in use, all of them or `max_films`."""
    vocabulary: GenreVocabulary
    splits: dict[str, Split]
    audit: dict[str, Any]
    sides: KeptSplits
    """The splits as a run keeps them."""
    content: str
    """Names the films in use and their order."""
    inputs: tuple[FittedInput, ...]
    """Of the head, fitted on the training films."""
    cache_dir: Path
    language: str | None
    """Column of the films' languages, if the files have it."""

    @cached_property
    def encoded(self) -> EncodedInputs | None:
        """The head's inputs of the films in use, memory-mapped; None if there are none."""
        if not self.inputs:
            return None
        return encoded_inputs(self.inputs, self.films, self.rows, self.content, self.cache_dir)


@dataclass
class PreparedData(PreparedFilms):
    """What `tokenised` has made of the films; `films` and `tokens` are memory-mapped."""

    tokenizer: PreTrainedTokenizerBase
    tokens: TokenStore
    max_tokens: int

    @cached_property
    def spec(self) -> DataSpec:
        """What a model must know of the data."""
        train = self.splits["train"]
        return DataSpec(
            genres=self.vocabulary.names,
            positives=train.labels.sum(axis=0),
            films=len(train.films),
            known=None if train.known is None else train.known.sum(axis=0),
            vocab_size=vocabulary_size(self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id or 0,
            max_tokens=self.max_tokens,
            tokenizer=self.tokenizer,
            inputs=self.inputs,
        )


def prepare_films(
    options: DataOptions,
    kept: KeptSplits | None = None,
    old: OldFilms | None = None,
    corrections: Sequence[Correction] = (),
) -> PreparedFilms:
    """Read, audit and split the files.

    Args:
        options: Of the data.
        kept: Splits that each film keeps; None draws them.
        old: The films of the run that is continued; None for a run that continues from none.
        corrections: Feedback on films, one correction for each text.

    Raises:
        ConfigError, DataError: The options or the file cannot be used.
    """
    check_data(options)
    if options.cache_group_writable:
        share_with_group(options.cache)
    source = options.source
    films = read_files(options)
    found = changed = None
    if old is not None and (kept is None or corrections):
        digests = _text_digests(options, films, np.arange(len(films)), films.digest)
        found = origins(old, films.ids, digests, numbered=films.numbered)
        if corrections:
            changed = corrected(films, digests, found.held_out, old.held_out_texts, corrections, source, options.cache)
            films = changed.films
            found = found.with_training_films(changed.trains, old.sides.generation + 1)
        if kept is not None:
            found = None
    rows = _rows(options, kept, old, films, found, None if changed is None else changed.trains)
    vocabulary, labels = GenreVocabulary.from_batches(
        films.batches("genres", rows), merge_case=options.merge_genre_case, own=() if old is None else old.genres
    )
    _check_genres(options, vocabulary, labels)
    # a name for the films in use and their order
    content = key_of([films.digest, options.seed if options.max_films else None, len(rows)])
    if old is not None:
        content = key_of([films.digest, hashlib.sha256(rows.tobytes()).hexdigest()])
    notes = [] if old is None else check_genres(old, vocabulary.names, options.file_names)
    if old is not None and found is not None:
        splits, sides = _continued_splits(options, old, found.of(rows), films, rows, labels, content, vocabulary)
    else:
        splits, sides = _splits(options, kept, films, rows, labels, content)
    if options.left_out is not None:
        groups = groups_of(_text_digests(options, films, rows, content))
        splits = {**splits, "train": _without_fold(splits["train"], films.ids[rows], groups, options)}
    known = known_labels(options, films, rows, labels, vocabulary, sides)
    if changed is not None:
        known = changed.masked(known, rows, vocabulary.names)
    if known is not None:
        splits = {name: replace(split, known=known[split.films]) for name, split in splits.items()}
    if changed is not None:
        weights = changed.weights[rows]
        splits["train"] = replace(splits["train"], weights=weights[splits["train"].films])
        notes += notes_of_corrections(changed)
    _check_positives(splits)
    train = splits["train"]
    inputs, leaks = fit_inputs(
        source.inputs, films, rows[train.films], train.labels, vocabulary.names, exclude_leaks=options.exclude_leaks
    )
    if old is not None:
        inputs = old.inputs
    audit = audit_of(options, films, vocabulary, splits)
    if options.left_out is not None:
        audit["notes"].append(f"fold {options.fold} of the training films is left out of the training")
    audit["notes"] += [*notes, *notes_of_unknown(vocabulary, splits)]
    if changed is not None and changed.known:
        audit["pseudo_labels"] = pseudo_labels_of(vocabulary, rows, labels, known, list(changed.known))
    if source.has_inputs:
        audit |= inputs_of(films, inputs, leaks, excluded=options.exclude_leaks)
    return PreparedFilms(
        films, rows, vocabulary, splits, audit, sides, content, inputs, options.cache, options.language
    )


def tokenised(
    options: DataOptions, prepared: PreparedFilms, tokenizer: str | None, revision: str | None
) -> PreparedData:
    """Tokenise the films.

    Args:
        options: Of the data.
        prepared: The films.
        tokenizer: Model of the hub, local directory, or `TRAINED`.
        revision: Of it on the hub.

    Raises:
        ConfigError: There is no such tokenizer, or it knows hardly anything of the texts.
    """
    films, rows = prepared.films, prepared.rows
    chosen = chosen_tokenizer(options, prepared, tokenizer, revision)
    lines = options.source.template.features
    texts: Sequence[str] = LazyTexts(films, rows)
    content = prepared.content
    if lines:
        texts = FittedTexts(texts, lines, chosen, options.max_tokens)
        content = key_of([content, [[line.line, line.max_tokens] for line in lines]])
    return with_tokens(options, prepared, chosen, texts, content)


def with_tokens(
    options: DataOptions,
    prepared: PreparedFilms,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    content: str,
) -> PreparedData:
    """Tokenise texts, and add the tokens to the films.

    Args:
        options: Of the data.
        prepared: The films.
        tokenizer: Of the texts.
        texts: What is tokenised.
        content: Name of the texts in the cache.

    Raises:
        ConfigError: The tokenizer knows hardly anything of the texts.
    """
    with progress_bar()("Tokenising", len(texts)) as progress:
        tokens = tokenise(
            texts,
            tokenizer,
            max_tokens=options.max_tokens,
            cache_dir=options.cache,
            content=content,
            progress=progress,
        )
    own = {field.name: getattr(prepared, field.name) for field in fields(prepared)}
    data = PreparedData(**own, tokenizer=tokenizer, tokens=tokens, max_tokens=options.max_tokens)
    _check_known_words(data)
    return data


def progress_bar() -> ProgressBar:
    """Return what shows progress: nothing on other ranks than rank 0."""
    return task_progress if is_first_rank() else no_progress


def _reading_progress() -> ReadingProgress:
    return file_progress if is_first_rank() else no_reading_progress


def read_files(options: DataOptions, *, require_genres: bool = True) -> FilmTable:
    """Read all files, or what an own reader makes of them, as one table.

    Args:
        options: Of the data.
        require_genres: Leave out films without genres.

    Raises:
        DataError: A file cannot be read, or leaves no film.
    """
    reader, tables, sources = options.own_reader, [], options.sources
    paths = [one.path if reader is None else read_rows(reader, one.path, options.cache) for one in sources]
    languages = language_columns(options, paths)
    rules = LabelRules.of_options(options)
    for source, path in zip(sources, paths, strict=True):
        source = replace(source, path=path)
        rules.check_columns(source)
        inputs = (*source.inputs, *rules.columns(source.inputs))
        source = replace(source, inputs=inputs, known_genres=options.known_genres, require_genres=require_genres)
        tables.append(load_films(source, options.cache, _reading_progress(), languages))
    return combined(tables, [source.path for source in options.sources], options.cache)


def _rows(
    options: DataOptions,
    kept: KeptSplits | None,
    old: OldFilms | None,
    films: FilmTable,
    found: Origins | None,
    corrected_films: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    """Choose the films in use: those of a continued run, or all or a random subset."""
    if kept is not None and kept.generation:
        mine = {name for name, used in zip(kept.ids, kept.in_use, strict=True) if used}
        return np.flatnonzero([str(name) in mine for name in films.ids.tolist()])
    if old is None or found is None:
        return _subset(len(films), options)
    if films.numbered:
        raise DataError(
            f"{options.file_names} has no column of ids, by which a continued run recognises films: add one, or name "
            "it with --data.columns.id"
        )
    from_older = np.zeros(len(films), dtype=bool)
    if ORIGIN in films.table.column_names:
        of_parent = [source.path.name in old.files for source in options.sources]
        from_older = np.array(of_parent)[films.table[ORIGIN].to_numpy()]
        from_older &= films.table[ORIGIN].to_numpy() > 0
    used = films_in_use(old, found, from_older, options.max_films, options.seed)
    # what people have said is trained on, whatever is replayed
    return used if corrected_films is None else np.union1d(used, np.flatnonzero(corrected_films))


def _subset(films: int, options: DataOptions) -> NDArray[np.int64]:
    if options.max_films is None or options.max_films >= films:
        return np.arange(films)
    return np.sort(np.random.default_rng([options.seed, 0xF115]).choice(films, options.max_films, replace=False))


def _check_genres(options: DataOptions, vocabulary: GenreVocabulary, labels: NDArray[np.bool_]) -> None:
    """Refuse labels that tell every film from every other, as titles and numbers do."""
    alone = int((labels.sum(axis=0) == 1).sum())
    if len(labels) >= _FILMS_TO_JUDGE_BY and len(vocabulary) > len(labels) / 2 and 2 * alone > len(vocabulary):
        source = options.source
        columns = ", ".join(source.columns.label_columns)
        raise DataError(
            f"{source.path}: the column {columns!r} names {len(vocabulary):,} genres for {len(labels):,} "
            f"films, {alone:,} of them for one film only, such as {vocabulary.names[0][:60]!r}: name the column of "
            "the genres with --data.columns.genres"
        )


def _splits(
    options: DataOptions,
    kept: KeptSplits | None,
    films: FilmTable,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    content: str,
) -> tuple[dict[str, Split], KeptSplits]:
    path = options.source.path
    ids, digests = films.ids[rows], _text_digests(options, films, rows, content)
    groups = groups_of(digests)
    if kept is not None:
        parts = kept.parts(ids, digests, path)
    else:
        parts = split_films(labels, groups, options.split, options.seed)
    _check_parts(parts, labels, groups)
    sides = kept or KeptSplits.of_parts(ids, digests, parts, options.file_names, numbered=films.numbered)
    return _as_splits(parts, ids, labels), sides


def _without_fold(train: Split, ids: NDArray[Any], groups: NDArray[np.int64], options: DataOptions) -> Split:
    assert options.left_out is not None
    left_out, count = options.left_out
    used = fold_numbers(train.labels, groups[train.films], count, options.seed) != left_out
    if used.all() or not used.any():
        raise DataError(
            f"{len(used)} training films do not make {count} folds (data.fold {options.fold}): ask for fewer folds"
        )
    films = train.films[used]
    return replace(train, films=films, labels=train.labels[used], sha256=ids_digest(ids[films]))


def _continued_splits(
    options: DataOptions,
    old: OldFilms,
    found: Origins,
    films: FilmTable,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    content: str,
    vocabulary: GenreVocabulary,
) -> tuple[dict[str, Split], KeptSplits]:
    ids, digests = films.ids[rows], _text_digests(options, films, rows, content)
    parts = continued_parts(found, labels, digests, old.sides.names, options.split, options.seed)
    _check_parts(parts, labels, groups_of(digests))
    sides = continued_sides(old, found, ids, digests, parts, vocabulary.names, options.file_names)
    return _as_splits(parts, ids, labels), sides


def _check_parts(parts: Sequence[NDArray[np.int64]], labels: NDArray[np.bool_], groups: NDArray[np.int64]) -> None:
    """Refuse films that leave a split empty."""
    if not all(map(len, parts)):
        distinct = len(np.unique(groups))
        if distinct < len(parts) <= len(labels):
            raise DataError(
                f"{len(labels)} films have {distinct} distinct text{'s' if distinct > 1 else ''}, and films with "
                "the same text stay in one split: name the right column with --data.columns.overview"
            )
        raise DataError(
            f"{len(labels)} films make splits of {', '.join(str(len(part)) for part in parts)}: "
            "use more films (data.csv, data.max_films), or larger fractions in data.split"
        )


def _check_positives(splits: dict[str, Split]) -> None:
    """Refuse a training or validation split in which no film has a genre, as with data.known_genres one may have.

    Raises:
        DataError: There is nothing to learn, or to choose an epoch and thresholds by.
    """
    for name in ("train", "validation"):
        if not splits[name].labels.any():
            raise DataError(
                f"none of the {len(splits[name].films):,} films of the {name} split has a genre, by which a model is "
                "trained and its thresholds are fitted: use more films with genres, a larger fraction in data.split, "
                "or another data.seed"
            )


def _as_splits(parts: Sequence[NDArray[np.int64]], ids: NDArray[Any], labels: NDArray[np.bool_]) -> dict[str, Split]:
    # the paper's protocol: what chooses the threshold is what it is judged on
    three = (parts[0], parts[1], parts[-1])
    return {
        name: Split(part, labels[part], ids_digest(ids[part])) for name, part in zip(SPLIT_NAMES, three, strict=True)
    }


def _text_digests(options: DataOptions, films: FilmTable, rows: NDArray[np.int64], content: str) -> NDArray[np.uint64]:
    """See `text_digests`; kept in the cache, as every text is read for it."""

    def build(folder: Path) -> dict[str, Any]:
        with progress_bar()("Splitting", len(rows)) as progress:
            np.save(folder / "digests.npy", text_digests(LazyTexts(films, rows, "overview", progress)))
        return {}

    folder, _ = build_once(options.cache / "digests", content, build)
    return np.load(folder / "digests.npy")


def chosen_tokenizer(
    options: DataOptions, prepared: PreparedFilms, tokenizer: str | None, revision: str | None
) -> PreTrainedTokenizerBase:
    """Load a tokenizer, or train one on the texts of the training films; see `tokenised`."""
    if tokenizer is None:
        raise ConfigError("data.tokenizer is not set: name a model of the hub, a local directory, or 'wordpiece'")
    if tokenizer != TRAINED:
        return load_tokenizer(tokenizer, revision)
    train = prepared.splits["train"]
    return train_wordpiece(
        LazyTexts(prepared.films, prepared.rows[train.films]),
        vocab_size=options.vocab_size,
        max_tokens=options.max_tokens,
        cache_dir=options.cache,
        content=key_of([prepared.films.digest, train.sha256]),
    )


def _check_known_words(data: PreparedData) -> None:
    """Refuse texts that the tokenizer has no words for, such as those of another script.

    Raises:
        ConfigError: With the fraction of unknown tokens.
    """
    unknown = data.tokenizer.unk_token_id
    tokens = np.concatenate([data.tokens[text] for text in range(min(len(data.tokens), 1000))])
    if unknown is not None and (fraction := float(np.mean(tokens == unknown))) > _MOST_UNKNOWN:
        raise ConfigError(
            f"{fraction:.0%} of the texts' tokens are unknown to the tokenizer: use a backbone and a data.tokenizer "
            "that are made for their language"
        )
