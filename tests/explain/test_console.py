"""Explanations on a terminal: the text is whole and its colours are in their places, whatever characters it has."""

import io

import numpy as np
import pytest
from rich.text import Text

from genre_lightning.evaluation.console import SafeConsole
from genre_lightning.explain.console import print_explanation
from genre_lightning.explain.explainer import Explanation, GenreExplanation
from genre_lightning.explain.words import split_words
from genre_lightning.inference.tagger import TaggedText


def explanation_of(text, word, read=None, genre="War"):
    """An explanation in which one word counts for a genre, and no other."""
    words = split_words(text)
    values = np.array([float(name == word) for name in words.names])
    found = GenreExplanation(genre, 0.9, 0.5, True, values, 1.0, 0.0, 0.0, 0)
    return Explanation(TaggedText(text), text, words, len(text) if read is None else read, "an empty text", (found,))


def printed(explanation, *, color=None, width=100):
    file = io.StringIO()
    console = SafeConsole(file, width=width, force_terminal=color is not None, color_system=color)
    print_explanation(explanation, console)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A boy\x1b finds a killer", r"A boy\x1b finds a killer"),
        ("A boy\x07 finds\r a\x0b\x0c\x08 killer", r"A boy\x07 finds\r a\x0b\x0c\x08 killer"),
        ("A \u202eboy\u2028 finds a\x00\x9b killer", r"A \u202eboy\u2028 finds a\x00\x9b killer"),
        ("A boy finds a killer [red]here[/red]", "A boy finds a killer [red]here[/red]"),
    ],
)
def test_control_characters_are_escaped_and_move_no_colour(text, shown):
    explanation = explanation_of(text, "killer")
    assert f"  {shown}\n" in printed(explanation)
    coloured = printed(explanation, color="standard")
    assert "\x1b[1;7;32mkiller\x1b[0m" in coloured
    assert Text.from_ansi(coloured.splitlines()[1]).plain == f"  {shown}"


def test_words_with_control_characters_are_listed_escaped():
    shown = printed(explanation_of("A\x07\x1b boy", "A"))
    assert "  for      A +1.00\n" in shown
    shown = printed(explanation_of("A boy \x07\x1b.", "\x07\x1b."))
    assert "  for      \\x07\\x1b. +1.00\n" in shown
    assert printed(explanation_of("A boy", "boy", genre="W\x07ar\x1b")).startswith("W\\x07ar\\x1b  0.900")


def test_a_long_text_with_escapes_is_wrapped_and_not_cut():
    shown = printed(explanation_of(" ".join(["boy\x1b"] * 20), "none"), width=40)
    assert shown.partition("  sum")[0].count("boy\\x1b") == 20


def test_what_the_model_does_not_read_is_left_out():
    explanation = explanation_of("A boy finds a killer", "boy", read=len("A boy finds"))
    assert "\n  A boy finds …\n" in printed(explanation)
    assert "\x1b[1;7;32mboy\x1b[0m" in printed(explanation, color="standard")
