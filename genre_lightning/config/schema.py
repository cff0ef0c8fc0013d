"""The JSON Schema of configuration files, from the dataclasses that declare the options: for editors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from genre_lightning.bounds import BatchBounds, Bounds
from genre_lightning.config.continuation import ContinueOptions, SelfTrainingOptions
from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, WandbOptions
from genre_lightning.config.stand_ins import PUBLIC, class_path
from genre_lightning.config.trainer import OBJECTS, TrainerOptions

Schema = dict[str, Any]

_NAMES: Mapping[Any, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", NoneType: "null", dict: "object"
}  # fmt: skip


def configuration_schema() -> Schema:
    """Return the schema (draft 2020-12) of a configuration of `fit`, of an overlay, or of a baseline.

    No option is required, as a file may be laid over another. Objects of Lightning's (callbacks, loggers, ...) and the
    arguments of models of your own are not looked into.
    """
    settings = {
        **{name: {"type": ["string", "null"]} for name in ("run_dir", "continue_from", "feedback", "labels")},
        "seed": {"type": "integer"},
        **{name: {"type": "boolean"} for name in ("override", "json", "tensorboard", "require_no_worse")},
        "baseline": {"type": "string"},
        "data": _of_options(DataOptions),
        "model": {},
        "trainer": _trainer(),
        "checkpoint": _of_options(CheckpointOptions),
        "early_stopping": _of_options(EarlyStoppingOptions),
        "decision": _of_options(DecisionOptions),
        "continue": _of_options(ContinueOptions),
        "self_training": _of_options(SelfTrainingOptions),
        "wandb": {**_of_options(WandbOptions), "type": ["object", "null"]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A configuration of genre-lightning",
        **_object(settings),
        "if": {"required": ["baseline"]},
        "else": {"properties": {"model": _model()}},
    }


def _trainer() -> Schema:
    schema = _of_options(TrainerOptions)
    for name in OBJECTS:
        schema["properties"][name] = {}
    return schema


def _model() -> Schema:
    """Return the name of a model, or its class path and arguments: those that the class has."""
    paths = {path: [path, path.rpartition(".")[2]] for path in OPTIONS}
    for public in PUBLIC:
        paths[class_path(public)].append(public)
    by_class = [
        {
            "if": {"properties": {"class_path": {"enum": names}}, "required": ["class_path"]},
            "then": {"properties": {"init_args": _of_options(OPTIONS[path])}},
        }
        for path, names in paths.items()
    ]
    named = _object({"class_path": {"type": "string"}, "init_args": {"type": "object"}})
    return {**named, "type": ["object", "string"], "allOf": by_class}


def _of_options(kind: type) -> Schema:
    hints, said = get_type_hints(kind, include_extras=True), option_docs(kind)
    described = {name: {"description": about, **_of_type(hints[name])} for name, about in said.items()}
    return _object({field.name: {**described[field.name], **_default(field)} for field in fields(kind)})


def option_docs(kind: type) -> dict[str, str]:
    """Return what the docstrings of a dataclass of options, and of its bases, write about each option."""
    said = {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for base in reversed(kind.__mro__)
        for parameter in parse(base.__doc__ or "").params
    }
    return {field.name: said.get(field.name, "") for field in fields(kind)}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _default(field: Field[Any]) -> Schema:
    plain = field.default is not MISSING and isinstance(field.default, bool | int | float | str | None)
    return {"default": field.default} if plain else {}


def _of_type(hint: Any) -> Schema:
    """Return the values of a type; any value if it has no form in JSON."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        schema = _of_type(inner[0])
        bounds = next((note for note in inner[1:] if isinstance(note, Bounds)), None)
        return {**schema, **_limits(bounds)} if bounds else schema
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        choices = [_of_type(one) for one in inner]
        return {} if {} in choices else {"anyOf": choices}
    if origin is list:
        return {"type": "array", "items": _of_type(inner[0])}
    if origin is dict:
        return {"type": "object"}
    if is_dataclass(hint) and isinstance(hint, type):
        return _of_options(hint)
    return {"type": _NAMES[hint]} if hint in _NAMES else {}


def _limits(bounds: Bounds) -> Schema:
    """Return the bounds of numbers, which leave other values alone."""
    if isinstance(bounds, BatchBounds):
        return {"exclusiveMinimum": 0}
    lower = "exclusiveMinimum" if bounds.open_below else "minimum"
    upper = "exclusiveMaximum" if bounds.open_above else "maximum"
    limits = {lower: bounds.least, upper: bounds.most}
    return {"anyOf": [limits, {"enum": list(bounds.also)}]} if bounds.also else limits
