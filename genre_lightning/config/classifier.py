"""The options that every model has: its loss, its optimizer, and how its head reads further inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from genre_lightning.bounds import FRACTION_BELOW_ONE, SEED, Bounds, above, at_least, bound_problems
from genre_lightning.errors import ConfigError
from genre_lightning.types import LOSSES, LossFunction, PosWeight

Schedule = Literal["linear", "cosine", "constant"]
Fusion = Literal["gate", "concat"]

VALIDATION_METRICS = (
    "f1_micro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "subset_accuracy",
    "map_macro",
    "auroc_macro",
    "f1_micro_tuned",
)

GAMMA = Bounds(0, 100)
"""Exponents of the focal losses: (1 - p) ** 100 is nothing for any p that is not close to 0."""


@dataclass(kw_only=True)
class ClassifierOptions:
    """Loss and optimizer of every model.

    Attributes:
        loss: "bce" with pos_weight, "focal", "asymmetric" or "zlpr"; or a function of your own of logits, targets and
            pos_weight that gives one value for each film, such as my_package.my_loss with --trust my_package.
        pos_weight: Weight of each genre's positives: "full" is negatives / positives as in the paper, "sqrt" its
            square root, "none" one.
        pos_weight_cap: Largest such weight; null for no limit.
        focal_gamma: Exponent of the focal loss.
        asymmetric_gamma_positive: Exponent of the asymmetric loss for positives.
        asymmetric_gamma_negative: Exponent of the asymmetric loss for negatives.
        asymmetric_margin: Probability below which a negative counts nothing in the asymmetric loss.
        label_smoothing: Smoothing of "bce": a target of 1 counts as 1 - s / 2, one of 0 as s / 2.
        lr: Peak learning rate of the backbone; null chooses by its size.
        head_lr: Peak learning rate of the head; null is ten times the backbone's.
        layer_lr_decay: Each transformer block of the backbone learns this much slower than the one above it, and the
            embeddings below the first; 1 for equal rates.
        weight_decay: AdamW's weight decay; biases and norms are never decayed.
        ema_decay: Evaluate, keep and export an exponential moving average of the trained weights with this decay; null
            for the weights of the last step.
        warmup_fraction: Fraction of all optimizer steps in which the learning rate rises from 0.
        schedule: Course of the learning rate after that: "linear" or "cosine" to 0, or "constant".
        beta2: AdamW's second moment decay.
        seed: Random seed for new weights, dropout and the order of the films; null takes the run's --seed, or in Python
            that of seed_everything (0 without it).
        fusion: How the inputs of data.features join the text in the head: by a "gate" that depends on all of them, or
            side by side ("concat").
        teacher: A run, an ensemble, or a table of 'genre-lightning folds', whose probabilities of the training films
            are learnt beside their genres (distillation); of a list of these, the mean of their log-odds; null for
            none.
        teacher_weight: Weight of the teacher's loss beside that of the genres.
        drop_input: Probability that an input of a film is taken for missing in training, for each input by itself; and
            that all inputs of a film are.
        input_width: Numbers of an input's state in the head.
    """

    loss: str | LossFunction = "bce"
    pos_weight: PosWeight = "sqrt"
    pos_weight_cap: Annotated[float | None, above(0)] = None
    focal_gamma: Annotated[float, GAMMA] = 2.0
    asymmetric_gamma_positive: Annotated[float, GAMMA] = 0.0
    asymmetric_gamma_negative: Annotated[float, GAMMA] = 4.0
    asymmetric_margin: Annotated[float, FRACTION_BELOW_ONE] = 0.05
    label_smoothing: Annotated[float, FRACTION_BELOW_ONE] = 0.0
    lr: Annotated[float | None, above(0, 1e3)] = None
    head_lr: Annotated[float | None, above(0, 1e3)] = None
    layer_lr_decay: Annotated[float, above(0, 1)] = 1.0
    weight_decay: Annotated[float, Bounds(0, 1e3)] = 0.01
    ema_decay: Annotated[float | None, FRACTION_BELOW_ONE] = None
    warmup_fraction: Annotated[float, FRACTION_BELOW_ONE] = 0.1
    schedule: Schedule = "linear"
    beta2: Annotated[float, FRACTION_BELOW_ONE] = 0.999
    seed: Annotated[int | None, SEED] = None
    teacher: list[str] | str | None = None
    teacher_weight: Annotated[float, above(0, 1e3)] = 1.0
    fusion: Fusion = "gate"
    drop_input: Annotated[float, FRACTION_BELOW_ONE] = 0.1
    input_width: Annotated[int, at_least(1, 10**5)] = 128

    @property
    def loss_options(self) -> dict[str, float]:
        """Arguments of `losses.loss_function`."""
        names = ("label_smoothing", "focal_gamma", "asymmetric_gamma_positive", "asymmetric_gamma_negative",
                 "asymmetric_margin")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def check_files(self) -> None:
        """Check the model's files as far as that goes without reading them.

        Raises:
            ConfigError: A file is missing or unfit; the message names the option and the fix.
        """

    def check_options(self) -> None:
        """Check everything that the options alone show.

        Raises:
            ConfigError: An option is unfit; the message names it and the fix.
        """
        problems = bound_problems(type(self), vars(self), "model")
        if not callable(self.loss) and self.loss not in LOSSES and "." not in str(self.loss):
            problems.append(
                f"model.loss is {self.loss!r}: choose one of {', '.join(LOSSES)}, or name a function of your own"
            )
        if self.label_smoothing and self.loss != "bce":
            problems.append(
                f"model.label_smoothing is {self.label_smoothing} with model.loss {self.loss}: it is of bce alone, "
                "leave one of them out"
            )
        if problems:
            raise ConfigError("; and ".join(problems))
