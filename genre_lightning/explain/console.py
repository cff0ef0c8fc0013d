"""Explanations and top words on a terminal, and as plain text if there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from genre_lightning.escapes import visible
from genre_lightning.explain.explainer import Explanation, GenreExplanation

_STRONGEST = 6
_TOP_WORDS_SHOWN = 8
_LEVELS = ((0.5, "bold reverse"), (0.25, "bold"), (0.1, ""))
"""Least strength of a word, as a fraction of the strongest one's, and how it is shown; weaker ones are left plain.
Weights of the terminal's own green and red are readable on light and dark."""


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print a text for each of its genres, the words coloured by what they add, with the sums below."""
    for note in explanation.tagged.notes:
        console.print(Text(_visible(f"note: {note}"), style="yellow"), soft_wrap=True)
    if explanation.words is None:
        return
    if not explanation.genres[0].decided:
        console.print(Text("no genre reaches its threshold; the likeliest:", style="yellow"))
    for genre in explanation.genres:
        console.print(_head(genre))
        console.print(Padding(_coloured(explanation, genre), (0, 0, 0, 2), expand=False))
        for title, against in (("for", False), ("against", True)):
            strongest = genre.strongest(explanation.words, _STRONGEST, against=against)
            if strongest:
                listed = "  ".join(f"{name} {value:+.2f}" for name, value in strongest)
                console.print(Text(_visible(f"  {title:<9}{listed}")), soft_wrap=True)
        if genre.named_inputs:
            listed = "  ".join(f"{name} {value:+.2f}" for name, value in genre.named_inputs)
            console.print(Text(_visible(f"  {'inputs':<9}{listed}")), soft_wrap=True)
        console.print(Text(f"  {'sum':<9}{sum_text(genre)}", style="dim"), soft_wrap=True)
        console.print()
    console.print(Text(legend(explanation), style="dim"), soft_wrap=True)


def legend(explanation: Explanation) -> str:
    """Return what the numbers are, in one line."""
    what = "a word or an input" if explanation.genres and explanation.genres[0].inputs else "a word"
    return f"values are the log-odds that {what} adds, compared with {explanation.baseline}"


def threshold_text(genre: GenreExplanation) -> str:
    """Return what the probability was held against."""
    if genre.threshold is None:
        return "one of those asked for"
    return f"from {genre.threshold:.3f} on" if genre.decided else f"below {genre.threshold:.3f}"


def sum_text(genre: GenreExplanation) -> str:
    """Return the sums of words and inputs beside what they should be, and how far they are off."""
    share = f" ({genre.error_share:.2%})" if genre.change else ""
    how = f"{genre.steps} steps" if genre.steps else "exact"
    inputs = f", {sum(genre.inputs.values()):+.2f} by the inputs" if genre.inputs else ""
    words = f"{genre.values.sum():+.2f} by the words"
    total = f"{genre.baseline:+.2f} at the baseline, {words}{inputs}: {genre.log_odds:+.2f}"
    return f"log-odds {total}; completeness error {genre.error:.4f}{share}, {how}"


def _head(genre: GenreExplanation) -> Text:
    line = Text(_visible(genre.genre), style="bold")
    line.append(f"  {genre.probability:.3f}  {threshold_text(genre)}", style="not bold dim")
    return line


def _coloured(explanation: Explanation, genre: GenreExplanation) -> Text:
    """Return the text with its words coloured, each piece escaped by itself: an escape is longer than its character."""
    words = explanation.words
    assert words is not None
    shown, done = Text(), 0
    for start, end, strength in zip(words.starts, words.ends, genre.strengths, strict=True):
        style = next((style for least, style in _LEVELS if abs(strength) >= least), None)
        if style is None or end > explanation.read:
            continue
        shown.append(_visible(explanation.text[done:start]))
        colour = "green" if strength > 0 else "red"
        shown.append(_visible(explanation.text[start:end]), style=f"{style} {colour}".strip())
        done = int(end)
    shown.append(_visible(explanation.text[done : explanation.read]))
    if explanation.read < len(explanation.text.rstrip()):
        shown.append(" …", style="dim")
    return shown


def _visible(text: str) -> str:
    return visible(text, keep="\n\t")


def top_words_table(found: Mapping[str, Any]) -> Table:
    """Lay out what `top_words` gave: one row a genre."""
    table = Table(
        box=box.ASCII,
        title=f"{found['split']}: the words that add most to each genre, in {found['films']:,} films",
        title_justify="left",
    )
    table.add_column("genre", no_wrap=True)
    table.add_column("films", justify="right")
    table.add_column("words, with the mean log-odds that they add")
    for row in found["genres"]:
        words = [f"{word['word']} {word['log_odds']:+.2f}" for word in row["words"][:_TOP_WORDS_SHOWN]]
        table.add_row(row["genre"], f"{row['films']:,}", ", ".join(words) or "-")
    return table
