"""A run that was cut and resumed beside the unbroken run of the same tool: pure functions over their journals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Step:
    """An optimizer step that a start has made.

    Attributes:
        step: Its number, from 1.
        epoch: From 0, as the tool counts.
        films: Numbers of the films of all ranks, sorted.
    """

    step: int
    epoch: int
    films: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """How often films counted towards the final weights.

    Attributes:
        twice: Films seen more than once in an epoch, summed over epochs.
        never: Films not seen in an epoch, summed over epochs.
        twice_in_worst_epoch: The largest number in one epoch.
        never_in_worst_epoch: The largest number in one epoch.
    """

    twice: int
    never: int
    twice_in_worst_epoch: int
    never_in_worst_epoch: int


def steps_of(journal: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Return the steps of a start, with the films of all ranks together."""
    by_rank: dict[int, list[Mapping[str, Any]]] = {}
    for line in journal:
        if line["event"] == "step":
            by_rank.setdefault(line["rank"], []).append(line)
    others = [lines for rank, lines in by_rank.items() if rank != 0]
    steps = []
    for place, line in enumerate(by_rank.get(0, [])):
        films = list(line["films"])
        for lines in others:
            films += lines[place]["films"] if place < len(lines) else []
        steps.append(Step(line["step"], line["epoch"], tuple(sorted(films))))
    return steps


def resumed_after(cut: Sequence[Step], resumed: Sequence[Step]) -> int:
    """Return the step after which the second start resumed: all of the first one's if it made none itself."""
    return resumed[0].step - 1 if resumed else cut[-1].step


def counted(cut: Sequence[Step], resumed: Sequence[Step]) -> list[Step]:
    """Return the steps that the final weights come from: a step that a later start did again counts once."""
    after = resumed_after(cut, resumed)
    return [step for step in cut if step.step <= after] + list(resumed)


def films_seen(steps: Iterable[Step], films: int, epochs: int) -> Seen:
    """Count the films that were seen twice or never in an epoch."""
    counts = [Counter[int]() for _ in range(epochs)]
    for step in steps:
        if step.epoch < epochs:
            counts[step.epoch].update(step.films)
    twice = [sum(number > 1 for number in epoch.values()) for epoch in counts]
    never = [films - len(epoch) for epoch in counts]
    return Seen(sum(twice), sum(never), max(twice), max(never))


def steps_in_order(resumed: Sequence[Step], unbroken: Sequence[Step]) -> int:
    """Count the resumed start's steps that have the same films as the unbroken run's step of that number."""
    expected = {step.step: step.films for step in unbroken}
    return sum(expected.get(step.step) == step.films for step in resumed)


def largest_difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return the largest absolute difference of two models' weights.

    Raises:
        ValueError: They are not of one model.
    """
    if a.keys() != b.keys():
        raise ValueError(f"weights of one run only: {sorted(a.keys() ^ b.keys())}")
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def gaps_and_doubles(got: Sequence[int], expected: Sequence[int]) -> tuple[int, int]:
    """Count the points of a curve that are missing, and those that are there more often than in the unbroken run.

    Args:
        got: Steps of the points of the resumed run.
        expected: Steps of the points of the unbroken run.
    """
    here, there = Counter(got), Counter(expected)
    return (there - here).total(), (here - there).total()
