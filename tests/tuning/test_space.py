"""The space of a study: what it refuses, and which options a trial gets."""

from pathlib import Path

import optuna
import pytest
import yaml

from genre_lightning.config.packaged import CONFIGS
from genre_lightning.errors import ConfigError
from genre_lightning.tuning.checks import check_space
from genre_lightning.tuning.space import read_space

WORDS = [f"--config={CONFIGS / 'quickstart.yaml'}"]


def space_of(place, **entries):
    file = place / "space.yaml"
    file.write_text(yaml.safe_dump({name.replace("__", "."): entry for name, entry in entries.items()}))
    return read_space(file)


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("model.lr", {"low": 0.1, "high": 0.1}, "empty range"),
        ("model.lr", {"low": 0.1}, "only one end"),
        ("model.lr", {"low": 0, "high": 1, "log": True}, "low above 0"),
        ("model.lr", {"low": "x", "high": 1}, "give a number"),
        ("model.lr", {"low": 0.0, "high": 1.0, "step": 2.0}, "step"),
        ("model.lr", {"low": 0.0, "high": 1.0, "choices": [1]}, "not a list of values"),
        ("model.lr", {"lo": 0.0, "high": 1.0}, "not a list of values"),
        ("model.lr", 3, "not a list of values"),
        ("model.lr", [], "no choices"),
        ("model.lr", [1e-3, 1e-3], "twice"),
        ("model.lr", {"low": 0.1, "high": 0.2, "when": {"model.adapter": "lora"}}, "depends on model.adapter"),
        ("data.split", [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]], "changes films, labels or splits"),
        ("data.seed", [0, 1], "changes films, labels or splits"),
        ("data.max_films", [100, 200], "changes films, labels or splits"),
        ("data.fold", ["1/5", "2/5"], "changes films, labels or splits"),
        ("data.unlabelled", ["a.csv", "main"], "changes films, labels or splits"),
        ("self_training.precision", [0.8, 0.9], "changes films, labels or splits"),
        ("labels", ["a.csv", "b.csv"], "changes films, labels or splits"),
        ("data.columns.genres", ["a", "b"], "changes films, labels or splits"),
        ("seed", [0, 1], "--seeds"),
        ("model.seed", [0, 1], "--seeds"),
        ("checkpoint.monitor", ["val/loss"], "set it for all trials"),
        ("data.micro_batch_tokens", [512, 1024], "does not change the training"),
        ("run_dir", ["a", "b"], "does not change the training"),
    ],
)
def test_bad_entry_is_refused(tmp_path, name, entry, words):
    with pytest.raises(ConfigError, match=name) as error:
        space_of(tmp_path, **{name: entry})
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("model.learning", [1, 2], "model.learning"),
        ("model.dropout", {"low": 0.0, "high": 1.5}, "1.5"),
        ("data.text", ["{overview}", "{overviews"], "data.text"),
        ("model.pooling", ["mean", "middle"], "middle"),
    ],
)
def test_value_that_fit_refuses_is_refused_before_the_first_trial(tmp_path, name, entry, words):
    with pytest.raises(ConfigError, match="--space") as error:
        check_space(space_of(tmp_path, **{name: entry}), WORDS)
    assert words in str(error.value)


def test_numbers_without_a_point_are_numbers(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("model.lr: {low: 1e-5, high: 1e-3, log: true}\n")
    assert read_space(file).options[0].low == 1e-5


def test_conditions_decide_which_options_a_trial_has(tmp_path):
    space = read_space(_conditional(tmp_path))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [space.suggest(study.ask()) for _ in range(20)]
    assert {("model.lora.rank" in options, options["model.adapter"]) for options in found} == {
        (True, "lora"),
        (False, None),
    }
    assert all(isinstance(options.get("model.lora.rank", 1), int) for options in found)


def test_grid_has_each_combination_once(tmp_path):
    points = read_space(_conditional(tmp_path)).grid()
    assert len(points) == 2 * (1 + 4)
    assert {"model.pooling": "mean", "model.adapter": None} in points


def test_grid_of_an_open_range_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="without a step"):
        space_of(tmp_path, model__lr={"low": 0.0, "high": 1.0}).grid()


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"low": 0, "high": 1, "step": 0.25}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"low": 0, "high": 3, "step": 1.5}, [0.0, 1.5, 3.0]),
        ({"low": 0, "high": 4, "step": 2}, [0, 2, 4]),
        ({"low": 0, "high": 4, "step": 2.0}, [0, 2, 4]),
        ({"low": 0.1, "high": 0.5, "step": 0.2}, [0.1, 0.3, 0.5]),
    ],
)
def test_steps_give_the_same_values_to_a_grid_and_to_a_sampler(tmp_path, entry, values):
    space = space_of(tmp_path, model__dropout=entry)
    grid = [point["model.dropout"] for point in space.grid()]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {space.suggest(study.ask())["model.dropout"] for _ in range(60)}
    assert grid == values
    assert sorted(drawn) == pytest.approx(values)
    assert {type(value) for value in [*grid, *drawn]} == {type(values[0])}


def test_continuous_samplers_refuse_choices(tmp_path):
    with pytest.raises(ConfigError, match="choices"):
        space_of(tmp_path, model__pooling=["mean", "cls"]).require_numbers("cmaes")


def _conditional(place: Path) -> Path:
    file = place / "space.yaml"
    file.write_text(
        "model.pooling: [mean, cls]\n"
        "model.adapter: [lora, null]\n"
        "model.lora.rank: {low: 4, high: 7, when: {model.adapter: lora}}\n"
    )
    return file


@pytest.mark.parametrize("path", sorted((CONFIGS / "tune").glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_space_is_one_of_fit(path):
    space = read_space(Path(f"tune/{path.stem}"))
    check_space(space, [f"--config={CONFIGS / path.name}"])
