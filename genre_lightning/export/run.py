"""A run in the forms that transformers, peft, sentence-transformers and onnxruntime open."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genre_lightning.distributed.ranks import tell
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.runs import Run
from genre_lightning.export.adapter import plain_attention, write_adapter
from genre_lightning.export.card import Exported, Form, model_card
from genre_lightning.export.classifier import difference, why_not_plain, write_classifier
from genre_lightning.export.folder import whole_folder
from genre_lightning.export.inputs import calibrated_fusion, check_carried, described_inputs, made_up_inputs
from genre_lightning.export.onnx_model import OnnxCheck, check_onnx_installed, write_onnx
from genre_lightning.export.sentence import write_sentence_folder
from genre_lightning.export.source import PlainTagger, Source, plain_tokenizer
from genre_lightning.files import damaged, read_parquet, write_json, write_text
from genre_lightning.inference.model_scorer import restore_best
from genre_lightning.inference.run_settings import TemplateReader, checked_settings, configured_model
from genre_lightning.models.adapter import merge_adapter
from genre_lightning.models.backbones import QuietLoading
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.models.lora import merge_adapters
from genre_lightning.models.quantization import known_warnings
from genre_lightning.progress import answer
from genre_lightning.runs import RunDirectory, open_run

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_COMPARED_TEXTS = 16
_MARGIN = 16 << 20
"""Bytes of tokenizer and tables beside the weights."""


def export_run(options: argparse.Namespace, target: Path) -> None:
    """Write the best checkpoint of a run to a new directory.

    Args:
        options: Of the command.
        target: The directory.
    """
    run = open_run(options.run)
    if options.onnx:
        check_onnx_installed()
    with known_warnings(), QuietLoading():
        source = _open(run, options)
        form = _choose_form(source, options)
        narrow = isinstance(source.model, FrozenDecoder) and form != "onnx"
        dtype = DTYPES[options.dtype or ("float16" if narrow else "float32")]
        with whole_folder(target, _bytes(source, form, dtype, onnx=options.onnx)) as draft:
            exported = _write(source, draft, Exported(form, target.name), dtype=dtype, onnx=options.onnx)
            _write_decision(source, draft, merged=form != "adapter")
            write_text(draft / "README.md", model_card(source, exported))
    _report(run, exported)
    answer(target)


def _open(run: RunDirectory, options: argparse.Namespace) -> Source:
    """Return the run's model with its best checkpoint's weights: the films are not needed."""
    Run(run.path).require_finished()
    if not run.best.exists():
        raise CheckpointError(
            f"{run.path} has no checkpoint of a model that can be exported: baselines and ensembles have none, give "
            "the directory of a 'fit'"
        )
    settings = checked_settings(run)
    reader, model = TemplateReader(settings), configured_model(settings)
    if not model.trains:
        raise ConfigError(
            f"{run.path} is a {type(model).__name__}, which trains nothing: there are no weights of its own to export"
        )
    check_carried(run, reader.features, options)
    model.precision = str((settings.get("trainer") or {}).get("precision", "32-true"))
    metadata, decision, tokenizer = restore_best(run, model)
    tokenizer = plain_tokenizer(tokenizer, metadata.max_tokens)
    return Source(run, model, decision, metadata, tokenizer, reader.template.template, reader.features)


def _choose_form(source: Source, options: argparse.Namespace) -> Form:
    """Return the form that was asked for, or the best that gives the run's probabilities.

    Raises:
        ConfigError: The run cannot have the form, with one that it can.
    """
    place, lora, decoder = source.run.path, source.model.adapters, isinstance(source.model, FrozenDecoder)
    form: str = options.form
    if (options.merge or form == "adapter") and not lora:
        raise ConfigError(f"{place} is not a LoRA run, so it has no adapter: leave out --merge and --form adapter")
    if decoder and not source.model.causal:
        raise ConfigError(
            f"{place} has model.attention full, and other programs run its decoder with causal attention: use it by "
            "'genre-lightning tag' and 'genre-lightning predict'"
        )
    if options.merge and form == "adapter":
        raise ConfigError("--merge and --form adapter exclude each other: leave one of them out")
    if getattr(source.model.options, "unfreeze", None) is not None and not options.merge:
        raise ConfigError(f"{place} has trained whole layers too (model.unfreeze), which no adapter holds: add --merge")
    quantization = source.base.quantization or "none"
    if lora and not source.model.lora and options.merge and quantization != "none":
        raise ConfigError(f"adapters other than LoRA do not merge with weights in {quantization}: leave out --merge")
    if form == "auto" and lora and not options.merge:
        form = "adapter"
    if form == "adapter" and options.onnx:
        raise ConfigError("--onnx writes whole models, and an adapter is none: add --merge")
    if options.dtype and (form == "adapter" or not decoder or source.features):
        raise ConfigError("--dtype is for the merged weights of a decoder, others are kept as trained: leave it out")
    if form == "adapter":
        return "adapter"
    if source.features:
        return "onnx"
    config: Any = source.model.backbone_config  # every model that trains has one
    reason = why_not_plain(config, source.pooled_by, len(source.decision.genres))
    if form == "transformers" and reason:
        raise ConfigError(f"{reason}: choose --form sentence-transformers, or --onnx beside it")
    if form == "auto" and reason:
        tell(f"{reason}: written as a sentence-transformers folder, which can; --onnx adds a model for onnxruntime")
    return "sentence-transformers" if reason or form == "sentence-transformers" else "transformers"


def _bytes(source: Source, form: Form, dtype: torch.dtype, *, onnx: bool) -> int:
    """Return what will be written, roughly: quantised weights count as many as they stand for."""
    if form == "adapter":
        kept = source.model.trained_names()
        return 4 * sum(p.numel() for name, p in source.model.named_parameters() if name in kept) + _MARGIN
    packed = {"nf4": 2}.get(source.base.quantization or "none", 1)
    numbers = sum(p.numel() * (packed if p.dtype == torch.uint8 else 1) for p in source.model.parameters())
    return numbers * ((0 if form == "onnx" else dtype.itemsize) + (4 if onnx else 0)) + _MARGIN


def _write(source: Source, folder: Path, exported: Exported, *, dtype: torch.dtype, onnx: bool) -> Exported:
    """Write weights and tokenizer; returns `exported` with what was measured on them."""
    if exported.form == "adapter":
        write_adapter(source, folder)
        return exported
    texts = _texts(source.run)
    expected = source.probabilities(texts) if exported.form == "transformers" else None
    backbone: Any = source.model.backbone
    if source.model.adapters:
        backbone = (merge_adapters if source.model.lora else merge_adapter)(backbone, dtype)
        plain_attention(backbone.config)
    if exported.form == "transformers":
        write_classifier(source, backbone, folder)
        exported = replace(exported, difference=difference(source, folder, texts, expected))
    elif exported.form == "sentence-transformers":
        write_sentence_folder(source, backbone, folder)
    else:
        source.tokenizer.save_pretrained(folder)
        described = described_inputs(source.metadata.inputs, source.features, source.template, source.max_tokens)
        write_json(folder / "onnx" / "inputs.json", described)
    if onnx:
        inputs, fused = source.metadata.inputs, source.model.head
        batches = [
            {**source.batch(texts[:films]), **made_up_inputs(inputs, len(texts[:films]), seed=films)}
            for films in (1, 3, len(texts))
        ]
        head = calibrated_fusion(fused, source.decision) if isinstance(fused, FusionHead) else source.head
        tagger = PlainTagger(backbone, source.pooled_by, head)
        exported = replace(exported, onnx=write_onnx(tagger, folder / "onnx", batches))
    return exported


def _texts(run: RunDirectory) -> list[str]:
    """Return a few texts of the run's own films to compare on.

    Raises:
        CheckpointError: Neither test nor validation has any, or their file is damaged.
    """
    files = [run.evaluation(split).predictions for split in ("test", "validation")]
    file = next((file for file in files if file.is_file()), files[0])
    column = read_parquet(file, ["text"], run.again)["text"]
    if not len(column):
        raise damaged(file, "it has no films", f"delete it, then {run.again}")
    return [str(text) for text in column[:_COMPARED_TEXTS].to_pylist()]


def _write_decision(source: Source, folder: Path, *, merged: bool) -> None:
    """Write the thresholds, which hold for the probabilities that the written model gives, and its source."""
    decision = source.decision
    fitted = decision.to_dict()
    folded = replace(decision, temperature=1.0, platt=None).to_dict()
    calibration = {name: fitted[name] for name in ("calibration", "temperature", "platt")}
    write_json(folder / "decision.json", {**folded, "folded_into_the_head": calibration})
    base = source.base.to_json()
    if merged and Path(base["name"]).is_dir():
        base["name"] = Path(base["name"]).name  # the rest of the path means nothing elsewhere
    write_json(
        folder / "genre_lightning.json",
        {
            "genres": list(source.metadata.genres),
            "max_tokens": source.max_tokens,
            "lora": source.metadata.lora,
            **({"adapter": source.metadata.adapter} if source.metadata.adapter else {}),
            "base": base,
            "text": source.template,
            "merged": merged,
            "pooled_by": source.pooled_by,
            "head": "probabilities = sigmoid(weight @ state + bias), calibrated, in float32",
        },
    )


def _report(run: RunDirectory, exported: Exported) -> None:
    names = {
        "transformers": "a classifier for transformers",
        "sentence-transformers": "a folder for sentence-transformers",
        "adapter": "a peft adapter with its head",
        "onnx": "an ONNX model with named inputs",
    }
    tell(f"exported {run.path} as {names[exported.form]}")
    if exported.difference is not None:
        tell(f"opened by transformers: probabilities within {exported.difference:.1e} of the run's")
    if exported.onnx:
        tell(_onnx_line(exported.onnx))


def _onnx_line(check: OnnxCheck) -> str:
    return (
        f"opened by onnxruntime: logits within {check.difference:.1e} of torch's; one text of {check.tokens} tokens "
        f"takes {check.onnx_ms:.1f} ms, by torch {check.torch_ms:.1f} ms (threads: {check.threads})"
    )
