"""What a checkpoint holds beside its tensors: enough to build the model, to decide, and to resume its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from genre_lightning.errors import CheckpointError
from genre_lightning.files import damaged
from genre_lightning.shapes import Shape, count, require_shape, text
from genre_lightning.types import DataSpec, FittedInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINT_KEY = "genre_lightning"


def _real(value: Any) -> bool:
    """Check for a number, which may be infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool)


_BASE: Shape = {
    "name": text,
    "revision?": text,
    "commit?": text,
    "sha256?": text,
    "random?": {"*": None},
    "quantization?": text,
    "compute_dtype?": text,
    "quant_storage?": text,
    "architecture?": {"*": None},
}
_SHAPE: Shape = {
    "genres": [text],
    "positives?": [count],
    "films?": count,
    "known?": [count],
    "pos_weight": [_real],
    "vocab_size": count,
    "pad_token_id": count,
    "max_tokens": count,
    "decision?": {"*": None},
    "epoch_sums": [_real],
    "skipped_steps?": count,
    "base?": _BASE,
    "backbone?": _BASE,
    "backbone_config?": {"*": None},
    "lora?": {"*": None},
    "adapter?": {"*": None},
    "inputs?": [{"*": None}],
    "parent?": {"run": text, "checkpoint_sha256": text, "generation": count},
}


@dataclass(frozen=True)
class BaseMetadata:
    """The model that a training started from; of an encoder little more than its name is known."""

    name: str
    revision: str | None = None
    commit: str | None = None
    """Of the hub, if it came from there."""
    sha256: str | None = None
    """Of the weights that the checkpoint's adapters stand on, which it does not hold."""
    random: dict[str, Any] | None = None
    """Seed and configuration of weights that are drawn in place of being read."""
    quantization: str | None = None
    compute_dtype: str | None = None
    quant_storage: str | None = None
    architecture: dict[str, Any] | None = None
    """Of a base without a configuration of its own."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; of an encoder those that are known."""
        values = asdict(self)
        return values if self.compute_dtype else {n: v for n, v in values.items() if v is not None or n == "revision"}


@dataclass(frozen=True)
class CheckpointMetadata:
    """Metadata of a model's checkpoint.

    Attributes:
        genres: Names, in the order of the logits' columns.
        pos_weight: Weight of each genre's positives in the loss.
        vocab_size: See `DataSpec`, as for the next two.
        epoch_sums: Loss and films of the epoch so far.
        positives: See `DataSpec`, as for films and known; checkpoints of early versions do not have them.
        decision: As `Decision.to_dict` gives it; None before it is fitted.
        skipped_steps: Steps that a loss scale too large has cost.
        base: The frozen base of a decoder, of which the checkpoint holds nothing.
        backbone: The model that an encoder's training started from.
        backbone_config: The encoder's configuration.
        lora: The options of LoRA adapters.
        adapter: The options of another method's adapters.
        inputs: Of the head, beside the text, as they were fitted.
        parent: The run that the training continues from.
    """

    genres: tuple[str, ...]
    pos_weight: list[float]
    vocab_size: int
    pad_token_id: int
    max_tokens: int
    epoch_sums: list[float]
    positives: list[int] | None = None
    films: int = 0
    known: list[int] | None = None
    decision: dict[str, Any] | None = None
    skipped_steps: int = 0
    base: BaseMetadata | None = None
    backbone: BaseMetadata | None = None
    backbone_config: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None
    adapter: dict[str, Any] | None = None
    inputs: tuple[FittedInput, ...] = ()
    parent: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CheckpointMetadata:
        """Read the metadata from plain values; names that are not known are passed over.

        Raises:
            ValueError: Naming the first value that is not what it should be.
        """
        require_shape(values, _SHAPE)
        known = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        for name in known.keys() & {"base", "backbone"}:
            known[name] = BaseMetadata(**{field.name: known[name].get(field.name) for field in fields(BaseMetadata)})
        known["inputs"] = tuple(map(FittedInput.from_dict, known.get("inputs", ())))
        return cls(**{**known, "genres": tuple(known["genres"])})

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], what: object = "the checkpoint") -> CheckpointMetadata:
        """Return the metadata of a checkpoint.

        Args:
            checkpoint: Its content.
            what: Its name, for the message of an error.

        Raises:
            CheckpointError: It was not written by this project, or is damaged.
        """
        values = checkpoint.get(CHECKPOINT_KEY)
        if not isinstance(values, Mapping):
            raise CheckpointError(
                f"{what} was not written by genre-lightning: give a checkpoint or run directory of its own"
            )
        try:
            return cls.from_json(values)
        except ValueError as error:
            raise damaged(str(what), f"its metadata: {error}", "use another checkpoint") from None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with those of the kind of model that it is of."""
        values: dict[str, Any] = {
            "genres": list(self.genres),
            "positives": self.positives,
            "films": self.films,
            **({} if self.known is None else {"known": self.known}),
            "pos_weight": self.pos_weight,
            "vocab_size": self.vocab_size,
            "pad_token_id": self.pad_token_id,
            "max_tokens": self.max_tokens,
            "decision": self.decision,
            "epoch_sums": self.epoch_sums,
            "skipped_steps": self.skipped_steps,
        }
        if self.base is not None:
            values["base"] = self.base.to_json()
        if self.backbone is not None:
            values |= {"backbone": self.backbone.to_json(), "backbone_config": self.backbone_config}
        if self.lora is not None or self.backbone is not None:
            values["lora"] = self.lora
        if self.adapter is not None:
            values["adapter"] = self.adapter
        if self.inputs:
            values["inputs"] = [asdict(one) for one in self.inputs]
        if self.parent is not None:
            values["parent"] = self.parent
        return values

    def spec(self, tokenizer: PreTrainedTokenizerBase | None = None) -> DataSpec:
        """Return the `DataSpec` of the data that the checkpoint was trained on.

        Args:
            tokenizer: Of the data, for models that add words of their own.

        Raises:
            CheckpointError: A count or a weight is not there for each genre.
        """
        for name, values in (("pos_weight", self.pos_weight), ("positives", self.positives), ("known", self.known)):
            if values is not None and len(values) != len(self.genres):
                reason = f"its metadata: {name} has {len(values)} values for {len(self.genres)} genres"
                raise damaged("the checkpoint", reason, "use another checkpoint")
        return DataSpec(
            genres=self.genres,
            positives=np.array(self.positives or np.zeros(len(self.genres)), dtype=np.int64),
            films=self.films,
            vocab_size=self.vocab_size,
            pad_token_id=self.pad_token_id,
            max_tokens=self.max_tokens,
            tokenizer=tokenizer,
            inputs=self.inputs,
            known=None if self.known is None else np.array(self.known, dtype=np.int64),
        )
