"""Configuration files of any content end in settings or in one line, soon and in little memory."""

import os
from pathlib import Path

import pytest

from genre_lightning.errors import ConfigError
from genre_lightning.yaml_files import MAX_BYTES, MAX_NODES, parse_yaml, read_yaml


def bomb(levels, width=10):
    lines = ["a0: &a0 [" + ",".join(["x"] * width) + "]"]
    lines += [f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * width) + "]" for i in range(1, levels)]
    return "\n".join(lines)


MERGES = "a0: &a0 {k0: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(9), f"expands to more than {MAX_NODES:,} values"),
        (bomb(40, 2), "expands to more than"),
        ("a: &a [*a]", "inside what it stands for"),
        ("a: &a {b: &b [*a]}", "inside what it stands for"),
        (MERGES, "expands to more than"),
        ("[" * 100_000, "not well-formed YAML"),
        ("a: " + "[" * 900 + "]" * 900, "not well-formed YAML"),
        ("a: x" * 100_000, f"more than the {MAX_BYTES:,} allowed"),
        ("\0", "not well-formed YAML"),
    ],
)
def test_hostile_content(tmp_path, content, message):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)


def test_aliases_of_a_usual_number_are_taken():
    text = "a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}"
    assert parse_yaml(text) == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}], "c": {"x": 1, "y": 2}}
    assert parse_yaml("") is None


def test_what_is_not_a_regular_file_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", "/dev/stdin", tmp_path):
        with pytest.raises(ConfigError, match="no such configuration file"):
            read_yaml(Path(path))


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="a system without /proc")
def test_a_pseudo_file_that_never_answers(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no settings|cannot be read"):
        read_yaml(Path("/proc/kmsg"))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_text("a: 1")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read .Permission denied.: check its permissions"):
        read_yaml(file)


@pytest.mark.parametrize("text", ["!!bool x", "!!int ''", "!!float _", "!!timestamp x", "1:" + "1:" * 180 + "1.0"])
def test_a_value_that_does_not_fit_its_tag_is_not_well_formed(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"seed: {text}")
    with pytest.raises(ConfigError, match="not well-formed YAML"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["1" + ":1" * 100_000, "1" * 401, "0x" + "f" * 400, "1:" * 300 + "1.0"])
def test_numbers_of_many_digits_are_refused(tmp_path, text):
    """The first takes 12 seconds: such a number is computed digit by digit to the base of 60."""
    (tmp_path / "c.yaml").write_text(f"seed: {text}")
    with pytest.raises(ConfigError, match="digits, more than the 400 allowed"):
        read_yaml(tmp_path / "c.yaml")
