"""MaskedLanguageModel: an encoder that learns the words of films' texts before it learns their genres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from genre_lightning.config.constructors import values
from genre_lightning.config.encoder import EncoderOptions
from genre_lightning.distributed.strategies import is_sharded
from genre_lightning.errors import ConfigError
from genre_lightning.models.backbones import (
    check_vocabulary,
    empty_backbone,
    load_masked_model,
    set_dropout,
    unreached_weights,
)
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.layers.packing import (
    encoder_inputs,
    packs,
    token_places,
)
from genre_lightning.models.stepwise import StepOutput
from genre_lightning.models.token_masks import Vocabulary, mask_tokens
from genre_lightning.types import Batch, DataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class MaskedLanguageModel(DistilBertClassifier):
    """An encoder with its head over words, trained to predict hidden tokens.

    The loss of a film is the mean over its hidden tokens. It shares everything else with the classifier: how texts are
    laid out, steps, learning rates and checkpoints.

    Args:
        options: Of the encoder; those of the genres' loss have no effect.
        mask_fraction: Of a text's tokens that are predicted.
    """

    backbone: PreTrainedModel
    special: Tensor

    def __init__(self, options: EncoderOptions, mask_fraction: float = 0.15) -> None:
        super().__init__(**values(options))
        self.mask_fraction = mask_fraction
        self._vocabulary: Vocabulary | None = None

    def check(self, max_tokens: int | None = None) -> None:
        """See `GenreClassifier.check`; refuse options and backbones that have no language model to train."""
        options = self.options
        named = {"lora": options.lora, "adapter": options.adapter, "unfreeze": options.unfreeze}
        if given := [name for name, value in named.items() if value is not None]:
            raise ConfigError(
                f"model.{given[0]} is set, and pretrain trains the whole backbone: leave it out, and use it in the fit "
                "that takes the pretrained backbone"
            )
        if options.r_drop or options.fgm:
            raise ConfigError(
                "model.r_drop and model.fgm are of the genres' loss: leave them out of pretrain, and use them in fit"
            )
        super().check(max_tokens)
        if self.from_scratch:
            return
        kind = self._published_config(weights=not self.shape_only).model_type
        if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise ConfigError(
                f"model.backbone {options.backbone} is a {kind}, for which transformers has no masked language model: "
                "use an encoder such as distilbert-base-uncased"
            )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `GenreClassifier.check_tokenizer`; a mask token is needed too."""
        super().check_tokenizer(tokenizer)
        _mask_token(tokenizer)

    def check_trainer(self, strategy: Any) -> None:
        """See `GenreClassifier.check_trainer`."""
        if is_sharded(strategy):
            raise ConfigError(
                "pretrain cannot be sharded by trainer.strategy fsdp, as words share their weights with the head: set "
                "trainer.strategy=ddp"
            )
        super().check_trainer(strategy)

    def build(self, spec: DataSpec) -> None:
        """Load the backbone with its head over words; a head that is not stored starts from random weights."""
        config = self.backbone_config or self._new_config(spec)
        check_vocabulary(spec.vocab_size, config, self.options.backbone)
        set_dropout(config, self.options.dropout)
        if self.from_scratch or self.backbone_config is not None:
            model = empty_backbone(config, "AutoModelForMaskedLM")
        else:
            model = load_masked_model(self.options.backbone, self.options.revision, config)
        self._make_ready(model, config, spec)
        for weight in unreached_weights(model.base_model, self.options.backbone).values():
            weight.requires_grad = False  # DDP waits for the gradient of every weight that trains
        self.backbone_config, self.backbone = config, model
        self.head = nn.Identity()
        if spec.tokenizer is not None:
            self._vocabulary = Vocabulary(
                spec.vocab_size, _mask_token(spec.tokenizer), torch.tensor(_special(spec.tokenizer))
            )

    def forward(self, batch: Batch) -> Tensor:
        """Return the log-odds of words, float32 (tokens, words), of all tokens of a batch one after another."""
        return self._predict(batch, torch.ones(batch["input_ids"].numel(), dtype=torch.bool, device=self.device))

    def _predict(self, batch: Batch, chosen: Tensor) -> Tensor:
        """Return the log-odds of words, float32 (chosen, words), at the chosen ones of a batch's flattened tokens."""
        assert self.backbone_config is not None
        if "attention_mask" in batch:
            inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask")}
        else:
            inputs = encoder_inputs(batch, self.backbone_config)
        head = word_head(self.backbone)
        if head is None:
            logits = self.backbone(**inputs).logits
            return logits.flatten(0, 1)[: len(chosen)][chosen].float()
        states = self.backbone.base_model(**inputs).last_hidden_state.flatten(0, 1)[: len(chosen)]
        return head(states[chosen]).float()

    def model_step(self, batch: Batch) -> StepOutput:
        """Return the log-odds of words at the hidden tokens, and the sum of the films' losses."""
        assert self._vocabulary is not None, "masks need the tokenizer of the data"
        rows, places = token_places(batch)
        ids = batch["input_ids"].flatten()
        vocabulary = Vocabulary(self._vocabulary.size, self._vocabulary.mask, self._vocabulary.special.to(ids.device))
        hidden, chosen = mask_tokens(
            ids, batch["index"][rows], places, vocabulary,
            fraction=self.mask_fraction, seed=self.seed, step=self.trainer.global_step,
        )  # fmt: skip
        if "attention_mask" in batch:
            chosen = chosen & batch["attention_mask"].flatten().bool()
        logits = self._predict({**batch, "input_ids": hidden.view_as(batch["input_ids"])}, chosen)
        losses = functional.cross_entropy(logits, ids[chosen], reduction="none")
        of_film = rows[chosen]
        weights = batch["weights"]
        counts = torch.zeros_like(weights).index_add_(0, of_film, torch.ones_like(losses))
        return StepOutput(logits, (losses * (weights / counts.clamp(min=1))[of_film]).sum())


def word_head(model: PreTrainedModel) -> nn.Module | None:
    """Return what makes log-odds of words from states, of the families that pack; None if only the model knows.

    Applied to hidden tokens alone, it spares six sevenths of its work, which is as much as the encoder's.
    """
    named: Any = model
    if hasattr(named, "vocab_transform"):
        return nn.Sequential(named.vocab_transform, named.activation, named.vocab_layer_norm, named.vocab_projector)
    if hasattr(named, "generator_predictions"):
        return nn.Sequential(named.generator_predictions, named.generator_lm_head)
    kind = model.config.model_type
    return getattr(named, {"bert": "cls"}.get(kind, "lm_head"), None) if packs(model.config) else None


def _mask_token(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.mask_token_id is None:
        raise ConfigError(
            f"the tokenizer of {tokenizer.name_or_path} has no mask token, which pretrain hides words by: use the "
            "tokenizer of an encoder, such as distilbert-base-uncased"
        )
    return int(tokenizer.mask_token_id)


def _special(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return sorted({int(token) for token in tokenizer.all_special_ids} - {tokenizer.unk_token_id})
