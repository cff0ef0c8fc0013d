"""The JSON Schema of configurations, against a validator that others wrote."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from genre_lightning.__main__ import main
from genre_lightning.config.parser import parse
from genre_lightning.config.schema import configuration_schema

CONFIGS = [  # those of tune/ are spaces, of which tests/tuning/test_space.py makes sure
    path for path in sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")) if path.parent.name != "tune"
]
QLORA = "genre_lightning.LlamaQLoraClassifier"


def complaints(configuration):
    return [error.message for error in Draft202012Validator(configuration_schema()).iter_errors(configuration)]


def test_the_command_prints_a_valid_schema(capsys):
    assert main(["configs", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    about = schema["properties"]["data"]["properties"]["max_tokens"]
    assert about["description"]
    assert (about["default"], about["minimum"]) == (256, 3)


def test_the_schema_has_every_option_of_fit():
    config, _ = parse("fit", ["--data.csv", "films.csv"])
    assert set(vars(config)) - {"config"} == set(configuration_schema()["properties"]) - {"baseline"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_packaged_configurations_fit_the_schema(path):
    assert complaints(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"data": {"max_tokns": 3}}, "max_tokns"),
        ({"data": {"split": "x"}}, "'x'"),
        ({"trainer": {"max_epochs": 0}}, "0"),
        ({"wandb": {"projct": "x"}}, "projct"),
        ({"model": {"class_path": "DistilBertClassifier", "init_args": {"lrr": 1}}}, "lrr"),
        ({"model": {"class_path": QLORA, "init_args": {"quantization": "nf5"}}}, "nf5"),
    ],
)
def test_a_mistake_does_not(configuration, named):
    assert any(named in complaint for complaint in complaints(configuration))


@pytest.mark.parametrize(
    "configuration",
    [
        {"model": {"class_path": "my_package.Model", "init_args": {"x": 1}}},
        {"model": "LlamaQLoraClassifier"},
        {"trainer": {"max_epochs": -1, "strategy": {"class_path": "a.B"}, "devices": [0, 1]}, "wandb": None},
    ],
)
def test_models_and_objects_of_other_packages_are_left_alone(configuration):
    assert complaints(configuration) == []
