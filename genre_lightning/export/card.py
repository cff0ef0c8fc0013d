"""README.md of an exported model: a model card in the hub's form, made of the run's own files.

The text is in templates/card.md.j2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from genre_lightning import __version__
from genre_lightning.config.decision import POLICIES, SHIPPED_POLICY
from genre_lightning.escapes import markdown
from genre_lightning.evaluation.console import HEADLINES, POLICY_NAMES, THRESHOLD_FREE, figure_text, headline_lines
from genre_lightning.evaluation.films import describe_films, describe_provenance
from genre_lightning.evaluation.runs import Run
from genre_lightning.export.markdown import Markdown, code, render
from genre_lightning.export.onnx_model import OnnxCheck
from genre_lightning.export.source import Source
from genre_lightning.files import damaged
from genre_lightning.models.metadata import BaseMetadata
from genre_lightning.shapes import Shape, count, require_shape, text

Form = Literal["transformers", "sentence-transformers", "adapter", "onnx"]

_EXAMPLE = "A boy finds a map and sets out with his dog to look for the treasure."
_LIBRARIES: dict[Form, str] = {
    "transformers": "transformers",
    "sentence-transformers": "sentence-transformers",
    "adapter": "peft",
    "onnx": "onnx",
}
_WITHOUT_WEIGHTS = ("small", "random")
"""Backbones that are trained from random weights."""
_SPLITS = ("train", "validation", "test")
_SPLIT: Shape = {"films": count, "ids_sha256": text, "genres": {"*": count}}
_AUDIT: Shape = {
    **dict.fromkeys(
        ("rows", "malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres", "kept",
         "films_used"), count
    ),
    "splits": {"train": _SPLIT, "validation?": _SPLIT, "test?": _SPLIT},
}  # fmt: skip
"""What the card shows of data_audit.json."""
_F1_INTERVAL = ("f1_low", "f1_high")


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        form: Form of the export.
        name: Name of the folder.
        onnx: Comparison of the ONNX model; None without one.
        difference: Largest difference of a probability from the run's, if it was measured.
    """

    form: Form
    name: str
    onnx: OnnxCheck | None = None
    difference: float | None = None


def model_card(source: Source, exported: Exported) -> str:
    """Return the card: metadata, use, data, metrics, each genre, limits and licence.

    Raises:
        CheckpointError: A file of the run is missing or damaged; the message names the fix.
    """
    run = Run(source.run.path)
    split = "test" if run.has("test") else "validation"
    metrics = run.metrics(split)
    rows = [row for row in run.genre_rows(split) if row["policy"] == SHIPPED_POLICY]
    settings = {section: values or {} for section, values in source.run.settings().items()}
    card = _Card(source, exported, split, metrics, settings, _audit(run), rows, describe_provenance(metrics))
    return render(
        "card.md.j2",
        card=card,
        source=source,
        exported=exported,
        split=split,
        audit=card.audit,
        example=_EXAMPLE,
        films=" ".join(describe_films(metrics)),
        headlines=headline_lines(metrics)[1:],
    )


def _audit(run: Run) -> dict[str, Any]:
    """Return the audit; an empty one if the run has none of its splits."""
    audit = run.audit() or {}
    if not audit.get("splits"):
        return {}
    try:
        require_shape(audit, _AUDIT)
    except ValueError as error:
        raise damaged(run.files.audit, error, f"delete it, then {run.files.again}") from None
    return audit


