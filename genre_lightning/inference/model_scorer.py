"""The best checkpoint of a run of `fit` as a function from texts to log-odds, on one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from genre_lightning.data.collate import TokenisedFilms
from genre_lightning.data.datamodule import default_micro_batch_tokens, evaluation_tokens, padding_of
from genre_lightning.data.features.encode import EncodedInputs, encode_cells
from genre_lightning.data.features.lines import fit_lines
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
from genre_lightning.errors import CheckpointError, DataError
from genre_lightning.evaluation.decisions import Decision, check_checkpoint, read_decision
from genre_lightning.inference.run_settings import Cells, TemplateReader, configured_model
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.models.layers.cpu_linear import add_bias_by_onednn
from genre_lightning.models.layers.packing import packs
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.models.quantization import dtype_of_precision
from genre_lightning.models.restore import restore_alone
from genre_lightning.runs import RunDirectory
from genre_lightning.types import FittedInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


def cast_weights_once(model: GenreClassifier, precision: str) -> None:
    """Cast the weights of an encoder without adapters once, as `cast_linear_weights` does.

    Adapters of DoRA compute with the weights themselves, and a decoder's last layer may share them with its embedding.
    """
    config = getattr(model, "backbone_config", None)
    if config is not None and packs(config) and not model.adapters:
        cast_linear_weights(model.backbone, precision)
        add_bias_by_onednn(model.backbone)


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


def _device(name: str | None, model: GenreClassifier) -> torch.device:
    if name is None:
        kind = accelerator_of("auto")
        # quantised weights are untried on Apple's GPUs
        quantised = getattr(model.options, "quantization", "none") != "none"
        return torch.device("cpu" if kind == "mps" and quantised else kind)
    return device_named(name)
