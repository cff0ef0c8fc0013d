"""ZeroShotLlama: asks a language model about each genre of a film, and trains nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genre_lightning.config.constructors import takes
from genre_lightning.config.decoder import PROMPT, ZeroShotOptions
from genre_lightning.errors import ConfigError
from genre_lightning.models.chat_format import render_chat
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.types import Batch, DataSpec, Layout

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["PROMPT", "Questions", "ZeroShotLlama"]

_TEXT, _GENRE = "{text}", "{genre}"
_ANCHOR = "."


@dataclass(frozen=True)
class Questions:
    """The prompt as tokens: what comes before a film's text, and the questions that follow it.

    Attributes:
        head: int64 (tokens,): before the text.
        tokens: int64 (tokens of all questions,): one question behind another.
        question: int64, as `tokens`: which question each token is of.
        place: int64, as `tokens`: its place in its question, from 0.
        last: int64 (genres,): where each question ends.
        yes: int64: first tokens of the answer yes, in all its spellings.
        no: Spellings of the answer that it does not fit.
        lead: Special tokens that the tokenizer puts before every text.
        trail: Special tokens that it puts behind.
    """

    head: Tensor
    tokens: Tensor
    question: Tensor
    place: Tensor
    last: Tensor
    yes: Tensor
    no: Tensor
    lead: int
    trail: int

    def to(self, device: torch.device) -> Questions:
        """Return the same on a device."""
        tensors: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


class ZeroShotLlama(FrozenDecoder):
    """The odds that a language model gives to yes against no when asked whether a film has a genre.

    A film's text is encoded once; the questions about its genres share its keys and values.

    Args:
        options: Those of `ZeroShotOptions`, each as an argument; loss and optimizer are of no use here.
    """

    options: ZeroShotOptions

    auto_class = "AutoModelForCausalLM"

    @takes(ZeroShotOptions)
    def __init__(self, options: ZeroShotOptions) -> None:
        super().__init__(options)
        self.questions: Questions | None = None

    @property
    def trains(self) -> bool:
        """False: the model is evaluated as it is."""
        return False

    @property
    def adapters(self) -> bool:
        """True: a checkpoint holds no weights of the base."""
        return True

    @property
    def layout(self) -> Layout:
        """Padded: each film's row continues with its questions."""
        return "padded"

    def build(self, spec: DataSpec) -> None:
        """Make the questions, then load the language model with its own head, which is never quantised."""
        config = self.backbone_config = self.new_config(spec)
        if not self.shape_only:
            self._prepare_questions(spec, config)
        self.backbone = self.build_decoder(spec)
        self.head = nn.Identity()

    def _prepare_questions(self, spec: DataSpec, config: PretrainedConfig) -> None:
        if spec.tokenizer is None:
            raise RuntimeError("the questions need the tokenizer of the data")
        self.questions = self._questions(spec.tokenizer, spec.genres)
        longest = len(self.questions.head) + spec.max_tokens + int(self.questions.place.max()) + 1
        positions = getattr(config, "max_position_embeddings", None)
        if positions and longest > positions:
            raise ConfigError(
                f"data.max_tokens is {spec.max_tokens}, and with the prompt {longest} tokens are more than the "
                f"{positions} positions of {self.options.backbone}: "
                f"set data.max_tokens={spec.max_tokens - longest + positions}"
            )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `GenreClassifier.check_tokenizer`."""
        super().check_tokenizer(tokenizer)
        self._full_prompt(tokenizer)

    def _uses_chat(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        return bool(tokenizer.chat_template) if self.options.chat is None else self.options.chat

    def _full_prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        if not self._uses_chat(tokenizer):
            return self.options.prompt
        prompt = render_chat(tokenizer, self.options.prompt)
        if prompt.count(_TEXT) != 1 or prompt.count(_GENRE) != 1 or prompt.index(_GENRE) < prompt.index(_TEXT):
            raise ConfigError(
                "the tokenizer's chat format does not repeat model.prompt as it is: set model.chat=false to ask "
                "without it"
            )
        return prompt

    def _questions(self, tokenizer: PreTrainedTokenizerBase, genres: tuple[str, ...]) -> Questions:
        chat = self._uses_chat(tokenizer)
        before, _, after = self._full_prompt(tokenizer).partition(_TEXT)
        # a chat format writes its special tokens itself
        head = tokenizer(before, add_special_tokens=not chat)["input_ids"]
        empty, marked = tokenizer("")["input_ids"], tokenizer(_ANCHOR)["input_ids"]
        lead = next((n for n, (a, b) in enumerate(zip(empty, marked, strict=False)) if a != b), len(empty))
        trail = len(empty) - lead
        head = head[: len(head) - (0 if chat else trail)]
        tails = [continuation(tokenizer, after.replace(_GENRE, genre)) for genre in genres]
        yes, no = (
            first_tokens(tokenizer, after.replace(_GENRE, genres[0]), words)
            for words in (self.options.yes, self.options.no)
        )
        if not yes - no or not no - yes:
            raise ConfigError(
                "the answers of model.yes and model.no start with the same token in this vocabulary: "
                "choose words that do not"
            )
        lengths = torch.tensor([len(tail) for tail in tails])
        return Questions(
            head=torch.tensor(head, dtype=torch.int64),
            tokens=torch.tensor([token for tail in tails for token in tail]),
            question=torch.arange(len(tails)).repeat_interleave(lengths),
            place=torch.cat([torch.arange(int(length)) for length in lengths]),
            last=lengths.cumsum(0) - 1,
            yes=torch.tensor(sorted(yes - no)),
            no=torch.tensor(sorted(no - yes)),
            lead=lead,
            trail=trail,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the log-odds of yes against no, float32 (rows, genres), of a padded batch of films."""
        assert self.questions is not None
        tokens, mask = batch["input_ids"], batch["attention_mask"]
        asked = self.questions.to(tokens.device)
        length = len(asked.head) + tokens.shape[1] + len(asked.tokens)
        rows = max(self.options.batch_tokens // length, 1)
        parts = [self._ask(asked, t, m) for t, m in zip(tokens.split(rows), mask.split(rows), strict=True)]
        return torch.cat(parts)

    def _ask(self, asked: Questions, tokens: Tensor, mask: Tensor) -> Tensor:
        from transformers import DynamicCache

        model: Any = self.backbone
        rows = len(tokens)
        film = torch.cat([asked.head.expand(rows, -1), tokens[:, asked.lead :]], dim=1)
        lengths = len(asked.head) + mask.sum(dim=1) - asked.lead - asked.trail
        cache = DynamicCache()
        model.model(input_ids=film, past_key_values=cache, use_cache=True)
        # a question sees its film, padding left out, and its own tokens before each
        sees_film = torch.arange(film.shape[1], device=film.device) < lengths[:, None]
        same = asked.question[:, None] == asked.question
        sees_own = same & (asked.place[:, None] >= asked.place)
        count = len(asked.tokens)
        sees = torch.cat([sees_film[:, None].expand(-1, count, -1), sees_own.expand(rows, -1, -1)], dim=2)
        states = model.model(
            input_ids=asked.tokens.expand(rows, -1),
            position_ids=lengths[:, None] + asked.place,
            attention_mask=sees[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self._log_odds(states[:, asked.last], asked)

    def _log_odds(self, states: Tensor, asked: Questions) -> Tensor:
        head: Any = self.backbone.get_output_embeddings()  # type: ignore[operator]  # a transformers model
        with torch.autocast(states.device.type, enabled=False):
            # of the whole vocabulary only the answers' logits are computed; what all share falls out of the odds
            yes, no = (
                nn.functional.linear(states.float(), head.weight[words].float()) for words in (asked.yes, asked.no)
            )
            return yes.logsumexp(dim=-1) - no.logsumexp(dim=-1)


def continuation(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text that follows another: without the leading space that some tokenizers add."""
    anchor = tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"]
    whole = tokenizer(_ANCHOR + text, add_special_tokens=False)["input_ids"]
    if whole[: len(anchor)] == anchor:
        return whole[len(anchor) :]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def first_tokens(tokenizer: PreTrainedTokenizerBase, before: str, words: list[str]) -> set[int]:
    """Return the first tokens of each word when it follows a text, with and without a space between."""
    stem = continuation(tokenizer, before)
    found = set()
    for word in words:
        for spelling in (word, f" {word}"):
            whole = continuation(tokenizer, before + spelling)
            if len(whole) > len(stem) and whole[: len(stem)] == stem:
                found.add(whole[len(stem)])
    return found
