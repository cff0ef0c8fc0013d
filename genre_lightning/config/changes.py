"""Settings that change a training: compared with those that a run was started with, and named in every checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import yaml

from genre_lightning.config.data import DataOptions
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.decoder import LlamaQLoraOptions
from genre_lightning.config.effects import unchanging
from genre_lightning.config.encoder import EncoderOptions
from genre_lightning.config.run import CheckpointOptions
from genre_lightning.config.trainer import TrainerOptions
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory

_KINDS: tuple[tuple[str, type], ...] = (
    ("checkpoint", CheckpointOptions), ("data", DataOptions), ("trainer", TrainerOptions), ("model", EncoderOptions),
    ("model", LlamaQLoraOptions),
)  # fmt: skip
_WITHOUT_EFFECT = (
    # of the command, and whole groups
    "run_dir", "override", "require_no_worse", "json", "config", "tensorboard", "continue_from", "feedback", "labels",
    "decision", "wandb", *(f"{group}.{option}" for group, kind in _KINDS for option in unchanging(kind)),
)  # fmt: skip
"""Options that do not change what is trained."""

_ADDED = {
    "data.encoding": "utf-8", "data.merge_genre_case": False, "data.reader": None, "model.init_args.seed": None,
    "model.init_args.label_smoothing": 0.0, "model.init_args.layer_lr_decay": 1.0,
    "model.init_args.adapter": None, "model.init_args.unfreeze": None, "model.init_args.unfreeze_lr": None,
    "model.init_args.ema_decay": None, "model.init_args.compile": False,
    "model.init_args.r_drop": 0.0, "model.init_args.fgm": 0.0,
    "model.init_args.teacher": None, "model.init_args.teacher_weight": 1.0, "data.fold": None,
    "model.init_args.attention": "causal", "model.init_args.pooling": "last",
    "model.init_args.lora.init": "default", "model.init_args.lora.lr_ratio_b": 1.0,
    "data.join": None, "data.features": None, "data.leave_out_after_release": False, "data.exclude_leaks": False,
    "model.init_args.fusion": "gate", "model.init_args.drop_input": 0.1, "model.init_args.input_width": 128,
    "model.input_weight": 1.0, "model.drop_inputs": 1.0,
    "continue.replay": "all", "continue.drop_genres": False, "continue.distillation": None,
    "continue.feedback_weights": None, "continue.trusted_users": [],
    "data.unlabelled": None, "self_training.teacher": None, "self_training.precision": 0.9,
    "self_training.negative_precision": 0.99, "self_training.weight": 1.0, "self_training.rounds": 1, "labels": None,
    "data.label_since": None, "data.label_date": "release_date", "data.known_genres": None,
}  # fmt: skip
"""Options that configurations of earlier versions lack, and the value that does what those versions did."""

_KEPT = {
    ("data.seed", "data.split", "data.max_films"): "each film keeps its side of the split",
    ("data.global_batch_size",): "the steps of its epochs are counted by it",
    ("data.tokenizer", "data.revision", "data.vocab_size"): "its texts are read with the tokenizer that it keeps",
}
"""Settings that a run keeps once it has been trained (its tokenizer once it has one), and why."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def training_digest(config_text: str, parts: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the settings that the training depends on.

    Args:
        config_text: A resolved configuration in YAML.
        parts: The groups of settings that count, such as "data"; all of them by default.
    """
    whole = yaml.safe_load(config_text)
    settings = _without_defaults(flatten({name: whole[name] for name in parts if name in whole} if parts else whole))
    kept = {key: value for key, value in sorted(settings.items()) if not _is_ignored(key, _WITHOUT_EFFECT)}
    return hashlib.sha256(json.dumps(kept, default=str, sort_keys=True).encode()).hexdigest()


def _without_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a run of an earlier version lacks, if it has the value that that version worked by."""
    kept = {key: value for key, value in settings.items() if key not in _ADDED or value != _ADDED[key]}
    if kept.get("data.join"):  # like the movies file, joined files may be moved: what they hold is compared elsewhere
        kept["data.join"] = [
            {**{name: value for name, value in join.items() if value is not None or name not in ("via", "to")},
             **{name: PurePath(join[name]).name for name in ("file", "via") if join.get(name)}}
            for join in kept["data.join"]
        ]  # fmt: skip
    return kept


