"""A head over the pooled text and further inputs: tags, categories, numbers and vectors of a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from genre_lightning.config.classifier import Fusion
from genre_lightning.types import INPUT, FittedInput

_STEP = 10.0
"""What embeddings of names are multiplied by: AdamW moves each weight by about the learning rate in a step, and the
embedding of a rare tag is in few of them."""


class InputEncoder(nn.Module):
    """One input of a film as a state; a missing one, and one that is dropped in training, has a learnt state.

    Names are the mean of their embeddings times the root of their number. Other inputs go through a linear layer,
    which for a single number is applied to the hinges `max(z - t, 0)` at a few points t of it.

    Args:
        fitted: The input.
        width: Width of the state.
        drop: Probability that a film's input is dropped in training.
    """

    def __init__(self, fitted: FittedInput, width: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.is_named = fitted.is_named
        size = len(fitted.mean)
        if self.is_named:
            # two more: none, and unknown
            self.names = nn.Embedding(len(fitted.values) + 2, width)
            nn.init.normal_(self.names.weight, std=0.3 / _STEP)
        else:
            self.register_buffer("hinges", torch.tensor([-1.5, -0.5, 0.5, 1.5]), persistent=False)
            inputs = 5 if size == 1 else size
            self.linear = nn.Linear(inputs, width)
            nn.init.normal_(self.linear.weight, std=0.5 * inputs**-0.5)
            nn.init.zeros_(self.linear.bias)
        self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the states, float32 (films, width).

        Args:
            values: One input, as `types.INPUT` describes it.
            kept: bool (films, 1): films whose inputs are not all dropped; None for all.
        """
        if self.is_named:
            real = values > 0
            count = real.sum(dim=1, keepdim=True)
            state = (self.names(values) * real[:, :, None]).sum(dim=1) * _STEP / count.clamp(min=1) ** 0.5
            known = count > 0
        else:
            numbers, known = values[:, :-1], values[:, -1:] > 0
            if numbers.shape[1] == 1:
                hinges = torch.relu(numbers - self.hinges)  # type: ignore[operator]  # a buffer
                numbers = torch.cat([numbers, hinges], dim=1)
            state = self.linear(numbers)
        if self.training and self.drop:
            known = known & (torch.rand(known.shape, device=known.device) >= self.drop)
        if kept is not None:
            known = known & kept
        return torch.where(known, state, self.missing)


class FusionHead(nn.Module):
    """One logit for each genre from the pooled text and further inputs.

    "gate" multiplies each input's state by a gate, a sigmoid of the text and all inputs (Arevalo et al., "Gated
    Multimodal Units for Information Fusion", 2017); the text's own gate is 1, so that a pretrained backbone's states
    reach the head as they are. "concat" takes text and inputs as they are.

    Args:
        head: Dropout and linear layer over the text alone.
        inputs: Fitted on the training films.
        fusion: "gate" or "concat".
        width: Width of an input's state.
        drop_input: Probability that a film's input is dropped in training, drawn for each input by itself; and that all
            of its inputs are dropped together.
    """

    def __init__(
        self, head: nn.Sequential, inputs: Sequence[FittedInput], *, fusion: Fusion, width: int, drop_input: float
    ) -> None:
        super().__init__()
        dropout, text = head
        assert isinstance(text, nn.Linear)
        self.dropout, self.text = dropout, text
        self.drop_input = drop_input
        text_width, genres = text.in_features, text.out_features
        self.input_names = tuple(one.name for one in inputs)
        self.encoders = nn.ModuleList(InputEncoder(one, width, drop_input) for one in inputs)
        self.fusion = fusion
        if fusion == "gate":
            self.gate = nn.Linear(text_width + len(inputs) * width, len(inputs) * width)
            nn.init.normal_(self.gate.weight, std=0.02)
            nn.init.zeros_(self.gate.bias)
        self.inputs = nn.Linear(len(inputs) * width, genres, bias=False)
        nn.init.normal_(self.inputs.weight, std=0.02)

    def forward(self, pooled: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits, float32 (films, genres).

        Args:
            pooled: float32 (films, width of the text).
            batch: Batch with the inputs, as `types.INPUT` describes them.
        """
        pooled = self.dropout(pooled)
        kept = None
        if self.training and self.drop_input:
            kept = torch.rand((len(pooled), 1), device=pooled.device) >= self.drop_input
        encoders = zip(self.input_names, self.encoders, strict=True)
        states = torch.cat([encoder(batch[f"{INPUT}{name}"], kept) for name, encoder in encoders], dim=1)
        if self.fusion == "gate":
            states = torch.sigmoid(self.gate(torch.cat([pooled, states], dim=1))) * torch.tanh(states)
        else:
            states = functional.gelu(states)
        return self.text(pooled) + self.inputs(self.dropout(states))


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of the head in a batch."""
    return {name: values for name, values in batch.items() if name.startswith(INPUT)}


def no_inputs(model: str) -> str:
    """Return the message that a model reads no inputs beside the text."""
    return (
        f"data.features has inputs for the head, and {model} reads texts alone: set place: text for them, or use "
        "DistilBertClassifier, LlamaQLoraClassifier or a TF-IDF baseline"
    )


def blank_inputs(inputs: Sequence[FittedInput], films: int) -> dict[str, Tensor]:
    """Return the inputs of films that have none of them."""
    return {
        f"{INPUT}{one.name}": torch.zeros(films, 1, dtype=torch.int64)
        if one.is_named
        else torch.zeros(films, len(one.mean) + 1)
        for one in inputs
    }
