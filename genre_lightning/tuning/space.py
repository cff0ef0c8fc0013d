"""The options that a study searches over, read from a YAML file and checked before the first trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.config.changes import changes_training
from genre_lightning.config.packaged import packaged
from genre_lightning.errors import ConfigError
from genre_lightning.yaml_files import read_yaml

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = str | int | float | bool | None
Options = dict[str, Value]
"""Values of a trial by the options' names; lists and mappings are JSON texts, as the command line takes them."""

_OF_SPLIT = (
    "csv", "older_csv", "reader", "columns", "genre_format", "genre_separator", "merge_genre_case", "encoding",
    "max_malformed", "label_since", "label_date", "known_genres", "unlabelled", "split", "seed", "fold", "max_films",
)  # fmt: skip
"""Options of the data that decide which films and labels are in which split."""

_OF_PARENT = ("continue", "continue_from", "feedback", "labels", "self_training")
_KEYS = {"low", "high", "step", "log", "choices", "when"}
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class SearchOption:
    """An option to search over: numbers of a range, or some values.

    Attributes:
        name: As on the command line, such as "model.lr".
        low: Of the range; integers, with an integer step or none, make a range of integers.
        high: Of the range, which includes it.
        step: Between two numbers; None for any.
        log: Whether the range is searched on a logarithmic scale.
        choices: Values in place of a range.
        when: Values that other options must have for this one to be searched.
    """

    name: str
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = None  # type: ignore[assignment]  # set by `_option`

    @property
    def is_integer(self) -> bool:
        """Whether the range is one of integers."""
        whole_steps = self.step is None or float(self.step).is_integer()
        return isinstance(self.low, int) and isinstance(self.high, int) and whole_steps

    def applies(self, chosen: Options) -> bool:
        """Return whether the option is searched beside the values that earlier options have."""
        return all(name in chosen and chosen[name] in values for name, values in self.when.items())

    def suggest(self, trial: Trial) -> Value:
        """Return the value of a trial."""
        if self.choices:
            value: Value = trial.suggest_categorical(self.name, self.choices)
            return value
        if self.is_integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def grid(self) -> list[Value]:
        """Return all values.

        Raises:
            ConfigError: There is no end of them.
        """
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if self.is_integer and not self.log else None)
        if step is None:
            raise ConfigError(f"{self.name} is a range without a step, and a grid takes values: give choices or a step")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > _MOST_POINTS:
            raise ConfigError(f"{self.name} has {count:,} values, too many for a grid: give a larger step")
        if self.is_integer:
            return [int(self.low + number * step) for number in range(count)]
        # as digits, not as sums: 0.3, not 0.30000000000000004
        return [min(float(f"{self.low + number * step:.12g}"), float(self.high)) for number in range(count)]

    def edges(self) -> list[Value]:
        """Return the values that the parser checks for all: the ends of a range, or the choices."""
        return list(self.choices) or [self.low, self.high]


@dataclass(frozen=True)
class Space:
    """The options of a study, those that others depend on first."""

    options: tuple[SearchOption, ...]

    def suggest(self, trial: Trial) -> Options:
        """Return the options of a trial; one that has them already keeps them."""
        chosen: Options = {}
        for option in self.options:
            if option.applies(chosen):
                chosen[option.name] = option.suggest(trial)
        return chosen

    def grid(self) -> list[Options]:
        """Return every combination once; options whose condition is not met are left out.

        Raises:
            ConfigError: A range has no step, or they are too many.
        """
        values = [option.grid() for option in self.options]
        if (count := math.prod(map(len, values))) > _MOST_POINTS:
            raise ConfigError(f"the grid has {count:,} points, more than {_MOST_POINTS:,}: leave out options or values")
        points: dict[str, Options] = {}
        for point in itertools.product(*values):
            chosen: Options = {}
            for option, value in zip(self.options, point, strict=True):
                if option.applies(chosen):
                    chosen[option.name] = value
            points[json.dumps(chosen)] = chosen
        return list(points.values())

    def samples_to_check(self) -> Iterator[tuple[str, Options]]:
        """Yield each option with its edges, beside the values on which it depends."""
        by_name = {option.name: option for option in self.options}
        for option in self.options:
            for value in option.edges():
                yield option.name, {**_needed(option, by_name), option.name: value}

    def require_numbers(self, sampler: str) -> None:
        """Refuse what a sampler of continuous numbers cannot search.

        Raises:
            ConfigError: With the first option that does not fit.
        """
        for option in self.options:
            if option.choices or option.when:
                raise ConfigError(
                    f"--sampler {sampler} searches ranges of numbers, and {option.name} has "
                    f"{'choices' if option.choices else 'a condition'}: use --sampler tpe"
                )
        if len(self.options) < 2:
            raise ConfigError(f"--sampler {sampler} needs two options or more: use --sampler tpe")


