"""Run directories named by options."""

import pytest
from jsonargparse import Namespace

from genre_lightning.config.run_pattern import fill_run_dir, matching_runs
from genre_lightning.errors import ConfigError

CONFIG = {
    "seed": 3,
    "model": {"init_args": {"lr": 2e-5, "backbone": "a/b c"}},
    "data": {"split": [0.8, 0.2], "text": "{title}. {overview}"},
}


def filled(pattern):
    config = Namespace(run_dir=pattern, **CONFIG)
    fill_run_dir(config)
    return str(config.run_dir)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("runs/lr-{model.lr}-seed-{seed}", "runs/lr-2e-05-seed-3"),
        ("runs/{model.backbone}", "runs/a-b-c"),
        ("runs/plain", "runs/plain"),
        ("runs/{data.text}", "runs/-title-.-overview-"),
    ],
)
def test_options_in_braces_are_filled_in(pattern, expected):
    assert filled(pattern) == expected


@pytest.mark.parametrize("pattern", ["runs/{model.lrs}", "runs/{lr}", "runs/{data.split}", "runs/{run_dir}"])
def test_what_is_not_an_option_with_one_value_is_refused(pattern):
    with pytest.raises(ConfigError, match="whole name"):
        filled(pattern)


def test_runs_are_found_by_their_pattern(tmp_path):
    for name in ("lr-0.1-seed-0", "lr-0.2-seed-1", "other"):
        (tmp_path / name).mkdir()
    found = matching_runs(tmp_path / "lr-{model.lr}-seed-{seed}")
    assert [path.name for path in found] == ["lr-0.1-seed-0", "lr-0.2-seed-1"]
    assert matching_runs(tmp_path / "missing") == [tmp_path / "missing"]


def test_a_name_that_cannot_be_a_pattern_is_a_path(tmp_path):
    assert matching_runs(tmp_path / "a**") == [tmp_path / "a**"]
