"""What the data and the models both need to know of a tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of embeddings that a tokenizer needs: one more than the largest id that it gives.

    The vocabulary may have gaps, and what is put around every text may be in no vocabulary.
    """
    return 1 + max([*tokenizer.get_vocab().values(), *tokenizer("")["input_ids"]], default=-1)
