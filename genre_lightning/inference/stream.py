"""A file of films as one stream of batches through a trainer, on any number of ranks, chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch.utils.data import IterableDataset
from typing_extensions import override

from genre_lightning.config.features import Feature
from genre_lightning.data.collate import TokenisedFilms
from genre_lightning.data.datamodule import padding_of
from genre_lightning.data.features.encode import encode_cells
from genre_lightning.data.features.lines import fit_lines
from genre_lightning.data.new_films import NewFilm
from genre_lightning.data.steps import Indices, MicroBatch, evaluation_shards
from genre_lightning.data.tokens import TokenLists, encode
from genre_lightning.distributed.ranks import from_all_ranks
from genre_lightning.types import Batch, FittedInput, Layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chunks = Iterator[list[NewFilm]]


@dataclass
class ChunkOnItsWay:
    """A chunk of which batches are with the model.

    Attributes:
        films: All of it.
        mine: int64 (films of this rank,): their positions in the chunk.
        batches: How many this rank puts through the model.
        outputs: Positions in the chunk and logits of the batches that are done.
    """

    films: list[NewFilm]
    mine: Indices
    batches: int
    outputs: list[tuple[Indices, NDArray[np.float32]]]


class ChunkBatches(IterableDataset[Batch]):
    """The batches of a rank of each chunk, texts of like length together.

    A rank tokenises only its own part of a chunk. All ranks give the same number of batches for a chunk, as
    collectives inside the model need.

    Args:
        chunks: Chunks from the first one to compute; read when the ranks have met.
        text_of: Makes the text of a film.
        tokenizer: Tokenizer of the run.
        max_tokens: Maximum number of tokens of a text.
        layout: Layout of the batches.
        features: Features that the run reads beside its template.
        inputs: Inputs of the head, as fitted.
    """

    def __init__(
        self,
        chunks: Callable[[], Chunks],
        text_of: Callable[[NewFilm], str],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        layout: Layout,
        features: Sequence[Feature] = (),
        inputs: Sequence[FittedInput] = (),
    ) -> None:
        self.features = features
        self.inputs = inputs
        self.chunks = chunks
        self.text_of = text_of
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.layout = layout
        self.budget = 1
        self.rank, self.world_size = 0, 1
        self.on_their_way: deque[ChunkOnItsWay] = deque()

    def __iter__(self) -> Iterator[Batch]:
        for films in self.chunks():
            texts = [None if film.reason else self.text_of(film) for film in films]
            mine = share_by_length([len(text or "") for text in texts], rank=self.rank, world_size=self.world_size)
            mine = mine[[texts[place] is not None for place in mine]]
            own = [texts[place] or "" for place in mine]
            own = fit_lines(own, [f for f in self.features if f.in_text], self.tokenizer, self.max_tokens)
            rows = TokenLists(encode(own, self.tokenizer, self.max_tokens) if own else [])
            shards = (
                evaluation_shards(rows.lengths, budget=self.budget, rank=0, world_size=1, layout=self.layout)
                if len(rows)
                else []
            )
            # a chunk without a text has a batch too: its films are written when that is done
            count = max(1, *from_all_ranks(len(shards)))
            shards += [np.zeros(0, dtype=np.int64)] * (count - len(shards))
            inputs = encode_cells(self.inputs, self.features, [films[place].cells for place in mine])
            padding = padding_of(self.tokenizer)
            dataset = TokenisedFilms(rows, np.arange(len(rows)), None, padding, self.layout, inputs)
            self.on_their_way.append(ChunkOnItsWay(films, mine, count, []))
            for batch in shards:
                yield dataset[MicroBatch(batch, len(films))]


def share_by_length(lengths: Sequence[int], *, rank: int, world_size: int) -> Indices:
    """Return a rank's part of texts: every text in one part, and texts of all lengths in each.

    Args:
        lengths: Length of each text, in any unit.
        rank: Rank of this process.
        world_size: Number of ranks.

    Returns:
        int64: positions in `lengths`.
    """
    return np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")[rank::world_size]


class ChunkWriter(Callback):
    """Gives each chunk's logits away once all ranks have them.

    Args:
        stream: The batches.
        genres: How many.
        begin: Called on every rank, once the ranks have met, with the number of chunks that rank 0 finds finished.
        finished: That number on rank 0.
        write: Gets films and logits, float32 (films, genres), of a chunk, on rank 0 only; NaN if there is
            no text.
    """

    def __init__(
        self,
        stream: ChunkBatches,
        genres: int,
        finished: int,
        begin: Callable[[int], None],
        write: Callable[[list[NewFilm], NDArray[np.float32]], None],
    ) -> None:
        self.stream = stream
        self.genres = genres
        self.finished = finished
        self.begin = begin
        self.write = write

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.stream.rank, self.stream.world_size = trainer.global_rank, trainer.world_size
        self.begin(trainer.strategy.broadcast(self.finished))

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        chunk = self.stream.on_their_way[0]
        chunk.outputs.append((chunk.mine[outputs["index"].numpy()], outputs["logits"].numpy()))
        if len(chunk.outputs) < chunk.batches:
            return
        self.stream.on_their_way.popleft()
        logits = np.full((len(chunk.films), self.genres), np.nan, dtype=np.float32)
        for of_rank in from_all_ranks(chunk.outputs):
            for places, values in of_rank:
                logits[places] = values
        if trainer.is_global_zero:
            self.write(chunk.films, logits)
