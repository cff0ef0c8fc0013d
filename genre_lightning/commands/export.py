"""`genre-lightning export`: a LoRA run as files that plain peft, transformers and safetensors open."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genre_lightning.commands.build import tell
from genre_lightning.commands.evaluation import restore_weights
from genre_lightning.commands.fit import with_run_config
from genre_lightning.commands.parser import parse
from genre_lightning.distributed.checkpoint_io import read_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.files import write_json
from genre_lightning.models.backbones import QuietLoading
from genre_lightning.models.base import CHECKPOINT_KEY, GenreClassifier, Labelling
from genre_lightning.models.quantization import known_warnings
from genre_lightning.runs import RunDirectory

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def export(arguments: Sequence[str]) -> int:
    """Writes the best checkpoint of a run to a new directory."""
    options = _parser().parse_args(list(arguments))
    target: Path = options.dir.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not empty: name another directory")
    run = RunDirectory(options.run)
    run.require_run()
    if run.status not in ("evaluating", "finished"):
        raise CheckpointError(
            f"{run.path} has not finished training: run 'genre-lightning fit --run_dir {run.path}' to its end first"
        )
    config, parser = parse("predict", with_run_config(["--run_dir", str(run.path)]))
    instances = parser.parser.instantiate(config)
    model: GenreClassifier = instances.model
    if not (model.adapters and model.trains):
        raise ConfigError(f"{run.path} is no LoRA run, so there is no adapter to export: choose one with model.lora")
    model.precision = str(config.trainer.precision)
    facts = _restore(model, run, config.seed)
    facts["text"] = instances.data.source.template.template
    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with known_warnings(), QuietLoading():
            _write(model, facts, run, draft, merge=options.merge, dtype=DTYPES[options.dtype])
        if target.exists():
            target.rmdir()
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    tell(f"exported {run.path} as {'a merged model' if options.merge else 'a peft adapter'}")
    print(target, file=sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genre-lightning export",
        description="Writes the adapter of a LoRA run in peft's form, with head, tokenizer, genres and decision beside "
        "it; everything in safetensors and JSON.",
    )
    parser.add_argument("run", type=Path, help="run directory of a finished LoRA run")
    parser.add_argument("dir", type=Path, help="where to: a directory that is empty or not there yet")
    parser.add_argument("--merge", action="store_true", help="write the whole model with the adapter merged into it")
    parser.add_argument(
        "--dtype", choices=sorted(DTYPES), default="float16", help="of the merged weights (default: float16)"
    )
    return parser


def _restore(model: GenreClassifier, run: RunDirectory, seed: int) -> dict[str, Any]:
    """Builds the model from its checkpoint alone: the films are not needed."""
    facts = read_checkpoint(run.best)[CHECKPOINT_KEY]
    model.bind(
        Labelling(
            genres=tuple(facts["genres"]),
            pos_weight=np.array(facts["pos_weight"], dtype=np.float32),
            vocab_size=facts["vocab_size"],
            pad_token_id=facts["pad_token_id"],
            max_tokens=facts["max_tokens"],
            seed=seed,
        )
    )
    return restore_weights(model, run.best)


def _write(
    model: GenreClassifier, facts: dict[str, Any], run: RunDirectory, folder: Path, *, merge: bool, dtype: torch.dtype
) -> None:
    from safetensors.torch import save_file

    from genre_lightning.models.lora import merge_adapters

    backbone: Any = model.backbone
    head = {name.rsplit(".", 1)[-1]: value.detach().cpu().contiguous() for name, value in model.head.named_parameters()}
    save_file(head, folder / "head.safetensors", metadata={"format": "pt"})
    shutil.copytree(run.tokenizer, folder, dirs_exist_ok=True)
    base = facts["base"] if "base" in facts else facts["backbone"]
    if merge:
        merged: Any = merge_adapters(backbone, dtype)
        _plain_attention(merged.config)
        merged.save_pretrained(folder)
    else:
        # nobody else can make random weights
        name = _write_random_base(model, folder / "base") if base.get("random") else base["name"]
        backbone.peft_config["default"].base_model_name_or_path = name
        backbone.peft_config["default"].revision = base["revision"]
        backbone.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
    kept = ("genres", "max_tokens", "text", "base", "backbone", "lora", "decision")
    write_json(
        folder / "genre_lightning.json",
        {
            **{key: facts[key] for key in kept if key in facts},
            "merged": merge,
            "state": getattr(model, "pooling", "last token"),
            "head": "head.safetensors: logits = weight @ state + bias, in float32",
        },
    )
    # safetensors writes files that only their owner can read
    mode = (folder / "genre_lightning.json").stat().st_mode
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


def _write_random_base(model: GenreClassifier, folder: Path) -> str:
    """Writes the random base of a model, not quantised; returns the name by which the adapter calls it."""
    from transformers import AutoModel

    from genre_lightning.models.decoder import FrozenDecoder
    from genre_lightning.models.quantization import WeightFormat, random_decoder

    assert isinstance(model, FrozenDecoder)
    assert model.backbone_config is not None
    assert model.labelling is not None
    plain = WeightFormat("none", model.weight_format().compute_dtype)
    base: Any = random_decoder(AutoModel, model.backbone_config, plain, model.labelling.seed, torch.device("cpu"))
    _plain_attention(base.config)
    base.to(plain.compute_dtype).save_pretrained(folder)
    return folder.name


def _plain_attention(config: Any) -> None:
    """Other programs know transformers' own attention only."""
    config._attn_implementation = "sdpa"
    config.use_cache = True
