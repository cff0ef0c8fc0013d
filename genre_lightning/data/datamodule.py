"""MovieDataModule: from a movies file to the batches of each rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from genre_lightning.compat import set_hyperparameters, use_own_sampler
from genre_lightning.config.constructors import plain, takes
from genre_lightning.config.data import DataOptions
from genre_lightning.data.collate import Padding, TokenisedFilms
from genre_lightning.data.continued import OldFilms
from genre_lightning.data.corrections import Correction
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.prepare import PreparedData, PreparedFilms, prepare_films, tokenised
from genre_lightning.data.steps import (
    EvaluationSampler,
    MicroBatch,
    StepSampler,
    epoch_order,
    films_of_step,
    micro_batches_per_step,
    partition,
    parts_needed,
    planned_epochs,
    steps_per_epoch,
)
from genre_lightning.data.tokenizers import TRAINED
from genre_lightning.distributed.trainers import PlannedInterval, PlannedMicroBatches, check_trainer, plan_validations
from genre_lightning.errors import ConfigError
from genre_lightning.types import Batch, DataSpec, Layout, TextReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class MovieDataModule(LightningDataModule):
    """Films, their texts as tokens and their genres, split and batched.

    It takes layout, tokenizer and the seed of the films' order from the trainer's model, or from `connect()`.

    Args:
        options: Those of `DataOptions`, each as an argument.
    """

    @takes(DataOptions)
    def __init__(self, options: DataOptions) -> None:
        super().__init__()
        self.options = options
        # the model logs its own: Lightning refuses two values of one name, such as seed
        set_hyperparameters(self, plain(options), log=False)
        self.layout: Layout = "padded"
        self.order_seed = options.seed
        self.tokenizer_name, self.revision = options.tokenizer, options.revision
        self.total_steps = 0
        """Optimizer steps of the whole run; known after `setup("fit")`."""
        self._run_tokenizer: str | None = None
        self._kept: KeptSplits | None = None
        self._old: OldFilms | None = None
        self.corrections: tuple[Correction, ...] = ()
        """Feedback on films, one correction for each text."""
        self._teacher: NDArray[np.float32] | None = None
        self._films: PreparedFilms | None = None
        self._prepared: PreparedData | None = None
        self._sampler: StepSampler | None = None
        self._restored: dict[str, Any] = {}
        """State of the checkpoint that was restored last, until a training has resumed from it."""

    # What the data takes from elsewhere

    def connect(self, reader: TextReader) -> None:
        """Take layout, tokenizer and the seed of the order from the model that reads the texts."""
        before = self.tokenizer_name, self.revision
        self.layout, self.order_seed = reader.layout, reader.seed
        if self._run_tokenizer is not None:
            self.tokenizer_name, self.revision = self._run_tokenizer, None
        elif self.options.tokenizer is None:
            source = reader.tokenizer_source
            self.tokenizer_name = source or TRAINED
            self.revision = self.options.revision or reader.tokenizer_revision if source else None
        if before != (self.tokenizer_name, self.revision):
            self._prepared = None

    def use_tokenizer(self, directory: str) -> None:
        """Use the tokenizer of a run, whatever model is connected."""
        self._run_tokenizer = directory

    def keep_splits(self, splits: KeptSplits | None) -> None:
        """Leave each film on its side in these splits of a run that has been trained; None draws new splits."""
        self._kept = splits
        self._films = self._prepared = None

    def continue_from(self, old: OldFilms | None) -> None:
        """Take films from a run that is continued: old ones keep their side, and the fitted inputs are that run's."""
        self._old = old
        self._films = self._prepared = None

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Train on feedback on films, beside the films of a run that is continued."""
        self.corrections = tuple(corrections)
        self._films = self._prepared = None

    def distil(self, teacher: NDArray[np.float32]) -> None:
        """Give training batches the log-odds of another model: (training films, genres), NaN for unknown genres."""
        self._teacher = teacher

    # Preparing

    def prepare_films(self) -> PreparedFilms:
        """Read, audit and split the file, for models that need no tokens."""
        if self._films is None:
            self._films = prepare_films(self.options, self._kept, self._old, self.corrections)
        return self._films

    def prepare(self) -> PreparedData:
        """Read, audit, split and tokenise the file, or open what an earlier run left in the cache."""
        if self._prepared is None:
            self._prepared = tokenised(self.options, self.prepare_films(), self.tokenizer_name, self.revision)
        return self._prepared

    @property
    def spec(self) -> DataSpec:
        """What a model must know of the data."""
        return self.prepare().spec

    def setup(self, stage: str) -> None:
        """Plan the steps of a fit, and have Lightning accumulate gradients over their micro-batches.

        Raises:
            ConfigError: The trainer is set to something that would break the plan.
        """
        trainer = self._connect_trainer()
        self.prepare()
        if stage != "fit" or trainer is None:
            return
        check_trainer(trainer)
        dataset = self.dataset("train")
        steps = steps_per_epoch(len(dataset), self.options.global_batch_size)
        epochs, self.total_steps = planned_epochs(steps, trainer.max_epochs, trainer.max_steps)
        if epochs < 1:
            raise ConfigError(
                "neither trainer.max_epochs nor trainer.max_steps is set: say how long to train, which the "
                "learning rate's schedule depends on"
            )
        micro_batches = micro_batches_per_step(
            dataset.lengths,
            global_batch_size=self.options.global_batch_size,
            budget=self._budget(trainer),
            world_size=trainer.world_size,
            seed=self.order_seed,
            epochs=epochs,
            layout=self.layout,
        )
        trainer.accumulate_grad_batches = PlannedMicroBatches(micro_batches)
        plan_validations(trainer, steps, micro_batches)
        self._sampler = StepSampler(
            dataset.lengths,
            global_batch_size=self.options.global_batch_size,
            micro_batches=micro_batches,
            seed=self.order_seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            layout=self.layout,
        )

    def _connect_trainer(self) -> Trainer | None:
        trainer = self.trainer
        if trainer is not None:
            use_own_sampler(trainer)
            if isinstance(trainer.lightning_module, TextReader):
                self.connect(trainer.lightning_module)
        return trainer

    # Batches

    def dataset(self, split: str) -> TokenisedFilms:
        """Return the films of a split as batches."""
        data = self.prepare()
        part = data.splits[split]
        return TokenisedFilms(
            data.tokens,
            part.films,
            part.labels,
            padding_of(data.tokenizer),
            self.layout,
            data.encoded,
            part.known,
            self._teacher if split == "train" else None,
            part.weights,
        )

    def _budget(self, trainer: Trainer | None) -> int:
        if self.options.micro_batch_tokens is not None:
            return self.options.micro_batch_tokens
        return default_micro_batch_tokens(trainer.strategy.root_device.type if trainer else "cpu", self.layout)

    def evaluation_budget(self, trainer: Trainer | None) -> int:
        """Return the processed tokens of a batch of an evaluation."""
        device = trainer.strategy.root_device.type if trainer else "cpu"
        return evaluation_tokens(self._budget(trainer), device, self.layout)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the micro-batches of the steps, from the step that the restored run had reached."""
        if self._sampler is None or self.trainer is None:
            raise ConfigError(
                "micro-batches depend on the trainer: fit with one, or use evaluation_dataloader('train')"
            )
        # optimizer steps done are the whole state: an epoch has the same number of them on any number of ranks
        self._sampler.load_state_dict({"epoch": 0, "step": self.trainer.global_step})
        # an evaluation of a checkpoint restores the state too, and a training may follow it
        before, self._restored = self._restored if self.trainer.ckpt_path else {}, {}
        theirs, own = before.get("global_batch_size"), self.options.global_batch_size
        if theirs not in (None, own):
            raise ConfigError(
                f"the checkpoint was trained by steps of {theirs} films, and data.global_batch_size is {own}, while "
                f"its place in an epoch is counted in steps: set data.global_batch_size={theirs}, or train from its "
                "weights without ckpt_path"
            )
        if "micro_batches" in before:
            _take_place(self.trainer, self._sampler, before["micro_batches"])
        return self._loader(self.dataset("train"), self._sampler, StepLoader)

    def first_batches(self, films: int) -> Iterator[Batch]:
        """Yield batches of the films that the training sees first, the same on every rank.

        Args:
            films: Number of films; all of them if there are fewer.
        """
        dataset = self.dataset("train")
        first = epoch_order(len(dataset), self.order_seed, 0)[:films]
        lengths = dataset.lengths[first]
        parts = parts_needed(lengths, self.evaluation_budget(self.trainer), self.layout)
        for places in partition(lengths, parts, self.layout):
            yield dataset[MicroBatch(first[places], len(first))]

    def film_ids_of_step(self, done: int) -> list[int | str]:
        """Return the ids of the films of an optimizer step, in the order of the step.

        Args:
            done: Optimizer steps before it.
        """
        ids, size = self.training_ids(), self.options.global_batch_size
        epoch, step = divmod(done, steps_per_epoch(len(ids), size))
        return ids[films_of_step(epoch_order(len(ids), self.order_seed, epoch), size, step)].tolist()

    def training_ids(self) -> NDArray[Any]:
        """Return the ids of the films that are trained on, in the order of the data set."""
        data = self.prepare_films()
        return data.films.ids[data.rows[data.splits["train"].films]]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return every validation film once over all ranks."""
        return self.evaluation_dataloader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test film once over all ranks."""
        return self.evaluation_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return every test film once over all ranks."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> DataLoader[Batch]:
        """Return the batches of like lengths that hold each film of a split once over all ranks."""
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
        workers = self.options.num_workers
        return kind(dataset, sampler=sampler, batch_size=None, num_workers=workers, pin_memory=on_gpu)

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the data for a checkpoint: optimizer steps done name epoch and step."""
        done = self.trainer.global_step if self.trainer else 0
        if self._sampler is None:
            return {"epoch": 0, "step": 0}
        epoch, step = divmod(done, self._sampler.steps)
        cut = {"micro_batches": self._sampler.micro_batches, "global_batch_size": self.options.global_batch_size}
        return {"epoch": epoch, "step": step, **cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note how the checkpoint's steps were cut; the trainer's own count has how many were done."""
        self._restored = state_dict