def _needed(option: SearchOption, by_name: Mapping[str, SearchOption]) -> Options:
    found: Options = {}
    for name, values in option.when.items():
        found |= {**_needed(by_name[name], by_name), name: values[0]}
    return found


def read_space(name: Path) -> Space:
    """Read a space from a file, or the packaged one of that name.

    Raises:
        ConfigError: The file or an entry in it cannot be used.
    """
    path = name if name.is_file() else packaged(str(name)) or name
    content = read_yaml(path)
    if not content:
        raise ConfigError(f"{path} names no options: write one a line, such as model.lr: {{low: 1.0e-5, high: 1.0e-3}}")
    options: list[SearchOption] = []
    for option, entry in content.items():
        options.append(_option(path, str(option), entry, options))
    return Space(tuple(options))


def _option(path: Path, name: str, entry: object, before: Sequence[SearchOption]) -> SearchOption:
    _check_name(path, name)
    where = f"{path}: {name}"
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict) or not entry.keys() <= _KEYS or ("choices" in entry) == ("low" in entry):
        raise ConfigError(
            f"{where} is not a list of values, nor low and high with step, log or when, nor choices with when: "
            "write {low: 1.0e-5, high: 1.0e-3, log: true} or {choices: [16, 32]}"
        )
    when = _conditions(where, entry.get("when"), before)
    if "choices" in entry:
        if entry.keys() - {"choices", "when"}:
            raise ConfigError(f"{where} has choices and a range: leave one of them out")
        return SearchOption(name, choices=_choices(where, entry["choices"]), when=when)
    low, high, step = (_number(where, key, entry.get(key)) for key in ("low", "high", "step"))
    if low is None or high is None:
        raise ConfigError(f"{where} has only one end: give low and high")
    if low >= high:
        raise ConfigError(f"{where} has the empty range {low} to {high}: give low below high")
    if step is not None and not 0 < step <= high - low:
        raise ConfigError(f"{where} has the step {step}: give one above 0 and at most {high - low}")
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where} has log {log}: give true or false")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{where} has a logarithmic scale: give low above 0, and no step")
    return SearchOption(name, low, high, step, log, when=when)


def _check_name(path: Path, name: str) -> None:
    """Refuse options that would make trials incomparable, or that belong to the study or the machine."""
    group, _, last = name.partition(".")
    if name in ("seed", "model.seed"):
        why = "is chance and not a setting: leave it out; tune --finish repeats the best trials with several --seeds"
    elif (group == "data" and last.partition(".")[0] in _OF_SPLIT) or group in _OF_PARENT:
        why = "changes films, labels or splits, so that trials could not be compared: leave it out"
    elif group in ("checkpoint", "decision"):
        why = "changes the metric that trials are compared by, or comes after the training: set it for all trials"
    elif not changes_training(name):
        why = "does not change the training: set it for all trials"
    else:
        return
    raise ConfigError(f"{path}: {name} {why}")


def _conditions(where: str, when: object, before: Sequence[SearchOption]) -> dict[str, tuple[Value, ...]]:
    if when is None:
        return {}
    known = {option.name: option for option in before}
    if not isinstance(when, dict) or not when:
        raise ConfigError(f"{where} has a condition that is not a mapping: write when: {{model.adapter: lora}}")
    conditions = {}
    for other, values in when.items():
        if other not in known or not known[other].choices:
            raise ConfigError(f"{where} depends on {other}, which is not an option with choices above it: add it there")
        conditions[other] = tuple(_value(value) for value in (values if isinstance(values, list) else [values]))
        if missing := [value for value in conditions[other] if value not in known[other].choices]:
            raise ConfigError(f"{where} depends on {other}: {missing[0]}, which is not one of its choices: fix one")
    return conditions


def _choices(where: str, given: object) -> tuple[Value, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{where} has no choices: give a list of values")
    choices = tuple(map(_value, given))
    if len(set(map(str, choices))) < len(choices):
        raise ConfigError(f"{where} has a choice twice: leave one out")
    return choices


def _value(value: Any) -> Value:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _number(where: str, key: str, value: object) -> float | None:
    """Return a number; YAML reads 1e-5, without a point, as a text."""
    if value is None:
        return None
    try:
        number = value if isinstance(value, int | float) else float(str(value))
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ConfigError(f"{where} has {key} {value}: give a number")
    return number