@dataclass(frozen=True)
class _Card:
    """What the template shows besides the contents of the run's files."""

    source: Source
    exported: Exported
    split: str
    metrics: dict[str, Any]
    settings: dict[str, Any]
    audit: dict[str, Any]
    genre_rows: list[dict[str, str]]
    made_by: list[tuple[str, str]]
    weak_below = 0.4

    @property
    def head(self) -> Markdown:
        """The metadata that the hub reads, in YAML."""
        figures, base = self.metrics["policies"][SHIPPED_POLICY], self.source.base.name
        measured = (
            ("f1", "micro-F1, a threshold for each genre", figures["f1_micro"]),
            ("f1", "macro-F1, a threshold for each genre", figures["f1_macro"]),
            ("mean_average_precision", "mAP", self.metrics["threshold_free"]["map_macro"]),
        )
        results = [
            EvalResult(
                task_type="text-classification",
                task_name="multi-label genre classification",
                dataset_type="csv",
                dataset_name=self.csv,
                dataset_split=self.split,
                metric_type=kind,
                metric_name=name,
                metric_value=round(value, 4),
            )
            for kind, name, value in measured
            if value is not None
        ]
        data = ModelCardData(
            license="unknown",
            library_name=_LIBRARIES[self.exported.form],
            pipeline_tag="text-classification",
            tags=["multi-label-classification", "film-genres", "genre-lightning"],
            base_model=None if _is_local(base) else base,
            model_name=self.exported.name,
            eval_results=results or None,
        )
        return Markdown(data.to_yaml().rstrip("\n") + "\n")

    @property
    def csv(self) -> str:
        """Name of the file of the films."""
        return Path(str(self.settings.get("data", {}).get("csv") or "unknown file")).name

    @property
    def base(self) -> Markdown:
        """Name of the model that the training started from."""
        name = self.source.base.name
        if name in _WITHOUT_WEIGHTS:
            return Markdown("random weights")
        return Markdown(f"the local directory {code(Path(name).name)}") if _is_local(name) else code(name)

    @property
    def base_to_load(self) -> str:
        """The base of an adapter as its library loads it."""
        return f"{self.exported.name}/base" if self.source.base.random else self.source.base.name

    @cached_property
    def splits(self) -> list[list[object]]:
        """Rows of each split's name, films and digest."""
        found = self.audit.get("splits", {})
        return [
            [Markdown(f"**{name}**"), f"{found[name]['films']:,}", code(found[name]["ids_sha256"][:16])]
            for name in _SPLITS
            if found.get(name)
        ]

    @property
    def genres_in_training(self) -> list[tuple[str, int]]:
        """Genres and their films, the most frequent first."""
        return sorted(self.audit["splits"]["train"]["genres"].items(), key=lambda pair: -pair[1])

    @property
    def metric_heads(self) -> list[str]:
        """Heads of `metrics_by_policy`."""
        return [f"{self.metrics['n']:,} films of {self.split}", *(POLICY_NAMES[policy] for policy in POLICIES)]

    @property
    def metrics_by_policy(self) -> list[list[object]]:
        """Rows of a metric's title and its value under each policy."""
        spans = self.metrics.get("intervals", {}).get("policies", {})
        return [
            [
                title,
                *(
                    _figure(self.metrics["policies"][policy][name], spans.get(policy, {}).get(name))
                    for policy in POLICIES
                ),
            ]
            for name, title in HEADLINES
        ]

    @property
    def metrics_without_threshold(self) -> list[list[object]]:
        """Rows of a metric's title and its value."""
        spans = self.metrics.get("intervals", {}).get("threshold_free", {})
        return [
            [title, _figure(self.metrics["threshold_free"][name], spans.get(name))] for name, title in THRESHOLD_FREE
        ]

    @property
    def genres(self) -> list[list[object]]:
        """Rows of each genre's metrics."""
        rows: list[list[object]] = []
        for row in self.genre_rows:
            f1 = _figure(_number(row["f1"]), [_number(row.get(name, "")) for name in _F1_INTERVAL])
            others = (_figure(_number(row[name])) for name in ("precision", "recall", "average_precision", "threshold"))
            rows.append([row["genre"], row["support"], f1, *others])
        return rows

    @property
    def weak(self) -> list[tuple[str, float]]:
        """Genres of a low F1."""
        known = [(row["genre"], float(row["f1"])) for row in self.genre_rows if row["f1"]]
        return [(genre, f1) for genre, f1 in known if f1 < self.weak_below]

    @property
    def training(self) -> list[list[object]]:
        """Rows of settings and what they were."""
        model, trainer, data = (self.settings.get(section, {}) for section in ("model", "trainer", "data"))
        options = model.get("init_args", {})
        parameters = self.metrics.get("trainable_parameters")
        digest = code((self.source.decision.checkpoint_sha256 or "-")[:16])
        return [
            ["model class", code(model.get("class_path", ""))],
            ["epochs", trainer.get("max_epochs")],
            ["films a step", data.get("global_batch_size")],
            ["loss, weight of positives", f"{options.get('loss')}, {options.get('pos_weight')}"],
            ["precision", trainer.get("precision")],
            ["trained parameters", "-" if parameters is None else f"{parameters:,}"],
            ["checkpoint", Markdown(f"{digest} (SHA-256)")],
            *([name, value] for name, value in self.made_by),
            ["written by", f"genre-lightning {__version__}"],
        ]

    @property
    def licences(self) -> list[list[object]]:
        """Rows of what the weights were made from, and its licence."""
        base: object = "none, the weights were random"
        if self.source.base.name not in _WITHOUT_WEIGHTS:
            licence = _licence(self.source.base)
            terms = f"{markdown(licence)}, by its own card" if licence else "unknown; ask where it is from"
            base = Markdown(f"{self.base}: {terms}")
        file = Markdown(f"{code(self.csv)}: unknown; the file does not name one, its publisher may")
        return [["base model", base], ["data", file]]


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _figure(value: float | None, interval: Sequence[float | None] | None = None) -> Markdown:
    return Markdown(figure_text(value, interval))


def _is_local(name: str) -> bool:
    return name in _WITHOUT_WEIGHTS or Path(name).exists() or name.startswith((".", "/", "~"))


def _licence(base: BaseMetadata) -> str | None:
    """Return the licence that the base's own card names; None if there is no card here, or it names none."""
    from transformers.utils import cached_file

    if base.name in _WITHOUT_WEIGHTS:
        return None
    try:
        found = cached_file(
            base.name,
            "README.md",
            revision=base.revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )
        licence = ModelCard.load(found).data.license if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return None  # a card that cannot be read says nothing
    return str(licence) if licence else None