def _take_place(trainer: Trainer, sampler: StepSampler, before: int) -> None:
    """Have Lightning's restored counts of epochs and micro-batches agree with the optimizer steps done.

    A checkpoint may be of the middle of a step, whose gradients are lost; of an epoch that `max_steps` or an early stop
    has ended, which Lightning counts as done; or of steps that were cut into another number of micro-batches. A step
    that was begun is computed again, and an epoch that was begun is trained to its end.

    Args:
        trainer: With the counts of the checkpoint.
        sampler: Stands where the steps done say.
        before: Micro-batches of a step when the checkpoint was saved.
    """
    loop: Any = trainer.fit_loop
    steps, epochs, batches = loop.epoch_loop, loop.epoch_progress, loop.epoch_loop.batch_progress
    if not sampler.step:
        _rescale(batches, before, sampler.micro_batches)
        if epochs.current.processed == sampler.epoch < epochs.current.started:
            # within the first step of an epoch: the epoch starts again
            for counts in (epochs.total, epochs.current):
                counts.started -= 1
            steps.restarting = False
        return
    step_ended = batches.current.ready == sampler.step * before
    if step_ended and batches.current.completed < batches.current.processed and _is_validated(trainer, sampler):
        # saved before the validation that follows the step, which counts as begun
        for counts in (steps.val_loop.batch_progress.total, steps.val_loop.batch_progress.current):
            counts.ready = counts.started = counts.completed + 1
            counts.processed = counts.completed
    if epochs.current.processed > sampler.epoch:
        for counts in (epochs.total, epochs.current):
            counts.processed = counts.completed = counts.started - 1
        loop.restarting = True
    elif step_ended and before == sampler.micro_batches:
        return
    # the counts of a checkpoint of a step's end, which has not yet counted its last micro-batch as completed
    for counts, done in ((batches.total, trainer.global_step), (batches.current, sampler.step)):
        counts.ready = counts.started = counts.processed = done * sampler.micro_batches
        counts.completed = counts.processed - 1
    steps._batches_that_stepped = trainer.global_step - 1


