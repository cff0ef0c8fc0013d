"""Tags every film of a file, of any size, with a trained run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genre_lightning import __version__
from genre_lightning.cache import default_cache_dir
from genre_lightning.config.columns import ColumnNames, TextTemplate
from genre_lightning.config.features import as_joins, features_in, with_files
from genre_lightning.config.parser import parse
from genre_lightning.config.words import with_run_config
from genre_lightning.data.joins import join_identity
from genre_lightning.data.new_films import NewFilm, NewFilms
from genre_lightning.data.tables import FileState
from genre_lightning.data.templates import columns_to_tag
from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.distributed.precision import accelerator_of, inference_precision
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.signals import FLAG
from genre_lightning.distributed.strategies import is_sharded
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.files import file_digest, naming_the_fix
from genre_lightning.inference.model_scorer import cast_weights_once, require_finite
from genre_lightning.inference.predict_options import PredictOptions
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.inference.stream import ChunkBatches, ChunkWriter
from genre_lightning.inference.tagged_files import TaggedFile
from genre_lightning.models.restore import restore_alone
from genre_lightning.progress import ReadShare, answer, file_progress
from genre_lightning.runs import ENSEMBLE, kind_of
from genre_lightning.training.evaluate import load_decision
from genre_lightning.training.reevaluate import trained_setup
from genre_lightning.training.setup import build_trainer

CHUNK_ROWS = 8192
"""Rows that are read, tagged and written at a time: what a start that is cut off loses, and what memory must hold."""

_ANYWHERE = {"accelerator": "auto", "devices": "auto", "num_nodes": "1"}
"""Options of the trainer that name the machine of the training, which may not be the one that tags films."""

_CHANGING_LOGITS = ("--trainer.precision=", "--model.backbone=")
"""Options under which an earlier start's parts are not resumed by one without them."""


def predict_file(options: PredictOptions) -> None:
    """Tag the films of a file and write one table.

    Each row of the file is in the table once and in its order; one that cannot be tagged has a reason.

    Args:
        options: Checked.
    """
    settings = options.run.settings()
    data = settings.get("data") or {}
    trained = ColumnNames(**(data.get("columns") or {}))
    template = TextTemplate(data.get("text", "{overview}"))
    columns = replace(trained, **options.columns)
    features = features_in(data)
    fields = columns_to_tag([*template.fields, *(f.column for f in features)], trained, columns)
    films = NewFilms(
        options.films,
        columns,
        fields,
        options.encoding or str(data.get("encoding") or "utf-8"),
        features,
        with_files(as_joins(data.get("join")), options.joins) if kind_of(settings) != ENSEMBLE else (),
        Path(data.get("cache_dir") or default_cache_dir()),
    )
    if kind_of(settings) == "fit":
        _by_trainer(options, settings, films)
    else:
        _by_scorer(options, settings, films)


def _by_trainer(options: PredictOptions, settings: Mapping[str, Any], films: NewFilms) -> None:
    """Tag with a model that has a checkpoint, on as many ranks as there are."""
    films.check()
    config, parser = parse("predict", with_run_config(_trainer_words(options, settings)))
    setup = trained_setup(config, parser, films=False)
    decision = load_decision(setup)
    watch_ranks()
    with _Writing(options, decision, settings, films) as writing, explaining_failures():
        setup.trainer_options["enable_progress_bar"] = False
        setup.wandb, setup.config.tensorboard = None, False
        trainer, _ = build_trainer(setup)
        tokenizer = load_tokenizer(str(setup.run.tokenizer))
        metadata = restore_alone(setup.model, setup.run.best, tokenizer=tokenizer)
        if not is_sharded(setup.trainer_options["strategy"]):  # which casts whole shards
            cast_weights_once(setup.model, str(trainer.precision))
        writing.decide_by(decision.for_genres(metadata.genres))
        template = setup.data.options.source.template

        def text_of(film: NewFilm) -> str:
            return template.fill(film.cells)

        spec = setup.model.spec
        stream = ChunkBatches(
            writing.chunks,
            text_of,
            tokenizer,
            metadata.max_tokens,
            setup.model.layout,
            films.features,
            spec.inputs if spec else (),
        )
        stream.budget = setup.data.evaluation_budget(trainer)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        callbacks.append(
            ChunkWriter(stream, len(decision.genres), writing.finished, writing.start_after, writing.write)
        )
        trainer.predict(setup.model, DataLoader(stream, batch_size=None), return_predictions=False)
    writing.end()


def _trainer_words(options: PredictOptions, settings: Mapping[str, Any]) -> list[str]:
    """Return the command line without what names the machine of the training, if it does not name another."""
    named = {word.partition("=")[0]: word.partition("=")[2] for word in options.rest}
    words = [f"--trainer.{name}={value}" for name, value in _ANYWHERE.items()]
    if "--trainer.precision" not in named:
        place = options.rest.index("--trainer.accelerator") + 1 if "--trainer.accelerator" in options.rest else 0
        wanted = named.get("--trainer.accelerator") or (options.rest[place] if place else "auto")
        trained = str((settings.get("trainer") or {}).get("precision", "32-true"))
        words.append(f"--trainer.precision={inference_precision(trained, accelerator_of(wanted))}")
    return [*words, "--run_dir", str(options.run.path), *options.rest]


