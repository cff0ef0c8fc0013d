"""`genre-lightning export`: a run in the forms that transformers, peft, sentence-transformers and onnxruntime open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.compat import import_lightning
from genre_lightning.folders import check_new_folder

FORMS = ("transformers", "sentence-transformers", "adapter")
DTYPES = ("bfloat16", "float16", "float32")


def export(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(list(arguments))
    target: Path = options.dir.expanduser().absolute()
    check_new_folder(target, "the target")
    import_lightning()
    # this loads torch, which takes seconds
    from genre_lightning.export.run import export_run

    export_run(options, target)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "export",
        "Writes a run as files that other programs open, in safetensors and JSON: weights, tokenizer, "
        "decision and a model card. The calibration is folded into the head.",
    )
    parser.add_argument("run", type=Path, help="run directory of a finished run")
    parser.add_argument("dir", type=Path, help="where to: a directory that is empty or not there yet")
    parser.add_argument(
        "--form",
        choices=("auto", *FORMS),
        default="auto",
        help="transformers: a classifier for AutoModelForSequenceClassification and pipeline; sentence-transformers: "
        "a folder for SentenceTransformer, for heads that no such classifier has; adapter: a peft adapter with its "
        "head, of LoRA runs. auto: the adapter of a LoRA run, else the first of the others that gives equal "
        "probabilities (default: auto)",
    )
    parser.add_argument("--merge", action="store_true", help="of a LoRA run: the whole model, adapter merged into it")
    parser.add_argument("--dtype", choices=DTYPES, help="of a merged decoder's weights (default: float16)")
    parser.add_argument("--onnx", action="store_true", help="onnx/model.onnx too, in float32, for onnxruntime")
    return parser
