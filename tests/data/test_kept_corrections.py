"""Corrections as a file that the run keeps."""

import json

import pytest

from genre_lightning.data.corrections import Correction, read_corrections, write_corrections
from genre_lightning.errors import CheckpointError

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n"


def a_correction(text):
    return Correction(text=text, genres=("Drama",), weight=1.0, title="A", fields={"overview": text}, known=None)


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_text_with_a_line_separator_is_read_back(tmp_path, separator):
    written = [a_correction(f"A boy{separator}finds a map."), a_correction("A girl.")]
    write_corrections(written, tmp_path / "feedback.jsonl")
    assert read_corrections(tmp_path / "feedback.jsonl") == written


def test_a_file_with_unescaped_separators_is_read(tmp_path):
    one = a_correction("A boy\u2028finds a map.")
    path = tmp_path / "feedback.jsonl"
    path.write_text(json.dumps(one.to_json(), ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_corrections(path) == [one]


def test_half_a_line_is_damage(tmp_path):
    path = tmp_path / "feedback.jsonl"
    write_corrections([a_correction("A boy finds a map.")], path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match="damaged"):
        read_corrections(path)
