"""StoredModule: what a checkpoint holds of a model, and which checkpoints it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.models.average import exchange_in_checkpoint
from genre_lightning.models.built import BuiltModule
from genre_lightning.models.checkpoint import check_same_genres, check_same_inputs, check_same_tensors
from genre_lightning.models.lora import is_start
from genre_lightning.models.metadata import CHECKPOINT_KEY, CheckpointMetadata


class StoredModule(BuiltModule):
    """A model whose checkpoints hold what was trained, and what is needed to build it again."""

    def __init__(self, options: ClassifierOptions | None = None) -> None:
        super().__init__(options)
        self.decision: dict[str, Any] | None = None
        self.adapter_state: frozenset[str] = frozenset()
        """Names of the parameters and buffers of adapters that a checkpoint holds, whether they train or not."""
        self.parent: dict[str, Any] | None = None
        """The run that the training continues from, as its lineage names it."""

    @property
    def strict_loading(self) -> bool:
        """False: a checkpoint holds what was trained, and `on_load_checkpoint` checks that nothing of it is missing."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        """Accept Lightning's own switch; it has no effect here."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See `torch.nn.Module.load_state_dict`; frozen weights of an adapted base are not missed."""
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        if self._built and not strict:
            trained = self.trained_names()
            result.missing_keys[:] = [name for name in result.missing_keys if name in trained]
        return result

    def trained_names(self) -> set[str]:
        """Return the names of the parameters and persistent buffers that a checkpoint must hold."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad and not is_start(name)}
        kept = set(self.state_dict()) - (frozen - self.adapter_state if self.adapters else set())
        return {name for name in kept if not name.startswith("evaluation_metrics.")}

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """Return what besides weights is needed to use them: genres, size of the input, and what a subclass adds."""
        assert self.spec is not None
        return CheckpointMetadata(
            genres=self.spec.genres,
            positives=[int(count) for count in self.spec.positives],
            films=self.spec.films,
            known=None if self.spec.known is None else [int(count) for count in self.spec.known],
            pos_weight=[float(w) for w in self.pos_weight],
            vocab_size=self.spec.vocab_size,
            pad_token_id=self.spec.pad_token_id,
            max_tokens=self.spec.max_tokens,
            inputs=self.spec.inputs,
            decision=self.decision,
            epoch_sums=self.sums.epoch.tolist(),
            skipped_steps=self.finite_steps.skipped,
            parent=self.parent,
        )

    def read_metadata(self, metadata: CheckpointMetadata) -> None:
        """Take from a checkpoint what the model is built by, before it is built.

        Args:
            metadata: What `checkpoint_metadata` gave.
        """
        if self.spec is None:
            self.bind(metadata.spec(), np.array(metadata.pos_weight, dtype=np.float32))

    def check_metadata(self, metadata: CheckpointMetadata) -> None:
        """Refuse a checkpoint that was trained over another base; comes once the model is built.

        Args:
            metadata: What `checkpoint_metadata` gave.

        Raises:
            CheckpointError: With what differs.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained part of the weights, and the metadata.

        Raises:
            DivergedError: The weights are spoilt, and must not take the place of good ones.
        """
        if self._trainer is not None:
            self.check_finite()
        kept = self.trained_names()
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n in kept}
        if self.options.ema_decay is not None and not self.averaged and self._trainer is not None:
            for optimizer in self.trainer.optimizers[:1]:
                exchange_in_checkpoint(checkpoint, optimizer, self)
        checkpoint[CHECKPOINT_KEY] = self.checkpoint_metadata().to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model if it is not, and refuse a checkpoint of other genres or another shape of model.

        Raises:
            CheckpointError: With what differs.
        """
        metadata = CheckpointMetadata.of(checkpoint)
        if not self._built:
            self.read_metadata(metadata)
            self.configure_model()
        assert self.spec is not None
        self.check_metadata(metadata)
        check_same_genres(metadata.genres, self.spec.genres)
        check_same_inputs(metadata.inputs, self.spec.inputs)
        check_same_tensors(self, checkpoint["state_dict"], self.trained_names())
        self.averaged = self.options.ema_decay is not None
        self.decision = metadata.decision
        self.parent = metadata.parent
        self.sums.epoch.copy_(torch.tensor(metadata.epoch_sums, dtype=torch.float64))
        self.finite_steps.skipped = metadata.skipped_steps