def _is_validated(trainer: Trainer, sampler: StepSampler) -> bool:
    """Return whether a validation follows the last optimizer step, within its epoch."""
    every = getattr(trainer, "val_check_interval", None)
    if not isinstance(every, PlannedInterval):
        return False  # by the clock, or at the end of an epoch
    counted = trainer.global_step if trainer.check_val_every_n_epoch is None else sampler.step
    return counted * sampler.micro_batches % every == 0


def _rescale(batches: Any, before: int, now: int) -> None:
    """Make the counts of micro-batches those of steps that are cut into `now` parts in place of `before`."""
    for counts in (batches.total, batches.current):
        for name in ("ready", "started", "processed", "completed"):
            # a checkpoint of a step's end has not yet counted its last micro-batch as completed: that stays so
            missing = -getattr(counts, name) % before
            setattr(counts, name, (getattr(counts, name) + missing) // before * now - missing)


def default_micro_batch_tokens(device: str, layout: Layout) -> int:
    """Return the processed tokens of a micro-batch on a type of device, if none are configured."""
    if device != "cpu":
        return 16_384
    # padded texts are faster in small groups of like length, which need little padding; packed ones need none
    return 1024 if layout == "padded" else 4096


def evaluation_tokens(micro_batch_tokens: int, device: str, layout: Layout) -> int:
    """Return the processed tokens of a batch of an evaluation, which has room for more without gradients.

    Packed texts on a CPU are as many as in training: with four times as many, the activations leave its caches, and a
    22M-parameter encoder took 7% more CPU time.
    """
    return micro_batch_tokens * (1 if device == "cpu" and layout == "packed" else 4)


class StepLoader(DataLoader[Batch]):
    """A loader that Lightning knows to be resumable.

    Its state is the sampler's, and `MovieDataModule.train_dataloader` has already set that from the optimizer steps
    done, which also holds if a checkpoint was written by other numbers of ranks or micro-batches.
    """

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps: nothing that the number of steps does not give."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See the class."""


def padding_of(tokenizer: PreTrainedTokenizerBase) -> Padding:
    """Return how batches for this tokenizer's model are filled up."""
    filler = tuple(tokenizer("")["input_ids"]) or (tokenizer.pad_token_id or 0,)
    return Padding(token=tokenizer.pad_token_id or 0, left=False, filler=filler)
