"""Trained runs of any kind as functions from texts to log-odds, without a trainer: on one device, from a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from genre_lightning.config.columns import ColumnNames, TextTemplate
from genre_lightning.config.features import Feature, FeatureKind, JoinedFile, Place, as_joins, features_in
from genre_lightning.config.guard import check_settings, instantiate
from genre_lightning.config.parser import parse_model
from genre_lightning.config.trainer import PRECISIONS
from genre_lightning.data.collate import TokenisedFilms
from genre_lightning.data.datamodule import default_micro_batch_tokens, evaluation_tokens, padding_of
from genre_lightning.data.features.encode import EncodedInputs, encode_cells
from genre_lightning.data.features.lines import fit_lines
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.data.steps import MicroBatch, evaluation_shards
from genre_lightning.data.tokenizers import load_tokenizer
from genre_lightning.data.tokens import TokenLists, encode, no_panic
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.distributed.precision import (
    accelerator_of,
    cast_linear_weights,
    device_named,
    inference_autocast,
    inference_precision,
    resolve_precision,
)
from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.evaluation.decisions import Decision, check_checkpoint, read_decision
from genre_lightning.evaluation.ensemble import mean_log_odds
from genre_lightning.files import damaged
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.models.layers.packing import packs
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.models.quantization import dtype_of_precision
from genre_lightning.models.restore import restore_alone
from genre_lightning.models.tfidf import read_baseline
from genre_lightning.runs import ENSEMBLE, RunDirectory, kind_of, open_run
from genre_lightning.shapes import Shape, count, one_of, require_shape, text
from genre_lightning.types import FittedInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_MEMBERS = 64
"""Runs of an ensemble, those of ensembles in it counted: each is a model in memory."""
Cells = Mapping[str, Any]
"""What a text template is filled with, by column, and the inputs of the head."""


_SETTINGS: Shape = {
    "seed?": count,
    "trainer?": {"precision?": text},
    "data?": {
        "csv?": text,
        "text?": text,
        "columns?": {"id?": text, "title?": text, "overview?": text},
        "features?": [{
            "column": text, "kind": one_of(*get_args(FeatureKind)), "place?": one_of(*get_args(Place)),
            "marker?": text, "separator?": text, "max_tokens?": count,
        }],
        "join?": [{"file": text}],
        "micro_batch_tokens?": count,
    },
}  # fmt: skip
"""What is read of a run's configuration besides its model, which has a parser of its own."""


class Scorer(Protocol):
    """A trained run at work.

    Attributes:
        decision: Its calibration and thresholds.
        columns: Names of the columns of the file that it was trained on.
        fields: Columns that its text template and its features name.
        features: Features that it reads beside its template.
        join: Files that it was trained with beside the movies file.
        max_tokens: Maximum number of tokens of a text, special tokens included; None if the model reads all of it.
    """

    decision: Decision
    columns: ColumnNames
    fields: tuple[str, ...]
    features: tuple[Feature, ...]
    join: tuple[JoinedFile, ...]
    max_tokens: int | None

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """Inputs of the head, as training has fitted them."""

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """Return the raw log-odds, float32 (films, genres)."""

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """Return how many tokens each text has before it is cut, special ones included; None if there are none."""


def open_scorer(directory: str | os.PathLike[str], device: str | None = None, precision: str | None = None) -> Scorer:
    """Open a run of any kind.

    Args:
        directory: Directory of a run of `fit`, `baseline` or `ensemble`.
        device: "cpu", "cuda", "cuda:1", "mps"; None chooses.
        precision: Precision, such as "32-true"; None takes that of the training, if the device has it.

    Raises:
        CheckpointError: No run, an unfinished or a damaged one.
        ConfigError: No such device, one that lacks the precision, or a base that is not there.
    """
    if device is not None:
        device_named(device)
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision}: give one of {', '.join(PRECISIONS)}")
    return _open(Path(directory).expanduser().absolute(), device, precision, [])


