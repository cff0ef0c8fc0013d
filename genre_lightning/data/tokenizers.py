"""The tokenizer of a run: a model's own, or a WordPiece vocabulary trained on the training split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.data.cache import build_once, key_of
from genre_lightning.data.sentencepiece import bare_tokenizer
from genre_lightning.errors import ConfigError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED = "wordpiece"
"""The value of `data.tokenizer` that asks for a vocabulary trained on the training split."""

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FORMAT = 1


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model of the hub or of a local directory; no code of the model's is run.

    Raises:
        ConfigError: it cannot be found or loaded.
    """
    from transformers import AutoTokenizer

    if (bare := bare_tokenizer(Path(name))) is not None:
        return bare
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, use_fast=True, trust_remote_code=False)
    except Exception as error:  # transformers raises a dozen kinds for a model that is not there
        raise ConfigError(
            f"no tokenizer could be loaded from {name!r} ({one_line(error)[:200]}): name a model of the hub "
            "that is reachable, or a local directory with tokenizer files"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"{name!r} has no fast tokenizer: convert it to tokenizer.json, or use another backbone")
    return tokenizer


def train_wordpiece(
    texts: Iterable[str], *, vocab_size: int, max_tokens: int, cache_dir: Path, content: str
) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece tokenizer with BERT's special tokens, trained once for each content.

    Args:
        texts: of the training split; read only when the cache does not hold the tokenizer.
        vocab_size: tokens of the vocabulary, special ones included.
        max_tokens: of a text; kept in the tokenizer as its model's limit.
        cache_dir: root of the cache.
        content: names the texts; equal names promise equal texts.
    """
    from transformers import PreTrainedTokenizerFast

    settings = {"format": _FORMAT, "content": content, "vocab_size": vocab_size, "max_tokens": max_tokens}

    def build(folder: Path) -> dict[str, Any]:
        fast = PreTrainedTokenizerFast(
            tokenizer_object=_trained(texts, vocab_size),
            model_max_length=max_tokens,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            mask_token="[MASK]",
        )
        fast.save_pretrained(folder)
        return {}

    folder, _ = build_once(cache_dir / "tokenizers", key_of(settings), build)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _trained(texts: Iterable[str], vocab_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(_SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    return tokenizer