def _is_ignored(key: str, ignored: Sequence[str]) -> bool:
    short = key.replace(".init_args.", ".")
    return any(short == name or short.startswith(f"{name}.") for name in ignored)


def changes_training(option: str) -> bool:
    """Return whether an option, such as "model.lr", changes what is trained, rather than where or how fast."""
    return not _is_ignored(option, _WITHOUT_EFFECT)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], without_effect: Sequence[str] = ()) -> list[str]:
    """Return the settings that would change a training, as "model.lr: 0.0003 → 0.001", sorted.

    Args:
        before: The configuration that the run was started with.
        now: The configuration that it would resume with.
        without_effect: Settings that this kind of run does not read, beside those that none does.
    """
    ignored = (*_WITHOUT_EFFECT, *without_effect)
    old, new = _without_defaults(flatten(before)), _without_defaults(flatten(now))
    changed = []
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key) and not _is_ignored(key, ignored):
            short = key.replace(".init_args.", ".")
            changed.append(f"{short}: {_shown(old.get(key))} → {_shown(new.get(key))}")
    return changed


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def check_same_training(
    run: RunDirectory, config_text: str, *, override: bool | None, without_effect: Sequence[str] = ()
) -> list[str]:
    """Compare a configuration with the one that the run directory was started with.

    Args:
        run: The directory.
        config_text: The configuration that it would resume with.
        override: Let differences pass; None for a command that evaluates the run, and so never does.
        without_effect: Settings that this kind of run does not read.

    Returns:
        The differences that `override` lets pass.

    Raises:
        ConfigError: Settings that would change the training differ, and `override` is not set; or settings that a run
            keeps once it has been trained.
        CheckpointError: The run's configuration cannot be read.
    """
    if not run.config.is_file():
        return []
    changed = differences(run.settings(), yaml.safe_load(config_text), without_effect)
    for names, why in _KEPT.items():
        kept = [line for line in changed if line.partition(":")[0] in names]
        if kept and (run.has_trained or ("data.tokenizer" in names and run.tokenizer.is_dir())):
            raise ConfigError(
                f"{run.path} was started with other settings ({'; '.join(kept)}), and {why}, also with --override: "
                "take those back, or name another --run_dir"
            )
    if changed and not override:
        other_ways = ", name another --run_dir, or resume with the new ones by --override"
        raise ConfigError(
            f"{run.path} was started with other settings ({'; '.join(changed)}): take those back"
            + (other_ways if override is not None else ", as a run is evaluated with the settings that trained it")
        )
    return changed


def decision_changes(run: RunDirectory, config_text: str) -> list[str]:
    """List the options of the decision that differ from those that a run's was fitted with; see `differences`.

    They change no training: the decision is fitted again, and the run is evaluated under it.

    Args:
        run: The directory.
        config_text: The configuration of the command.

    Raises:
        CheckpointError: The run's configuration cannot be read.
    """
    if not run.config.is_file():
        return []
    old = flatten({"decision": run.settings().get("decision")})
    new = flatten({"decision": yaml.safe_load(config_text)["decision"]})
    defaults = flatten({"decision": asdict(DecisionOptions())})
    return [
        f"{key}: {_shown(old.get(key, default))} → {_shown(new[key])}"
        for key, default in defaults.items()
        if old.get(key, default) != new[key]
    ]


def with_decision_of(run: RunDirectory, config_text: str) -> str:
    """Return a run's configuration with the options of the decision from another.

    Args:
        run: The directory.
        config_text: The other configuration.
    """
    settings = {**run.settings(), "decision": yaml.safe_load(config_text)["decision"]}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
