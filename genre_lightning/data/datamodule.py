"""MovieDataModule: from a movies file to the batches of each rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genre_lightning.data.cache import build_once, key_of, share_with_group
from genre_lightning.data.collate import Batch, Padding, TokenisedFilms
from genre_lightning.data.films import FilmTable, ReadingProgress, load_films, no_reading_progress
from genre_lightning.data.genres import GenreVocabulary, case_variants
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.options import DataOptions
from genre_lightning.data.splits import SPLIT_NAMES, groups_of, ids_digest, split_films, text_digests
from genre_lightning.data.steps import (
    EvaluationSampler,
    Layout,
    StepSampler,
    epoch_order,
    films_of_step,
    micro_batches_per_step,
    planned_epochs,
    steps_per_epoch,
)
from genre_lightning.data.tokenizers import TRAINED, load_tokenizer, train_wordpiece
from genre_lightning.data.tokens import Progress, TokenStore, tokenise
from genre_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EVALUATION_BUDGET_FACTOR = 4
_FILMS_TO_JUDGE_BY = 20
"""Fewer films may well have a genre each."""

ProgressBar = Callable[[str, int], AbstractContextManager[Progress | None]]
"""Shows the progress of a task of so many units: a context that gives the function to report units done to."""


def no_progress(task: str, total: int) -> AbstractContextManager[None]:
    """The progress bar of a process that shows none."""
    return nullcontext()


@dataclass(frozen=True)
class Split:
    """The films of a split.

    Attributes:
        films: int64, positions in the module's films.
        labels: bool (films of the split, genres).
        sha256: of the sorted ids: names the split.
    """

    films: NDArray[np.int64]
    labels: NDArray[np.bool_]
    sha256: str


@dataclass
class PreparedFilms:
    """What `MovieDataModule.prepare_films` has made of the file; `films` is memory-mapped."""

    films: FilmTable
    rows: NDArray[np.int64]
    """int64: positions in `films` of the films in use, all of them or `max_films`."""
    vocabulary: GenreVocabulary
    splits: dict[str, Split]
    audit: dict[str, Any]
    sides: KeptSplits
    """The splits as a run keeps them."""


@dataclass
class PreparedData(PreparedFilms):
    """What `MovieDataModule.prepare` has made of the file; `films` and `tokens` are memory-mapped."""

    tokenizer: PreTrainedTokenizerBase
    tokens: TokenStore


class MovieDataModule(DataOptions, LightningDataModule):
    """Films, their texts as tokens and their genres, split and batched.

    Args:
        csv: the movies file.
        kwargs: see `DataOptions`.
    """

    def __init__(self, csv: Path, **kwargs: Any) -> None:
        super().__init__(csv, **kwargs)
        self.order_seed = self.seed
        """Of the films' order; the commands set it to the seed of the whole run."""
        self.layout: Layout = "padded"
        """Of the batches; the commands set it to what the model reads."""
        self.progress: ProgressBar = no_progress
        self.reading_progress: ReadingProgress = no_reading_progress
        self.kept: KeptSplits | None = None
        """Splits of a run that has been trained, which stay as they are; None draws new ones. The commands set it."""
        self._films: PreparedFilms | None = None
        self._prepared: PreparedData | None = None
        self.total_steps = 0
        """Optimizer steps of the whole run; known after `setup("fit")`."""
        self._sampler: StepSampler | None = None
        self._restored_micro_batches: int | None = None

    def prepare_films(self) -> PreparedFilms:
        """Reads, audits and splits the file, for models that need no tokens."""
        if self._films is None:
            if self.cache_group_writable:
                share_with_group(self.cache_dir)
            films = load_films(self.source, self.cache_dir, self.reading_progress)
            rows = self._subset(len(films))
            vocabulary, labels = GenreVocabulary.from_batches(
                films.batches("genres", rows), merge_case=self.merge_genre_case
            )
            self._check_genres(vocabulary, labels)
            splits, sides = self._splits(films, rows, labels)
            audit = self._audit(films, vocabulary, splits)
            self._films = PreparedFilms(films, rows, vocabulary, splits, audit, sides)
        return self._films

    def prepare(self) -> PreparedData:
        """Reads, audits, splits and tokenises the file, or opens what an earlier run left in the cache."""
        if self._prepared is None:
            prepared = self.prepare_films()
            films, rows = prepared.films, prepared.rows
            tokenizer = self._tokenizer(films, rows, prepared.splits["train"])
            with self.progress("Tokenising", len(rows)) as progress:
                tokens = tokenise(
                    LazyTexts(films, rows),
                    tokenizer,
                    max_tokens=self.max_tokens,
                    cache_dir=self.cache_dir,
                    content=self._content(films, rows),
                    progress=progress,
                )
            self._prepared = PreparedData(**vars(prepared), tokenizer=tokenizer, tokens=tokens)
        return self._prepared

    def _subset(self, films: int) -> NDArray[np.int64]:
        if self.max_films is None or self.max_films >= films:
            return np.arange(films)
        return np.sort(np.random.default_rng([self.seed, 0xF115]).choice(films, self.max_films, replace=False))

    def _check_genres(self, vocabulary: GenreVocabulary, labels: NDArray[np.bool_]) -> None:
        """Refuse labels that tell every film from every other, as titles and numbers do."""
        alone = int((labels.sum(axis=0) == 1).sum())
        if len(labels) >= _FILMS_TO_JUDGE_BY and len(vocabulary) > len(labels) / 2 and 2 * alone > len(vocabulary):
            columns = ", ".join(self.source.columns.label_columns)
            raise DataError(
                f"{self.source.path}: the column {columns!r} names {len(vocabulary):,} genres for {len(labels):,} "
                f"films, {alone:,} of them for one film only, such as {vocabulary.names[0][:60]!r}: name the column of "
                "the genres with --data.columns.genres"
            )

    def _splits(
        self, films: FilmTable, rows: NDArray[np.int64], labels: NDArray[np.bool_]
    ) -> tuple[dict[str, Split], KeptSplits]:
        ids, digests = films.ids[rows], self._text_digests(films, rows)
        groups = groups_of(digests)
        if self.kept is not None:
            parts = self.kept.parts(ids, digests, self.source.path)
        else:
            parts = split_films(labels, groups, self.fractions, self.seed)
        if not all(map(len, parts)):
            distinct = len(np.unique(groups))
            if distinct < len(parts) <= len(labels):
                raise DataError(
                    f"{len(labels)} films have {distinct} distinct text{'s' if distinct > 1 else ''}, and films with "
                    "the same text stay in one split: name the right column with --data.columns.overview"
                )
            raise DataError(
                f"{len(labels)} films make splits of {', '.join(str(len(part)) for part in parts)}: "
                "use more films (data.csv, data.max_films), or larger shares in data.split"
            )
        sides = self.kept or KeptSplits.of_parts(ids, digests, parts, self.source.path.name)
        if len(parts) == 2:  # the paper's protocol: what chooses the threshold is what it is judged on
            parts.append(parts[1])
        splits = {
            name: Split(part, labels[part], ids_digest(ids[part]))
            for name, part in zip(SPLIT_NAMES, parts, strict=True)
        }
        return splits, sides

    def _text_digests(self, films: FilmTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """See `text_digests`; kept in the cache, as every text is read for it."""

        def build(folder: Path) -> dict[str, Any]:
            with self.progress("Splitting", len(rows)) as progress:
                np.save(folder / "digests.npy", text_digests(LazyTexts(films, rows, "overview", progress)))
            return {}

        folder, _ = build_once(self.cache_dir / "digests", self._content(films, rows), build)
        return np.load(folder / "digests.npy")

    def _content(self, films: FilmTable, rows: NDArray[np.int64]) -> str:
        """A name for the films in use and their order."""
        return key_of([films.digest, self.seed if self.max_films else None, len(rows)])

    def _tokenizer(self, films: FilmTable, rows: NDArray[np.int64], train: Split) -> PreTrainedTokenizerBase:
        if self.tokenizer_name is None:
            raise ConfigError("data.tokenizer is not set: name a model of the hub, a local directory, or 'wordpiece'")
        if self.tokenizer_name != TRAINED:
            return load_tokenizer(self.tokenizer_name, self.revision)
        return train_wordpiece(
            LazyTexts(films, rows[train.films]),
            vocab_size=self.vocab_size,
            max_tokens=self.max_tokens,
            cache_dir=self.cache_dir,
            content=key_of([films.digest, train.sha256]),
        )

    def _audit(self, films: FilmTable, vocabulary: GenreVocabulary, splits: dict[str, Split]) -> dict[str, Any]:
        return {
            **films.audit.as_dict(),
            "notes": self._notes(films, vocabulary, splits),
            "file": self.source.path.name,
            "films_used": sum(len(split.films) for split in splits.values()) if not self.is_paper_protocol else
            len(splits["train"].films) + len(splits["test"].films),
            "validation_is_test": self.is_paper_protocol,
            "splits": {
                name: {
                    "films": len(split.films),
                    "ids_sha256": split.sha256,
                    "genres": vocabulary.counts(split.labels),
                }
                for name, split in splits.items()
            },
        }  # fmt: skip

    def _notes(self, films: FilmTable, vocabulary: GenreVocabulary, splits: dict[str, Split]) -> list[str]:
        """What a reader should know of the file beside the counts, a line each."""
        distinct = {split.sha256: vocabulary.counts(split.labels) for split in splits.values()}
        counts = {name: sum(of_split[name] for of_split in distinct.values()) for name in vocabulary.names}
        return [
            *films.notes,
            *(
                f"genres that differ in case only: {', '.join(f'{name} ({counts[name]:,} films)' for name in names)}; "
                "merge them with --data.merge_genre_case true"
                for names in case_variants(counts)
            ),
        ]

    @property
    def is_paper_protocol(self) -> bool:
        """Whether validation and test are the same films."""
        return len(self.fractions) == 2

    def dataset(self, split: str) -> TokenisedFilms:
        """The films of a split as batches."""
        data = self.prepare()
        part = data.splits[split]
        return TokenisedFilms(data.tokens, part.films, part.labels, padding_of(data.tokenizer), self.layout)

    def setup(self, stage: str) -> None:
        """Plans the steps of a fit, and has Lightning accumulate gradients over their micro-batches."""
        self.prepare()
        trainer = self.trainer
        if stage != "fit" or trainer is None:
            return
        dataset = self.dataset("train")
        steps = steps_per_epoch(len(dataset), self.global_batch_size)
        epochs, self.total_steps = planned_epochs(steps, trainer.max_epochs, trainer.max_steps)
        if epochs < 1:
            raise ConfigError("neither trainer.max_epochs nor trainer.max_steps is set: say how long to train")
        trainer.accumulate_grad_batches = micro_batches_per_step(
            dataset.lengths,
            global_batch_size=self.global_batch_size,
            budget=self._budget(trainer),
            world_size=trainer.world_size,
            seed=self.order_seed,
            epochs=epochs,
            layout=self.layout,
        )
        self._sampler = StepSampler(
            dataset.lengths,
            global_batch_size=self.global_batch_size,
            micro_batches=trainer.accumulate_grad_batches,
            seed=self.order_seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            layout=self.layout,
        )

    def _budget(self, trainer: Trainer | None) -> int:
        if self.micro_batch_tokens is not None:
            return self.micro_batch_tokens
        return default_micro_batch_tokens(trainer.strategy.root_device.type if trainer else "cpu", self.layout)

    def evaluation_budget(self, trainer: Trainer | None) -> int:
        """Processed tokens of a batch of an evaluation: without gradients there is room for more than in training."""
        return EVALUATION_BUDGET_FACTOR * self._budget(trainer)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches of the steps, from the step that the restored run had reached."""
        assert self._sampler is not None, "setup('fit') comes first"
        assert self.trainer is not None
        # optimizer steps done are the whole state: an epoch has the same number of them on any number of ranks
        self._sampler.load_state_dict({"epoch": 0, "step": self.trainer.global_step})
        if self._restored_micro_batches not in (None, self._sampler.micro_batches):
            _rescale(self.trainer, self._restored_micro_batches, self._sampler.micro_batches)
        self._restored_micro_batches = None
        return self._loader(self.dataset("train"), self._sampler, StepLoader)

    def film_ids_of_step(self, done: int) -> list[int]:
        """Ids of the films of an optimizer step, in the order of the step.

        Args:
            done: optimizer steps before it.
        """
        data = self.prepare_films()
        films = data.splits["train"].films
        epoch, step = divmod(done, steps_per_epoch(len(films), self.global_batch_size))
        order = epoch_order(len(films), self.order_seed, epoch)
        places = films_of_step(order, self.global_batch_size, step)
        return data.films.ids[data.rows[films[places]]].tolist()

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation film once over all ranks."""
        return self.evaluation_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test film once over all ranks."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> DataLoader[Batch]:
        """Batches of like lengths that hold each film of a split once over all ranks."""
        dataset = self.dataset(split)
        trainer = self.trainer
        sampler = EvaluationSampler(
            dataset.lengths,
            budget=self.evaluation_budget(trainer),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            layout=self.layout,
        )
        return self._loader(dataset, sampler)

    def _loader(
        self,
        dataset: TokenisedFilms,
        sampler: StepSampler | EvaluationSampler,
        kind: type[DataLoader[Batch]] = DataLoader,
    ) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return kind(dataset, sampler=sampler, batch_size=None, num_workers=self.num_workers, pin_memory=on_gpu)

    def state_dict(self) -> dict[str, Any]:
        """The state of the data for a checkpoint: optimizer steps done name epoch and step."""
        done = self.trainer.global_step if self.trainer else 0
        if self._sampler is None:
            return {"epoch": 0, "step": 0}
        epoch, step = divmod(done, self._sampler.steps)
        return {"epoch": epoch, "step": step, "micro_batches": self._sampler.micro_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes note of how the checkpoint's steps were cut; where they had come to, the trainer's own count says."""
        self._restored_micro_batches = state_dict.get("micro_batches")


def _rescale(trainer: Trainer, before: int, now: int) -> None:
    """Makes the restored count of micro-batches one of steps that are cut into `now` parts instead of `before`.

    Lightning finds the end of a step and of the epoch by that count, and a run may go on with other ranks or another
    budget.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.total, progress.current):
        for name in ("ready", "started", "processed", "completed"):
            # a checkpoint of a step's end has not yet counted its last micro-batch as completed: that stays so
            missing = -getattr(counts, name) % before
            setattr(counts, name, (getattr(counts, name) + missing) // before * now - missing)


def default_micro_batch_tokens(device: str, layout: Layout) -> int:
    """Processed tokens of a micro-batch on a type of device, where none are configured."""
    if device != "cpu":
        return 16_384
    # padded texts are faster in small groups of like length, which need little padding; packed ones need none
    return 1024 if layout == "padded" else 4096


class StepLoader(DataLoader[Batch]):
    """A loader that Lightning knows to be resumable.

    Its state is the sampler's, and `MovieDataModule.train_dataloader` has already set that from the optimizer steps
    done, which also holds where a checkpoint was written by other numbers of ranks or micro-batches.
    """

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps: nothing that the steps done do not say."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See the class."""


class LazyTexts(Sequence[str]):
    """The texts of films: a slice taken from the mapped table, or all in a pass that holds a few in memory.

    Args:
        films: of a file.
        rows: int64: positions of the films, ascending.
        column: "text", or another that holds texts.
        progress: told of the texts that a pass has given.
    """

    def __init__(
        self, films: FilmTable, rows: NDArray[np.int64], column: str = "text", progress: Progress | None = None
    ) -> None:
        self.films = films
        self.rows = rows
        self.column = column
        self.progress = progress

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> Any:
        if not isinstance(places, slice):
            return self.films.strings(self.column, self.rows[[places]])[0]
        return self.films.strings(self.column, self.rows[places])

    def __iter__(self) -> Iterator[str]:
        for batch in self.films.batches(self.column, self.rows):
            yield from batch.to_pylist()
            if self.progress:
                self.progress(len(batch))


def padding_of(tokenizer: PreTrainedTokenizerBase) -> Padding:
    """How batches for this tokenizer's model are filled up."""
    filler = tuple(tokenizer("")["input_ids"]) or (tokenizer.pad_token_id or 0,)
    return Padding(token=tokenizer.pad_token_id or 0, left=False, filler=filler)
