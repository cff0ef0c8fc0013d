"""Plots for the embedded sample: phrases that each genre of a film lends, and the sentences around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from genre_lightning.data.sample import phrases as bank
from genre_lightning.data.sample.dice import Dice

# words of an overview: 0th, 5th, 25th, 50th, 75th, 95th, 99th percentile and the most, as in the real file
_LENGTHS = [(0.0, 9), (0.05, 17), (0.25, 31), (0.5, 51), (0.75, 73), (0.95, 109), (0.99, 152), (1.0, 186)]

_NO_TRACE = 0.13  # chance that a genre of a film leaves no trace in its plot
_NEUTRAL = 0.18  # chance that a phrase is of no genre
_STRAY = 0.04  # chance that a phrase is of a genre that the film does not have


class _Slot(NamedTuple):
    name: str  # a slot of the plot, or one of the kinds of phrase


class _Choice(NamedTuple):
    options: list[list[_Node]]


_Node: TypeAlias = "str | _Slot | _Choice"


@cache
def _parse(phrase: str) -> list[_Node]:
    """Parse `{a|b}` and `{slot}`, nested, into nodes."""

    def sequence(at: int, inside: bool) -> tuple[list[list[_Node]], int]:
        options: list[list[_Node]] = [[]]
        while at < len(phrase):
            char = phrase[at]
            if char == "{":
                inner, at = sequence(at + 1, True)
                slot = len(inner) == 1 and len(inner[0]) == 1 and isinstance(inner[0][0], str)
                options[-1].append(_Slot(str(inner[0][0])) if slot else _Choice(inner))
            elif inside and char in "|}":
                if char == "}":
                    return options, at + 1
                options.append([])
                at += 1
            else:
                end = re.compile(r"[{|}]" if inside else r"[{]").search(phrase, at)
                stop = end.start() if end else len(phrase)
                options[-1].append(phrase[at:stop])
                at = stop
        return options, at

    return sequence(0, False)[0][0]


_phrases = cache(bank.phrases)
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one|once|uni|use|[Ee]u)")  # "a" that should be "an"


@dataclass
class Plot:
    """One film's plot in the making: its people, and which phrases it has used."""

    dice: Dice
    genres: list[str]  # those that leave a trace
    strays: dict[str, float]  # those that it does not have, and their weights
    slots: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    turns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dice = self.dice
        people = [(dice.pick(bank.FIRST_NAMES_F), False), (dice.pick(bank.FIRST_NAMES_M), True)]
        dice.shuffle(people)
        places = {"town": bank.TOWNS, "city": bank.CITIES, "country": bank.COUNTRIES, "rival": bank.LAST_NAMES}
        self.slots = {name: dice.pick(words) for name, words in places.items()}
        self.slots["year"] = str(1935 + dice.below(80))
        self._cast(*people)

    def _cast(self, hero: tuple[str, bool], friend: tuple[str, bool]) -> None:
        self.people = hero, friend
        words = "he him his himself man child sibling"
        values = "he him his himself man son brother" if hero[1] else "she her her herself woman daughter sister"
        self.slots.update(zip(words.split(), values.split(), strict=True), hero=hero[0], friend=friend[0])

    def _genre(self) -> str:
        """Choose whose phrase comes next: of no genre, of a wrong one, or of the film's least heard one."""
        chance = self.dice.random()
        if not self.genres or chance < _NEUTRAL:
            return bank.NEUTRAL
        if chance < _NEUTRAL + _STRAY:
            return self.dice.weighted(list(self.strays), list(self.strays.values()))
        genre = min(self.genres, key=lambda name: self.turns.get(name, 0) + 1.2 * self.dice.random())
        self.turns[genre] = self.turns.get(genre, 0) + 1
        return genre

    def _phrase(self, kind: str) -> str:
        for source in (self._genre(), bank.NEUTRAL):
            fresh = [phrase for phrase in _phrases(source)[kind] if phrase not in self.used]
            if fresh:
                break
        else:
            fresh = _phrases(bank.NEUTRAL)[kind]
        chosen = self.dice.pick(fresh)
        self.used.add(chosen)
        return self.expand(chosen)

    def expand(self, phrase: str) -> str:
        """Fill a phrase's slots and make its choices."""
        return "".join(self._expand(_parse(phrase)))

    def _expand(self, nodes: Iterable[_Node]) -> Iterable[str]:
        for node in nodes:
            if isinstance(node, str):
                yield node
            elif isinstance(node, _Choice):
                yield from self._expand(self.dice.pick(node.options))
            elif node.name in bank.KINDS:
                yield self._phrase(node.name)
            else:
                yield self.slots[node.name.lower()]

    def sentence(self, templates: Sequence[str], words: float, beats: float = 0.0) -> str:
        """Write a sentence by a template not used yet; of three for a near end, the one nearest to the words left."""
        choices: list[tuple[float, str, set[str]]] = []
        before = self.used
        for _ in range(3 if words < 22 else 1):
            self.used = set(before)
            fresh = [template for template in templates if template not in self.used]
            template = self.dice.pick(fresh) if fresh and self.dice.random() >= beats else bank.BEAT
            self.used.add(template)
            about_friend = template.startswith("{friend}")
            many = template.startswith(("{M}", "{S}, {M}"))
            hero, friend = self.people
            if about_friend:  # its pronouns are the friend's
                self._cast(friend, hero)
                template = template.replace("{friend}", "{hero}", 1)
            if many:
                self.slots.update(he="they", him="them", his="their", himself="themselves")
            text = self.expand(template)
            if about_friend or many:
                self._cast(hero, friend)
            text = _ARTICLE.sub(r"\1n ", text)
            text = text[0].upper() + text[1:] + ("" if text[-1] in "?.!" else ".")
            choices.append((abs(len(text.split()) - words), text.replace(" ,", ","), self.used))
        _, text, self.used = min(choices, key=lambda choice: choice[0])
        return text


def overview(dice: Dice, genres: list[str], weights: dict[str, float]) -> str:
    """Write the plot of a film.

    Args:
        dice: The chance of the sample.
        genres: Genres of the film; each leaves a trace, or occasionally none.
        weights: How common each genre is, for the phrases of genres that the film does not have.
    """
    traced = [genre for genre in genres if dice.random() >= _NO_TRACE]
    strays = {genre: weight for genre, weight in weights.items() if genre not in genres}
    plot = Plot(dice, traced, strays)
    rank = dice.random()
    (low, least), (high, most) = next(pair for pair in pairwise(_LENGTHS) if rank <= pair[1][0])
    left = least + (most - least) * (rank - low) / (high - low)
    if "Documentary" in traced and dice.random() < 0.85:
        openers, middles, beats = bank.DOCUMENTARY_OPENERS, bank.DOCUMENTARY_MIDDLES, 0.7
    else:
        openers, middles, beats = bank.OPENERS, bank.MIDDLES, 0.4
    text = plot.sentence(openers, left)
    left -= len(text.split())
    while left > 7:
        sentence = plot.sentence(middles, left, beats)
        text += ("\n" if dice.random() < 0.002 else "  " if dice.random() < 0.02 else " ") + sentence
        left -= len(sentence.split())
    return text
