"""The language tool finds what it is for: each pattern, and where prose is."""

import language
import pytest


@pytest.mark.parametrize(
    "text",
    [
        "the run goes" + " on from there",
        "this is" + " no run directory",
        "the fig" + "ures of a run",
        "seconds; None" + " where unknown",
        "    Args:\n        seed:" + " of the split.",
    ],
)
def test_a_phrase_is_found(text):
    assert len(list(language.problems(text))) == 1


@pytest.mark.parametrize(
    "text", ["there is no run", "RUN/figures/loss.png", "        seed: Random seed of the split.", "on and on"]
)
def test_plain_english_passes(text):
    assert not list(language.problems(text))


def test_prose_is_messages_docstrings_comments_and_names_of_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(language, "ROOT", tmp_path)
    file = tmp_path / "code.py"
    file.write_text('"""A docstring."""\n\n\ndef test_it_works():\n    raise ValueError("a message")  # a comment\n')
    assert {text for *_, text in language.prose(file)} == {"A docstring.", "test it works", "a message", "# a comment"}
