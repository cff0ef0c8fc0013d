"""Texts as token ids: tokenised once, kept as memory-mapped Arrow, shared by all ranks and all later runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.errors import ConfigError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT = 1
_BATCH_TEXTS = 1000

Progress = Callable[[int], None]
"""Called with the number of texts done since the last call."""


class TokenStore:
    """Token ids of texts, read from a memory-mapped Arrow file without copying it.

    Attributes:
        lengths: int32 (texts,): tokens of each text.
    """

    def __init__(self, path: Path) -> None:
        # not by the library that writes it, which takes half a second to load and maps the same stream
        with pa.memory_map(str(path)) as file:
            column = pa.ipc.open_stream(file).read_all()["input_ids"]
        # Arrow's own to_numpy imports pandas
        self._offsets = [np.from_dlpack(chunk.offsets) for chunk in column.chunks]
        self._values = [np.asarray(np.from_dlpack(chunk.values), np.int32) for chunk in column.chunks]
        self._first = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])
        self.lengths: NDArray[np.int32] = (
            np.concatenate([np.diff(offsets) for offsets in self._offsets]).astype(np.int32)
            if self._offsets
            else np.zeros(0, dtype=np.int32)
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, text: int) -> NDArray[np.int32]:
        """Return int32 (tokens,): a read-only view of the mapped file."""
        chunk = int(np.searchsorted(self._first, text, side="right")) - 1
        place = text - self._first[chunk]
        start, end = self._offsets[chunk][place : place + 2]
        return self._values[chunk][start:end]


class TokenLists:
    """Token ids of a few texts in memory, read like a `TokenStore`.

    Args:
        rows: Token ids of each text.

    Attributes:
        lengths: int32 (texts,): tokens of each text.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._rows = rows
        self.lengths: NDArray[np.int32] = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, text: int) -> NDArray[np.int32]:
        """Return int32 (tokens,)."""
        return np.asarray(self._rows[text], dtype=np.int32)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of everything that decides a fast tokenizer's output: its serialised form."""
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    # how the file was last used is not part of it, and we set both ourselves
    serialised.pop("truncation", None)
    serialised.pop("padding", None)
    serialised["truncation_side"] = tokenizer.truncation_side
    return hashlib.sha256(json.dumps(serialised, sort_keys=True).encode()).hexdigest()


def tokenise(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    cache_dir: Path,
    content: str,
    progress: Progress | None = None,
) -> TokenStore:
    """Return the token ids of each text, cut to `max_tokens` with its special tokens, from the cache if it has them.

    Args:
        texts: What to tokenise; read only when the cache does not hold it.
        tokenizer: A fast tokenizer.
        max_tokens: Maximum number of tokens of a text, special tokens included.
        cache_dir: Root of the cache.
        content: Names the texts and their order; equal names promise equal texts.
        progress: Called with each batch that is done.
    """
    settings = {"format": _FORMAT, "content": content, "tokenizer": tokenizer_digest(tokenizer), "max": max_tokens}

    def build(folder: Path) -> dict[str, Any]:
        from datasets import Features, List, Value
        from datasets.arrow_writer import ArrowWriter

        features = Features({"input_ids": List(Value("int32"))})
        with ArrowWriter(path=str(folder / "tokens.arrow"), features=features) as writer:
            rest = iter(texts)
            while batch := list(islice(rest, _BATCH_TEXTS)):
                writer.write_batch({"input_ids": encode(batch, tokenizer, max_tokens)})
                if progress:
                    progress(len(batch))
            writer.finalize()
        return {"texts": len(texts)}

    folder, _ = build_once(cache_dir / "tokens", key_of(settings), build)
    return TokenStore(folder / "tokens.arrow")


@dataclass(frozen=True)
class PlacedTokens:
    """The tokens of a text and where they stand in it.

    Attributes:
        ids: int64 (tokens,), as `encode` gives them.
        starts: int64 (tokens,): character of the text that each begins at; 0 for special ones.
        ends: int64 (tokens,): character behind each.
        special: bool (tokens,): whether the tokenizer has added it.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    special: NDArray[np.bool_]


def encode_with_places(text: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> PlacedTokens:
    """Return the tokens of a text, cut as `encode` cuts it, with their places."""
    with no_panic(tokenizer):
        encoded = tokenizer(
            text, truncation=True, max_length=max_tokens, return_offsets_mapping=True, return_special_tokens_mask=True
        )
    ids = encode([text], tokenizer, max_tokens)[0]
    if not encoded["input_ids"]:  # the token that stands for nothing
        return PlacedTokens(np.array(ids), np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, dtype=bool))
    starts, ends = np.array(encoded["offset_mapping"], dtype=np.int64).T
    return PlacedTokens(np.array(ids), starts, ends, np.array(encoded["special_tokens_mask"], dtype=bool))


@contextmanager
def no_panic(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Turn the panic of a tokenizer, such as of a pattern that backtracks without end, into an error of one line.

    Raises:
        ConfigError: It has panicked.
    """
    try:
        yield
    except BaseException as error:  # a panic is not an Exception, and its class has no public name
        if type(error).__name__ != "PanicException":
            raise
        raise ConfigError(
            f"the tokenizer of {tokenizer.name_or_path!r} fails on a text ({one_line(error)[:160]}): download the "
            "model again, or use another tokenizer"
        ) from None


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[list[int]]:
    """Return the token ids of texts, each cut to `max_tokens`, whatever truncation the tokenizer's file had."""
    # the call of one text sets truncation and padding; the tokenizer below it then spares masks and offsets of the rest
    with no_panic(tokenizer):
        tokenizer("", truncation=True, max_length=max_tokens, padding=False)
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts)
    # a tokenizer without special tokens makes nothing of an empty text, and a row needs a token
    return [encoding.ids or [tokenizer.pad_token_id or 0] for encoding in encoded]
