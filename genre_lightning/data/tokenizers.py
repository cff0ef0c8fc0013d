"""The tokenizer of a run: a model's own, or a WordPiece vocabulary trained on the training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.cache import build_once, key_of
from genre_lightning.data.sentencepiece import bare_tokenizer
from genre_lightning.data.tokenizer_limits import check_growth
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.foreign import model_file, read_object
from genre_lightning.node import once_on_node

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED = "wordpiece"
"""The value of `data.tokenizer` that asks for a vocabulary trained on the training split."""

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FORMAT = 2
_MOST_LETTERS = 1000


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a model of the hub or of a local directory; no code of the model's is run.

    Raises:
        ConfigError: It cannot be found or loaded, or knows no words.
    """
    _check_class(name, revision)
    _check_growth(name, revision)
    try:
        tokenizer = bare_tokenizer(Path(name)) or _from_folder_or_hub(name, revision)
        knows = _knows_words(tokenizer)
    except (KeyboardInterrupt, SystemExit, ConfigError):
        raise
    except BaseException as error:  # transformers raises a dozen kinds, and a panic of tokenizers is not an Exception
        raise _unloadable(name, error) from None
    if not tokenizer.is_fast:
        raise ConfigError(f"{name!r} has no fast tokenizer: convert it to tokenizer.json, or use another backbone")
    if not knows:
        raise ConfigError(
            f"the tokenizer of {name!r} has no vocabulary, so that every word would be unknown: copy the tokenizer's "
            f"files of the same model beside its weights, such as tokenizer.json, or set data.tokenizer={TRAINED} with "
            "model.backbone=small"
        )
    return tokenizer


def _from_folder_or_hub(name: str, revision: str | None) -> PreTrainedTokenizerBase:
    """Load a tokenizer; one rank of a node asks the hub, and the others take what it has fetched."""
    from transformers import AutoTokenizer

    loaded: list[PreTrainedTokenizerBase] = []

    def load(*, local: bool = False) -> str:
        loaded.append(
            AutoTokenizer.from_pretrained(
                name, revision=revision, use_fast=True, trust_remote_code=False, local_files_only=local
            )
        )
        return ""

    if not Path(name).is_dir():
        once_on_node(f"tokenizer {name} {revision}", load)
    if not loaded:
        load(local=True)
    return loaded[0]


def _unloadable(name: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"no tokenizer could be loaded from {name!r} ({one_line(error)[:200]}): name a model of the hub "
        "that is reachable, or a local directory with tokenizer files"
    )


_PLAIN_TEXT = (
    " ".join("abcdefghijklmnopqrstuvwxyz0123456789") + " \u0430 \u03b1 \u05e9 \u0627 \u4e2d \u306e \u0e01 \u0939 \uac00"
)
"""Letters of the scripts that tokenizers are made for; each knows some of them."""


def _knows_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer makes tokens other than unknown and special ones of letters, not counting spaces."""
    special = set(tokenizer.all_special_ids)
    tokens = {token for token in tokenizer(_PLAIN_TEXT, add_special_tokens=False)["input_ids"] if token not in special}
    return any(str(token).strip("\u2581\u0120# ") for token in tokenizer.convert_ids_to_tokens(sorted(tokens)))


def _check_class(name: str, revision: str | None) -> None:
    """Refuse a tokenizer that names any other of transformers' classes than a tokenizer's, which would load itself.

    Raises:
        ConfigError: It names another class, or the file with the class name is unreadable.
    """
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    for file in ("tokenizer_config.json", "config.json"):
        try:
            path = model_file(name, file, revision)
        except ConfigError as error:
            raise _unloadable(name, error) from None
        kind = read_object(path).get("tokenizer_class") if path else None
        if kind is None:
            continue
        is_name = isinstance(kind, str) and kind.isidentifier()
        # a name that transformers does not know stands for its plain class
        found: Any = (tokenizer_class_from_name(kind) if is_name else None) or PreTrainedTokenizerBase
        if not is_name or not (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)):
            raise ConfigError(
                f"{file} of {name!r} has tokenizer_class {kind!r}, which is not a tokenizer of transformers: "
                "remove it, or download the model again"
            )


def _check_growth(name: str, revision: str | None) -> None:
    try:
        if path := model_file(name, "tokenizer.json", revision):
            check_growth(path)
    except ConfigError as error:
        raise _unloadable(name, error) from None


def train_wordpiece(
    texts: Iterable[str], *, vocab_size: int, max_tokens: int, cache_dir: Path, content: str
) -> PreTrainedTokenizerBase:
    """Return a lower-casing WordPiece tokenizer with BERT's special tokens, trained once for each content.

    Args:
        texts: Texts of the training split; read only when the cache does not hold the tokenizer.
        vocab_size: Tokens of the vocabulary, special ones included.
        max_tokens: Maximum number of tokens of a text; kept in the tokenizer as its model's limit.
        cache_dir: Root of the cache.
        content: Names the texts; equal names promise equal texts.
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
    """Return a WordPiece tokenizer whose vocabulary depends on the texts alone.

    The trainer numbers the pieces "##a", "##b", … as it meets them in a hash map of random order, and breaks ties of
    frequency by these numbers, so that two trainings on the same texts differ. Named beforehand, they have theirs.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    letters, inner = _letters(texts, normalizer, splitter)
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.normalizer, draft.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_SPECIAL_TOKENS, *(f"##{letter}" for letter in inner)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    # made again, since the draft takes the pieces that were named for special tokens
    numbers = draft.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(list(_SPECIAL_TOKENS))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    return tokenizer


def _letters(texts: Iterable[str], normalizer: Any, splitter: Any) -> tuple[list[str], list[str]]:
    """Return the most frequent characters of the texts, and those of them that stand within words; both sorted."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    counts: Counter[str] = Counter()
    within: set[str] = set()
    for word, times in words.items():
        within.update(word[1:])
        for letter in word:
            counts[letter] += times
    kept = sorted(sorted(counts), key=lambda letter: -counts[letter])[:_MOST_LETTERS]
    return sorted(kept), sorted(within.intersection(kept))
