"""A package of a user's own, as the how-to guides show it: nothing in it is known to genre_lightning."""

import csv
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from genre_lightning import Batch, ClassifierOptions, DataSpec, GenreClassifier


class BagOfWords(GenreClassifier):
    """The mean of a text's word vectors, through a linear head."""

    def __init__(self, width: int = 32, lr: float = 1e-2, loss: str = "bce") -> None:
        super().__init__(ClassifierOptions(lr=lr, loss=loss))
        self.save_hyperparameters(ignore="loss")  # a checkpoint holds plain values, and a function is none
        self.width = width

    def build(self, spec: DataSpec) -> None:
        """Make the two parts that every classifier has."""
        self.backbone = nn.Embedding(spec.vocab_size, self.width, padding_idx=spec.pad_token_id)
        self.head = nn.Linear(self.width, len(spec.genres))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a padded batch."""
        mask = batch["attention_mask"].unsqueeze(-1)
        return self.head((self.backbone(batch["input_ids"]) * mask).sum(dim=1) / mask.sum(dim=1))


def soft_f1(logits: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """One minus the F1 of the probabilities, for each film."""
    probabilities = logits.sigmoid()
    hits = (probabilities * targets).sum(dim=1)
    return 1 - 2 * hits / (probabilities.sum(dim=1) + targets.sum(dim=1))


def scalar(logits: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """A loss that forgets which film it is of."""
    return soft_f1(logits, targets, pos_weight).mean()


def read_films(path):
    """Films of a CSV, with their overviews in small letters."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {"id": row["id"], "overview": row["overview"].lower(), "genres": row["genres"]}


class NoteSteps(Callback):
    """Writes how many steps were trained into the run directory."""

    def on_fit_end(self, trainer, pl_module):
        """See Lightning."""
        Path(trainer.default_root_dir, "steps.txt").write_text(str(trainer.global_step), encoding="utf-8")


class Impostor(torch.nn.Module):
    """Not a classifier."""
