"""Which films make optimizer step k, and which rank takes which of them: pure functions, and a sampler over them.

A step is a set of `global_batch_size` films chosen by (seed, epoch, step) alone. Ranks and micro-batches only share
those films out: that is packing, and it changes the speed of a run, never its training.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.types import Layout

Indices = NDArray[np.int64]

_PLANNED_AHEAD = 8192
"""Films of a step from which on it is planned in a thread: a millisecond there, and 5 of 118,000 films on 512 ranks."""


@dataclass(frozen=True)
class MicroBatch:
    """The films that one rank puts through the model at once.

    Attributes:
        films: Positions in the data set; empty if a rank has nothing to do but take part in a collective.
        step_films: How many films the whole optimizer step has, over all ranks and micro-batches.
    """

    films: Indices
    step_films: int


def steps_per_epoch(films: int, global_batch_size: int) -> int:
    """Return the number of optimizer steps that show every film once; the last one may be short."""
    return -(-films // global_batch_size)


def planned_epochs(steps: int, max_epochs: int | None, max_steps: int) -> tuple[int, int]:
    """Return the epochs and the optimizer steps of a whole run; 0 of both if neither limit is set.

    Args:
        steps: Number of steps in an epoch.
        max_epochs: The trainer's maximum number of epochs; None or -1 for no limit.
        max_steps: The trainer's maximum number of steps; -1 for no limit.
    """
    epochs = max_epochs if max_epochs and max_epochs > 0 else max(-(-max_steps // steps), 0)
    return epochs, epochs * steps if max_steps < 1 else min(epochs * steps, max_steps)


def epoch_order(films: int, seed: int, epoch: int) -> Indices:
    """Return the films in the order of an epoch: a permutation drawn from (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(films)


def films_of_step(order: Indices, global_batch_size: int, step: int) -> Indices:
    """Return the films of optimizer step `step` of the epoch with this order."""
    return order[step * global_batch_size : (step + 1) * global_batch_size]


def parts_needed(lengths: NDArray[np.integer], budget: int, layout: Layout = "padded") -> int:
    """Return how many micro-batches hold texts of these lengths within `budget` tokens.

    Args:
        lengths: Tokens of each text.
        budget: Tokens of a micro-batch.
        layout: "padded" texts cost what the longest of their micro-batch costs, "packed" ones what they have.
    """
    return int(_parts_needed_by_row(np.asarray(lengths)[None, :], budget, layout)[0]) if len(lengths) else 0


def _parts_needed_by_row(lengths: NDArray[np.integer], budget: int, layout: Layout) -> NDArray[np.int64]:
    """Return `parts_needed` for each row of (steps, films); a length of 0 stands for no film.

    Longest first, each part takes as many texts as there is room for, which is the fewest parts possible of texts
    that are neighbours in length. A text over the budget goes alone.
    """
    descending = -np.sort(-lengths, axis=1)
    steps, width = descending.shape
    films = (descending > 0).sum(axis=1)
    before = np.concatenate([np.zeros((steps, 1), dtype=np.int64), descending.cumsum(axis=1, dtype=np.int64)], axis=1)
    position = np.zeros(steps, dtype=np.int64)
    parts = np.zeros(steps, dtype=np.int64)
    while (open_steps := position < films).any():
        at = np.arange(steps), np.minimum(position, width - 1)
        if layout == "padded":
            taken = budget // np.maximum(descending[at], 1)
        else:
            taken = (before <= (before[at] + budget)[:, None]).sum(axis=1) - 1 - position
        position = np.where(open_steps, position + np.maximum(taken, 1), position)
        parts += open_steps
    return parts


def micro_batches_per_step(
    lengths: NDArray[np.integer],
    *,
    global_batch_size: int,
    budget: int,
    world_size: int,
    seed: int,
    epochs: int,
    layout: Layout = "padded",
) -> int:
    """Return the number of micro-batches that every step of a run is cut into on each rank.

    It is the fewest that keep every micro-batch of every step of `epochs` epochs within the budget, and it is one
    number for the whole run so that gradients are accumulated over a fixed count.

    Args:
        lengths: Tokens of each film of the training split.
        global_batch_size: Films of a step.
        budget: Processed tokens (padding included) of a micro-batch.
        world_size: Number of ranks.
        seed: Random seed of the epochs' orders.
        epochs: How many epochs are looked at.
        layout: See `parts_needed`.
    """
    films = len(lengths)
    steps = steps_per_epoch(films, global_batch_size)
    most = 1
    for epoch in range(epochs):
        padded = np.zeros(steps * global_batch_size, dtype=np.int32)
        padded[:films] = np.asarray(lengths)[epoch_order(films, seed, epoch)]
        most = max(most, int(_parts_needed_by_row(padded.reshape(steps, global_batch_size), budget, layout).max()))
    return -(-most // world_size)


def partition(lengths: NDArray[np.integer], parts: int, layout: Layout = "padded") -> list[Indices]:
    """Cut texts into `parts` groups of like length so that the largest group is as small as it can be.

    If one long text alone is the largest group, the others are cut so that the largest of them is as small as it
    can be, and so on: one film over the budget never lets the others go over it.

    Args:
        lengths: Tokens of each text.
        parts: Number of groups; some stay empty if there are fewer texts.
        layout: See `parts_needed`.

    Returns:
        `parts` arrays of positions in `lengths`, the longest texts first; every position in one of them.
    """
    order, texts = longest_first(lengths)
    if not len(order):
        return [order] * parts
    alone = 0
    while (largest := _smallest_largest(texts, alone, parts - alone, layout)) == texts.length(alone):
        alone += 1
        if alone == min(parts, len(order)):
            break
    cuts = [(text, text + 1) for text in range(alone)] + _cut(texts, largest, parts - alone, layout, alone)
    groups = [order[start:end] for start, end in cuts]
    return groups + [order[:0]] * (parts - len(groups))


@dataclass(frozen=True)
class _Descending:
    """Texts from the longest to the shortest, as runs of equal length.

    A step of 512 ranks has 100,000 texts, of some hundred lengths, and is planned again on every rank.

    Attributes:
        lengths: Tokens of each text of a run; descending.
        ends: Texts of each run and all before it together.
        tokens: Of each run and all before it together.
    """

    lengths: list[int]
    ends: list[int]
    tokens: list[int]

    def length(self, text: int) -> int:
        """Return the tokens of a text, by its place."""
        return self.lengths[bisect_right(self.ends, text)]

    def before(self, text: int) -> int:
        """Return the tokens of all texts before a place."""
        run = bisect_right(self.ends, text)
        if run == len(self.ends):
            return self.tokens[-1]
        first, tokens = (self.ends[run - 1], self.tokens[run - 1]) if run else (0, 0)
        return tokens + (text - first) * self.lengths[run]

    def end_within(self, tokens: int) -> int:
        """Return the place before which all texts together have at most n tokens."""
        run = bisect_right(self.tokens, tokens)
        if run == len(self.ends):
            return self.ends[-1]
        first, before = (self.ends[run - 1], self.tokens[run - 1]) if run else (0, 0)
        return first + (tokens - before) // self.lengths[run]


def longest_first(lengths: NDArray[np.integer]) -> tuple[Indices, _Descending]:
    """Return the order of texts from the longest to the shortest, equal ones as they come, and their lengths so."""
    lengths = np.asarray(lengths)
    longest = int(lengths.max(initial=0))
    # numpy sorts 16 bits by their digits, in a tenth of the time
    below = (longest - lengths).astype(np.uint16 if longest < 1 << 16 else np.int64)
    counts = np.bincount(lengths)[::-1]
    runs = np.flatnonzero(counts)
    texts, of_run = counts[runs], longest - runs
    ends, tokens = texts.cumsum(), (texts * of_run).cumsum()
    return np.argsort(below, kind="stable"), _Descending(of_run.tolist(), ends.tolist(), tokens.tolist())


def _smallest_largest(texts: _Descending, start: int, parts: int, layout: Layout) -> int:
    """Return the smallest bound on tokens under which the texts from `start` on fit into `parts` groups."""
    low = texts.length(start)
    if layout == "padded":
        high = low * -(-(texts.ends[-1] - start) // parts)
    else:
        # one of the groups has the mean or more, and of groups up to a text above it none need be left over
        mean = -(-(texts.tokens[-1] - texts.before(start)) // parts)
        low, high = max(low, mean), mean + low
    while low < high:
        middle = (low + high) // 2
        if len(_cut(texts, middle, parts, layout, start)) > parts:
            low = middle + 1
        else:
            high = middle
    return low


def _cut(texts: _Descending, largest: int, parts: int, layout: Layout, start: int = 0) -> list[tuple[int, int]]:
    """Return the greedy groups of at most `largest` tokens; gives up one group after `parts`."""
    cuts: list[tuple[int, int]] = []
    films = texts.ends[-1] if texts.ends else 0
    while start < films and len(cuts) <= parts:
        if layout == "padded":
            end = min(start + max(largest // max(texts.length(start), 1), 1), films)
        else:
            end = max(texts.end_within(texts.before(start) + largest), start + 1)
        cuts.append((start, end))
        start = end
    return cuts


def shares_of_step(
    films: Indices, lengths: NDArray[np.integer], *, world_size: int, micro_batches: int, layout: Layout = "padded"
) -> list[list[Indices]]:
    """Distribute the films of a step over ranks and micro-batches.

    Neighbouring groups of `partition` go to the ranks of one micro-batch, so ranks that wait for each other have
    texts of like length; the direction turns at each micro-batch, so no rank always has the longer ones.

    Returns:
        [rank][micro_batch] → the films.
    """
    groups = partition(lengths[films], world_size * micro_batches, layout)
    return [_share(films, groups, rank, world_size) for rank in range(world_size)]


def _share(films: Indices, groups: list[Indices], rank: int, world_size: int) -> list[Indices]:
    """Return the micro-batches of a rank; see `shares_of_step`."""
    ways = (rank, world_size - 1 - rank)
    return [films[groups[first + ways[turn % 2]]] for turn, first in enumerate(range(0, len(groups), world_size))]


class StepSampler:
    """Yields a rank's micro-batches of an epoch, from any step on; its whole state is (epoch, step).

    Args:
        lengths: Tokens of each film of the training split.
        global_batch_size: Films of a step.
        micro_batches: Micro-batches of each step, on each rank.
        seed: Random seed of the epochs' orders.
        rank: Rank of this process.
        world_size: Number of ranks.
        layout: See `parts_needed`.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        *,
        global_batch_size: int,
        micro_batches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        layout: Layout = "padded",
    ) -> None:
        self.lengths = lengths
        self.global_batch_size = global_batch_size
        self.micro_batches = micro_batches
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.layout: Layout = layout
        self.steps = steps_per_epoch(len(lengths), global_batch_size)
        self.epoch = 0
        self.step = 0

    def __len__(self) -> int:
        """Return the micro-batches of a whole epoch on this rank."""
        return self.steps * self.micro_batches

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch; a no-op for the epoch it is in, so that a restored step stays."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return where the next iteration starts: the same for every rank and any number of ranks.

        An iteration under way is not in it, as loaders read ahead of training: count optimizer steps for that.
        """
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; a step past the epoch's end is the next epoch's start."""
        epochs, self.step = divmod(int(state["step"]), self.steps)
        self.epoch = int(state["epoch"]) + epochs

    def __iter__(self) -> Iterator[MicroBatch]:
        order = epoch_order(len(self.lengths), self.seed, self.epoch)
        first, self.step = self.step, 0  # the epoch after this one starts at its first step
        for films, micro_batches in self._planned(order, range(first, self.steps)):
            for micro_batch in micro_batches:
                yield MicroBatch(micro_batch, films)

    def _planned(self, order: Indices, steps: range) -> Iterator[tuple[int, list[Indices]]]:
        """Yield each step's films and this rank's micro-batches; large steps are planned one step ahead."""
        if self.global_batch_size < _PLANNED_AHEAD:
            yield from (self._plan(order, step) for step in steps)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="plan") as thread:
            coming = thread.submit(self._plan, order, steps.start)
            for step in steps:
                planned = coming.result()
                if step + 1 < steps.stop:
                    coming = thread.submit(self._plan, order, step + 1)
                yield planned

    def _plan(self, order: Indices, step: int) -> tuple[int, list[Indices]]:
        films = films_of_step(order, self.global_batch_size, step)
        groups = partition(self.lengths[films], self.world_size * self.micro_batches, self.layout)
        return len(films), _share(films, groups, self.rank, self.world_size)


def evaluation_shards(
    lengths: NDArray[np.integer], *, budget: int, rank: int, world_size: int, layout: Layout = "padded"
) -> list[Indices]:
    """Return a rank's batches of an evaluation: every film once over all ranks, texts of like length together.

    All ranks get the same number of batches, as collectives inside the model need; missing ones are empty arrays.

    Args:
        lengths: Tokens of each film of the split.
        budget: Processed tokens of a batch.
        rank: Rank of this process.
        world_size: Number of ranks.
        layout: See `parts_needed`.
    """
    order, texts = longest_first(lengths)
    cuts = _cut(texts, budget, len(order), layout)
    batches = [order[start:end] for start, end in cuts]
    batches += [order[:0]] * (-len(batches) % world_size)
    return batches[rank::world_size]


class EvaluationSampler:
    """Yields a rank's batches of a split, in a fixed order; see `evaluation_shards`."""

    def __init__(
        self,
        lengths: NDArray[np.integer],
        *,
        budget: int,
        rank: int = 0,
        world_size: int = 1,
        layout: Layout = "padded",
    ) -> None:
        self.films = len(lengths)
        self.batches = evaluation_shards(lengths, budget=budget, rank=rank, world_size=world_size, layout=layout)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[MicroBatch]:
        for films in self.batches:
            yield MicroBatch(films, self.films)
