"""What an export starts from: a run's trained model, its tokenizer, and its decision, folded into the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from genre_lightning.config.features import Feature
from genre_lightning.data.collate import Padding, pad_rows
from genre_lightning.data.tokens import encode
from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.models.layers.pooling import pool
from genre_lightning.models.metadata import BaseMetadata, CheckpointMetadata
from genre_lightning.runs import RunDirectory
from genre_lightning.types import INPUT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

PooledBy = Literal["mean", "cls", "last"]

_LEFT_OVER = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "is_local", "local_files_only")
"""What a tokenizer's file remembers of its last use, and some programs take for its settings."""


@dataclass(frozen=True)
class Source:
    """A run that is exported.

    Attributes:
        run: Its directory.
        model: Model with the best checkpoint's weights.
        decision: Fitted on validation, of that checkpoint.
        metadata: The checkpoint's metadata.
        tokenizer: The run's, as `plain_tokenizer` makes it.
        template: What texts are made of, such as "{overview}".
        features: Features that the run reads beside the template.
    """

    run: RunDirectory
    model: GenreClassifier
    decision: Decision
    metadata: CheckpointMetadata
    tokenizer: PreTrainedTokenizerBase
    template: str
    features: tuple[Feature, ...] = ()

    @property
    def base(self) -> BaseMetadata:
        """The model that the training started from.

        Raises:
            CheckpointError: The checkpoint does not name it.
        """
        base = self.metadata.base or self.metadata.backbone
        if base is None:
            raise CheckpointError(
                f"{self.run.best} does not name the model that it was trained from: only encoders and decoders of this "
                "package can be exported"
            )
        return base

    @property
    def pooled_by(self) -> PooledBy:
        """Which state of a text the head reads."""
        return getattr(self.model.options, "pooling", "last")

    @property
    def max_tokens(self) -> int:
        """Of a text; longer ones are cut."""
        return self.metadata.max_tokens

    @property
    def head(self) -> nn.Linear:
        """The head with the calibration folded in."""
        return calibrated_head(self.model.head[-1], self.decision)  # type: ignore[index]  # dropout, then the layer

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what the run itself makes of texts, calibrated, (texts, genres), without autocast."""
        batch = self.batch(texts)
        self.model.eval()
        with torch.inference_mode():
            logits = self.model(batch)
        return self.decision.probabilities(logits.float().numpy())

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the token ids and mask of texts, cut and padded on the right."""
        rows = [np.array(ids, dtype=np.int32) for ids in encode(list(texts), self.tokenizer, self.max_tokens)]
        ids, mask = pad_rows(rows, Padding(self.tokenizer.pad_token_id or 0))
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def calibrated_head(linear: nn.Linear, decision: Decision) -> nn.Linear:
    """Return a head with calibrated logits: temperature and Platt scaling are affine in each genre's logit.

    Args:
        linear: The trained head, one output for each genre.
        decision: Decision for the same genres.

    Returns:
        float32; the sigmoid of its output is the calibrated probability.
    """
    weight, bias = linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu()
    scale, shift = (torch.from_numpy(values) for values in decision.affine)
    folded = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        folded.weight.copy_(scale[:, None] * weight)
        folded.bias.copy_(scale * bias + shift)
    return folded.requires_grad_(requires_grad=False)


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> PreTrainedTokenizerBase:
    """Prepare a run's tokenizer for other programs, in place.

    They take the limit from it, and hand all that it gives on to a model, which may not know token types.

    Raises:
        CheckpointError: It has no token to pad texts with.
    """
    tokenizer.model_max_length = max_tokens
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    for name in _LEFT_OVER:
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise CheckpointError(
            f"the tokenizer in {tokenizer.name_or_path} has no padding, end or unknown token, as if "
            "tokenizer_config.json were missing: copy the run directory whole"
        )
    return tokenizer


class PlainTagger(nn.Module):
    """Backbone, pooling and head as one module: ids and mask in, calibrated logits out.

    Args:
        backbone: Gives `last_hidden_state`.
        pooled_by: Which state of a text the head reads.
        head: Head with the calibration folded in.
    """

    def __init__(self, backbone: nn.Module, pooled_by: PooledBy, head: nn.Linear | FusionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooled_by: PooledBy = pooled_by
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *values: Tensor) -> Tensor:
        """Return the logits, float32 (texts, genres).

        Args:
            input_ids: int64 (texts, tokens).
            attention_mask: 1 for tokens of the text, 0 for padding.
            values: One for each of the head's inputs, in their order, as `types.INPUT` describes them.
        """
        apart = {"use_cache": False} if self.pooled_by == "last" else {}
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **apart).last_hidden_state
        if self.pooled_by == "last":
            places = torch.arange(input_ids.shape[1], device=input_ids.device)
            last = (places * attention_mask).amax(dim=1, keepdim=True)
            # a sum with one term: looking the place up would fix the number of texts in an exported graph
            pooled = (states.float() * (places == last)[:, :, None]).sum(dim=1)
        else:
            pooled = pool(states, attention_mask, self.pooled_by)
        if not isinstance(self.head, FusionHead):
            return self.head(pooled)
        names = self.head.input_names
        return self.head(pooled, {f"{INPUT}{name}": value for name, value in zip(names, values, strict=True)})
