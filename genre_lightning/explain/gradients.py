"""Integrated gradients over the input embeddings of a trained model, by captum."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.data.tokens import encode_with_places
from genre_lightning.errors import ConfigError
from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.words import split_words
from genre_lightning.inference.model_scorer import ModelScorer, require_finite
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.types import INPUT

FIRST_STEPS, MOST_STEPS = 16, 512
LEAST_CHANGE = 0.5
"""Log-odds that a completeness error is at least compared with: a change near 0 has no fraction that could be small."""


class GradientAttributor:
    """Explains an encoder or an adapted decoder by integrated gradients (Sundararajan et al. 2017).

    The path leads straight from the embeddings of a text in which each token but the tokenizer's special ones is
    replaced, to those of the text; positions and special tokens stay. The state of each input of the head goes the same
    way, from that of a missing input. Gradients are taken at the middles of equal steps, whose number is doubled until
    the attributions add up.

    Args:
        scorer: The run's predictor, in 32 bits: a sum of hundreds of gradients needs the digits.
        steps: Exact number of steps; None doubles from `FIRST_STEPS` to `MOST_STEPS`.
        bound: Completeness error at which the doubling ends, as a fraction of the change from baseline to text, or of
            `LEAST_CHANGE` if that is more.
    """

    def __init__(self, scorer: ModelScorer, steps: int | None = None, bound: float = 0.01) -> None:
        self.scorer = scorer
        self.steps = steps
        self.bound = bound
        tokenizer = scorer.tokenizer
        # padding before others: texts of nothing else get what is frequent, those of [MASK] some genre at random
        found = (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
        self.replacement: int = next((number for number in found if number is not None), 0)
        head = getattr(scorer.model, "head", None)
        encoders = dict(zip(head.input_names, head.encoders, strict=True)) if isinstance(head, FusionHead) else {}
        self.names = tuple(encoders)
        self.baseline = f"{tokenizer.convert_ids_to_tokens(self.replacement)} in place of each word piece" + (
            " and no inputs" if encoders else ""
        )
        if not hasattr(scorer.model.backbone, "get_input_embeddings"):
            raise ConfigError(
                f"{type(scorer.model).__name__} cannot be explained: its backbone needs get_input_embeddings(), as "
                "models of transformers have it, whose layer the words are attributed to"
            )
        # the gradients of the weights would cost a third of the work
        scorer.model.requires_grad_(requires_grad=False)
        embeddings = scorer.model.backbone.get_input_embeddings()  # type: ignore[operator]  # of transformers
        with warnings.catch_warnings():
            # none of the layers reads another
            warnings.filterwarnings("ignore", message="Multiple layers provided")
            self.gradients = LayerIntegratedGradients(self._logits, [embeddings, *encoders.values()])

    def attribute(self, text: str, genres: Sequence[int], inputs: EncodedInputs | None = None) -> Attribution:
        """See `Attributor`."""
        assert self.scorer.max_tokens is not None
        tokens = encode_with_places(text, self.scorer.tokenizer, self.scorer.max_tokens)
        ids = torch.from_numpy(tokens.ids)[None].to(self.scorer.device)
        special = torch.from_numpy(tokens.special).to(self.scorer.device)
        baseline = torch.where(special, ids, self.replacement)
        given = inputs.batch(np.zeros(1, dtype=np.int64)) if inputs is not None else {}
        values = [torch.from_numpy(given[f"{INPUT}{name}"]).to(self.scorer.device) for name in self.names]
        film, missing = (ids, *values), (baseline, *map(torch.zeros_like, values))
        with torch.no_grad():
            logits = self._logits(*(torch.cat(pair) for pair in zip(film, missing, strict=True)))
            both = require_finite(logits.cpu().numpy()).astype(np.float64)
        columns = list(genres)
        start, end = both[1, columns], both[0, columns]
        found = [self._integrate(film, missing, g, float(e - s)) for g, e, s in zip(columns, end, start, strict=True)]
        by_token = np.stack([tokens_added for (tokens_added, *_), _ in found], axis=1)
        by_input = {
            name: np.array([parts[place].sum() for parts, _ in found]) for place, name in enumerate(self.names, start=1)
        }
        words, own = split_words(text), ~tokens.special
        return Attribution(
            words=words,
            read=int(tokens.ends.max()),
            values=words.sum_by_word(tokens.starts[own], tokens.ends[own], by_token[own]),
            log_odds=end,
            baseline=start,
            steps=np.array([steps for _, steps in found], dtype=np.int64),
            inputs=by_input,
        )

    def _integrate(
        self, film: tuple[Tensor, ...], missing: tuple[Tensor, ...], genre: int, change: float
    ) -> tuple[list[NDArray[np.float64]], int]:
        """Return the attributions to a genre, float64 (tokens,) and (1,) for each input, and the number of steps."""
        steps = self.steps or FIRST_STEPS
        while True:
            attributions = self.gradients.attribute(
                film,
                missing,
                target=genre,
                n_steps=steps,
                method="riemann_middle",
                internal_batch_size=max(1, self.scorer.micro_batch_tokens // film[0].shape[1]),
            )
            # on the host, as not every device has 64 bits; the row is the film
            values = [part[0].cpu().double().sum(dim=-1).reshape(-1).numpy() for part in attributions]
            enough = abs(sum(part.sum() for part in values) - change) <= self.bound * max(abs(change), LEAST_CHANGE)
            if self.steps or steps >= MOST_STEPS or enough:
                return values, steps
            steps *= 2

    def _logits(self, ids: Tensor, *values: Tensor) -> Tensor:
        # padded batches of one length need no padding; packed ones would be one row of all points of the path
        inputs = {f"{INPUT}{name}": value for name, value in zip(self.names, values, strict=True)}
        return self.scorer.model({"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs})