def _open(path: Path, device: str | None, precision: str | None, opened: list[Path]) -> Scorer:
    """Open a run; `opened` has the runs that were opened for the same ensemble, which may have ensembles in it."""
    opened.append(path)
    if len(opened) > _MAX_MEMBERS:
        raise CheckpointError(
            f"{opened[0]} is an ensemble that names itself, or more than {_MAX_MEMBERS} runs: make it again of fewer"
        )
    run = open_run(path)
    settings = checked_settings(run)
    kind = kind_of(settings)
    if kind == ENSEMBLE:
        return EnsembleScorer(run, device, precision, opened)
    return ModelScorer(run, settings, device, precision) if kind == "fit" else BaselineScorer(run, settings)


def checked_settings(run: RunDirectory) -> dict[str, Any]:
    """Return a run's configuration, checked before any object is made from it.

    Raises:
        CheckpointError: It is not the configuration of a run.
        ConfigError: It names a class that it may not.
    """
    settings = run.settings()
    check_settings(settings, str(run.config), run.path)
    try:
        require_shape(settings, _SETTINGS)
    except ValueError as error:
        raise damaged(run.config, error, "put it back, or name another --run_dir") from None
    return settings


class TemplateReader:
    """The part of a run's settings that defines how its texts are made.

    Args:
        settings: Its configuration.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        data = settings.get("data") or {}
        self.features, self.join = features_in(data), as_joins(data.get("join"))
        self.template = TextTemplate(data.get("text") or "{overview}", tuple(f for f in self.features if f.in_text))
        columns = data.get("columns") or {}
        self.columns = ColumnNames(**{f.name: columns[f.name] for f in fields(ColumnNames) if columns.get(f.name)})
        inputs = [feature.column for feature in self.features if not feature.in_text]
        self.fields = tuple(dict.fromkeys([*self.template.fields, *inputs]))

    def texts(self, films: Sequence[Cells]) -> list[str]:
        """Return what the model reads of films."""
        return [self.template.fill({name: film.get(name, "") for name in self.template.fields}) for film in films]


class ModelScorer(TemplateReader):
    """The best checkpoint of a run of `fit`: encoder, adapted decoder, or one that is asked as it is.

    Args:
        run: Its directory.
        settings: Its configuration.
        device: See `open_scorer`.
        precision: See `open_scorer`.
    """

    def __init__(
        self, run: RunDirectory, settings: Mapping[str, Any], device: str | None = None, precision: str | None = None
    ) -> None:
        super().__init__(settings)
        model = configured_model(settings)
        self.device = _device(device, model)
        trained_in = str((settings.get("trainer") or {}).get("precision", "32-true"))
        if precision is None:
            self.precision = inference_precision(trained_in, self.device.type)
        else:
            self.precision = resolve_precision(precision, self.device.type)[0]
        if precision and isinstance(model, FrozenDecoder):
            # the matmuls of its frozen weights have a dtype of their own, which may be narrower
            model.options = replace(model.options, compute_dtype="auto", quant_storage="uint8")
        model.runs_on(self.device.type, self.precision)
        if model.adapters:  # others have all of their weights in the checkpoint
            model.check(None)
        # a quantised base is built on the GPU that is current
        with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            metadata, self.decision, self.tokenizer = restore_best(run, model)
        self.max_tokens: int | None = metadata.max_tokens
        model.eval().to(self.device)
        if self.precision in ("bf16-true", "16-true"):
            model.to(dtype_of_precision(self.precision))
        cast_weights_once(model, self.precision)
        self.model = model
        micro = (settings.get("data") or {}).get("micro_batch_tokens")
        self.micro_batch_tokens: int = micro or default_micro_batch_tokens(self.device.type, model.layout)
        self.budget = evaluation_tokens(self.micro_batch_tokens, self.device.type, model.layout)

    def texts(self, films: Sequence[Cells]) -> list[str]:
        """Return what the model reads of films; lines of features are cut to their tokens."""
        assert self.max_tokens is not None
        return fit_lines(super().texts(films), self.template.features, self.tokenizer, self.max_tokens)

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """See `Scorer`."""
        return tuple(self.model.spec.inputs) if self.model.spec else ()

    def inputs(self, films: Sequence[Cells]) -> EncodedInputs | None:
        """Return the head's inputs of films; None if it has none."""
        return encode_cells(self.fitted_inputs, self.features, films)

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """See `Scorer`; in batches of like lengths."""
        logits = np.empty((len(films), len(self.decision.genres)), dtype=np.float32)
        for batch, part in self._batches(films):
            logits[batch] = part
        return require_finite(logits)

    @property
    def pools(self) -> bool:
        """Whether there is a vector of each text before the head; a model that is asked in words has none."""
        return not isinstance(self.model.head, torch.nn.Identity)

    def pooled(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """Return the pooled states of the backbone, which the head reads, float32 (films, width)."""
        states: list[torch.Tensor] = []
        vectors: NDArray[np.float32] | None = None
        hook = self.model.head.register_forward_pre_hook(lambda head, inputs: states.append(inputs[0]))
        try:
            for batch, _ in self._batches(films):
                state = states.pop().float().cpu().numpy()
                if vectors is None:
                    vectors = np.empty((len(films), state.shape[1]), dtype=np.float32)
                vectors[batch] = state
        finally:
            hook.remove()
        return require_finite(np.empty((0, 0), dtype=np.float32) if vectors is None else vectors)

    @torch.inference_mode()
    def _batches(self, films: Sequence[Cells]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the positions of the films of each batch, and their logits."""
        assert self.max_tokens is not None
        if not films:
            return
        layout = self.model.layout
        rows = TokenLists(encode(self.texts(films), self.tokenizer, self.max_tokens))
        inputs = self.inputs(films)
        dataset = TokenisedFilms(rows, np.arange(len(rows)), None, padding_of(self.tokenizer), layout, inputs)
        for batch in evaluation_shards(rows.lengths, budget=self.budget, rank=0, world_size=1, layout=layout):
            tensors = {name: t.to(self.device) for name, t in dataset[MicroBatch(batch, len(rows))].items()}
            with inference_autocast(self.precision, self.device):
                part = self.model(tensors).float().cpu().numpy()
            yield batch, part

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """See `Scorer`."""
        # nothing is cut: the tokenizer would warn of texts that are too long for the model
        encoded = self.tokenizer.backend_tokenizer
        encoded.no_truncation()
        with no_panic(self.tokenizer):
            return [len(text.ids) for text in encoded.encode_batch(self.texts(films))]


class BaselineScorer(TemplateReader):
    """A model that counts words.

    Args:
        run: Its directory.
        settings: Its configuration.
    """

    max_tokens: int | None = None

    def __init__(self, run: RunDirectory, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        decision = read_decision(run.decision, run.again)
        self.model = read_baseline(run.baseline, decision.checkpoint_sha256)
        self.decision = decision.for_genres(self.model.fitted().genres)

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """See `Scorer`."""
        return tuple(self.model.fitted().inputs)

    def inputs(self, films: Sequence[Cells]) -> EncodedInputs | None:
        """See `ModelScorer.inputs`."""
        return encode_cells(self.fitted_inputs, self.features, films)

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """See `Scorer`."""
        return require_finite(self.model.logits(self.texts(films), input_matrix(self.inputs(films))))

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """See `Scorer`."""
        return [None] * len(films)


class EnsembleScorer:
    """The weighted mean of runs.

    Args:
        run: Directory of the ensemble.
        device: See `open_scorer`.
        precision: See `open_scorer`.
        opened: Runs that were opened before, see `_open`.
    """

    def __init__(
        self,
        run: RunDirectory,
        device: str | None = None,
        precision: str | None = None,
        opened: list[Path] | None = None,
    ) -> None:
        run.check_members()
        members = run.members()
        opened = [run.path] if opened is None else opened
        self.weights = np.array([weight for _, weight in members], dtype=np.float64)
        self.members = [_open(member.path, device, precision, opened) for member, _ in members]
        genres = self.members[0].decision.genres
        for (place, _), member in zip(members, self.members, strict=True):
            if member.decision.genres != genres:
                raise CheckpointError(
                    f"{place.path} knows other genres than the ensemble's first run: make the ensemble again "
                    "from runs on the same films"
                )
        self.decision = read_decision(run.decision, run.again).for_genres(genres)
        self.columns = self.members[0].columns
        self.fields = tuple(dict.fromkeys(name for member in self.members for name in member.fields))
        self.features = tuple({f.column: f for member in self.members for f in member.features}.values())
        self.join = tuple({join.name: join for member in self.members for join in member.join}.values())
        limits = [member.max_tokens for member in self.members if member.max_tokens is not None]
        self.max_tokens: int | None = min(limits) if limits else None

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """See `Scorer`."""
        return tuple({one.name: one for member in self.members for one in member.fitted_inputs}.values())

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """See `Scorer`."""
        each = [member.decision.probabilities(member.logits(films)) for member in self.members]
        return mean_log_odds(each, self.weights)

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """See `Scorer`; of the member that reads the least of a text."""
        limited = [member for member in self.members if member.max_tokens is not None]
        if not limited:
            return [None] * len(films)
        return min(limited, key=lambda member: member.max_tokens or 0).tokens(films)


def cast_weights_once(model: GenreClassifier, precision: str) -> None:
    """Cast the weights of an encoder without adapters once, as `cast_linear_weights` does.

    Adapters of DoRA compute with the weights themselves, and a decoder's last layer may share them with its embedding.
    """
    config = getattr(model, "backbone_config", None)
    if config is not None and packs(config) and not model.adapters:
        cast_linear_weights(model.backbone, precision)


def require_finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits, unless one of them is not a number.

    Raises:
        DataError: A logit is not a finite number; the message names the fix.
    """
    if not np.isfinite(logits).all():
        raise DataError(
            "the model's answer is NaN or infinite: it diverged in training, or its precision is too narrow here; "
            "train with a lower model.lr, or use it with trainer.precision=32-true"
        )
    return logits


def restore_best(
    run: RunDirectory, model: GenreClassifier
) -> tuple[CheckpointMetadata, Decision, PreTrainedTokenizerBase]:
    """Build a model with the weights of a run's best checkpoint; the films are not needed.

    Args:
        run: Directory of the run.
        model: As `configured_model` makes it, told what it runs on.

    Returns:
        The checkpoint's metadata, the decision for its genres, and the tokenizer.

    Raises:
        CheckpointError: One of them is missing, damaged, or of another model.
    """
    decision = read_decision(run.decision, run.again)
    check_checkpoint(decision, verify_checkpoint(run.best).sha256, run.again)
    if not run.tokenizer.is_dir():
        raise CheckpointError(f"{run.tokenizer} is missing: copy the run directory whole")
    tokenizer = load_tokenizer(str(run.tokenizer))
    metadata = restore_alone(model, run.best, tokenizer=tokenizer)
    return metadata, decision.for_genres(metadata.genres), tokenizer


def configured_model(settings: Mapping[str, Any]) -> GenreClassifier:
    """Return the model of a run's settings, without weights, with the seed of the run."""
    config, parser = parse_model(settings.get("model"))
    made: GenreClassifier = instantiate(parser, config).model
    made.take_seed(settings.get("seed") or 0)
    return made


def _device(name: str | None, model: GenreClassifier) -> torch.device:
    if name is None:
        kind = accelerator_of("auto")
        # quantised weights are untried on Apple's GPUs
        quantised = getattr(model.options, "quantization", "none") != "none"
        return torch.device("cpu" if kind == "mps" and quantised else kind)
    return device_named(name)
