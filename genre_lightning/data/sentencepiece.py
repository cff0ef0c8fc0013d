"""Llama tokenizers in the two bare forms that come without transformers' own files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.errors import ConfigError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LARGEST_TOKEN = 4096


def bare_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a directory with only tokenizer.model or llama2.c's tok*.bin of it; else None.

    Raises:
        ConfigError: The file is damaged.
    """
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    if (folder / "tokenizer.model").is_file():
        from transformers import LlamaTokenizer

        try:
            # without a configuration beside the file, transformers leaves the bos token and the leading space out
            return LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
        except Exception as error:  # of whichever format it was taken for last
            raise ConfigError(
                f"{folder / 'tokenizer.model'} cannot be read as a SentencePiece model ({one_line(error)[:120]}): "
                "download it again"
            ) from None
    files = sorted([*folder.glob("tok*.bin")])
    return _from_llama2c(files[0]) if len(files) == 1 else None


def _from_llama2c(file: Path) -> PreTrainedTokenizerBase:
    from transformers import LlamaTokenizer

    pieces = _read_pieces(file)
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    # the more likely a piece, the earlier its two halves are joined
    by_score = sorted(range(len(pieces)), key=lambda number: -pieces[number][1])
    merges = [
        (piece[:cut], piece[cut:])
        for piece in (pieces[number][0] for number in by_score)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary and not piece.startswith("<0x")
    ]
    return LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)


def _read_pieces(file: Path) -> list[tuple[str, float]]:
    """Return pieces and scores: after one int32, for each a float32 score, an int32 length and that many bytes."""
    content, place = file.read_bytes(), 4
    pieces = []
    try:
        while place < len(content):
            score, length = struct.unpack_from("<fi", content, place)
            if not 0 <= length <= _LARGEST_TOKEN or place + 8 + length > len(content):
                raise ValueError("a length is out of range")
            text = content[place + 8 : place + 8 + length].decode("utf-8")
            pieces.append((_SPECIAL.get(text, text.replace(" ", "▁")), score))
            place += 8 + length
    except (struct.error, ValueError) as error:
        raise ConfigError(f"{file} is not a tokenizer of llama2.c ({error}): give one in transformers' form") from None
    return pieces


# what llama2.c writes for its second and third piece
_SPECIAL = {"\n<s>\n": "<s>", "\n</s>\n": "</s>"}