def _by_scorer(options: PredictOptions, settings: Mapping[str, Any], films: NewFilms) -> None:
    """Tag with a baseline or an ensemble, in one process."""
    if options.rest:
        raise ConfigError(
            f"{options.rest[0]} means nothing to a run of '{kind_of(settings)}': predict takes --data.csv, "
            "--data.columns.*, --data.encoding and --out for it"
        )
    if not is_first_rank():
        return
    films.check()
    scorer = open_scorer(options.run.path)
    films = replace(
        films,
        fields=columns_to_tag(scorer.fields, scorer.columns, films.columns),
        features=scorer.features,
        join=with_files(scorer.join, options.joins),
    )
    films.check()
    with _Writing(options, scorer.decision, settings, films) as writing:
        writing.start_after(writing.finished)
        for chunk in writing.chunks():
            FLAG.check()
            logits = np.full((len(chunk), len(scorer.decision.genres)), np.nan, dtype=np.float32)
            places = [place for place, film in enumerate(chunk) if film.reason is None]
            logits[places] = scorer.logits([chunk[place].cells for place in places])
            writing.write(chunk, logits)
    writing.end()


class _Writing:
    """The way of chunks from the file of films to the table; on other ranks than the first, of reading alone.

    Args:
        options: Options of the command.
        decision: Decision of the run.
        settings: Settings of the run.
        films: The file.
    """

    def __init__(
        self, options: PredictOptions, decision: Decision, settings: Mapping[str, Any], films: NewFilms
    ) -> None:
        self.films = films
        self.out = options.out
        self.decision = decision
        self._read = ReadShare()
        self._done = ReadShare()
        self._shares: deque[float] = deque()
        """Of the file, to the end of each chunk on its way: reading runs ahead of the model."""
        self.finished = 0
        """Chunks that earlier starts have finished."""
        self._next = 0
        self._shown = ExitStack()
        self._file: TaggedFile | None = None
        if is_first_rank():
            self._state = FileState.of(films.path)
            identity = {
                "films": file_digest(films.path),
                "columns": asdict(films.columns),
                "fields": dict(films.fields),
                "encoding": films.encoding,
                **({"join": [join_identity(join) for join in films.join]} if films.join else {}),
                "options": [word for word in options.rest if word.startswith(_CHANGING_LOGITS)],
                "version": __version__,
                "settings": repr(sorted(settings.items())),
                "decision": decision.to_dict(),
                "chunk_rows": CHUNK_ROWS,
            }
            self._file = TaggedFile(self.out, decision, identity, raw_cells=options.raw_cells)

    def __enter__(self) -> _Writing:
        if self._file:
            self.finished = self._shown.enter_context(self._file.writing())
            if self.finished:
                tell(f"resuming after {self.finished * CHUNK_ROWS:,} rows that an earlier start has tagged")
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: Any) -> None:
        if self._file:
            self._shown.close()
            if kind and issubclass(kind, DataError):  # nothing can be made of a part of such a file
                self._file.discard()

    def decide_by(self, decision: Decision) -> None:
        """Take the decision in the order of the model's genres, which is known once the model is loaded."""
        if self._file:
            self._file.decision = decision

    def start_after(self, chunks: int) -> None:
        """Skip n chunks; the model is ready now."""
        self._next = chunks
        if self._file:
            self._advance = self._shown.enter_context(file_progress(f"Tagging {self.films.path.name}", self._done))

    def chunks(self) -> Iterator[list[NewFilm]]:
        """Yield the chunks that are to be done."""
        for chunk in islice(self.films.chunks(CHUNK_ROWS, self._read), self._next, None):
            self._shares.append(self._read.measure())
            yield chunk

    def write(self, films: list[NewFilm], logits: NDArray[np.float32]) -> None:
        """Write the next chunk."""
        assert self._file is not None
        require_finite(logits[[film.reason is None for film in films]])
        with naming_the_fix(self.out):
            self._file.write_part(self._next, films, logits)
        self._next += 1
        share = self._shares.popleft()
        self._done.measure = lambda: share
        self._advance(len(films))

    def end(self) -> None:
        """Put the table in its place and report what is in it."""
        if self._file is None:
            return
        self._state.check_unchanged()
        with naming_the_fix(self.out):
            counts = self._file.assemble()
        tagged, rows = counts.pop("tagged", 0), sum(counts.values())
        others = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
        rest = f"; not tagged: {others}" if others else ""
        tell(f"tagged {tagged:,} of {tagged + rows:,} rows of {self.films.path}{rest}")
        answer(self.out)
