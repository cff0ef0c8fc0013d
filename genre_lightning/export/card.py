"""README.md of an exported model: a model card in the hub's form, made of the run's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from genre_lightning import __version__
from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.escapes import markdown, markdown_code, markdown_table
from genre_lightning.evaluation.console import HEADLINES, POLICY_NAMES, THRESHOLD_FREE, figure_text, headline_lines
from genre_lightning.evaluation.decisions import POLICIES
from genre_lightning.evaluation.films import describe_films, describe_provenance
from genre_lightning.evaluation.runs import Run
from genre_lightning.export.onnx_model import OnnxCheck
from genre_lightning.export.source import Source

Form = Literal["transformers", "sentence-transformers", "adapter"]

_LIBRARIES: dict[Form, str] = {
    "transformers": "transformers",
    "sentence-transformers": "sentence-transformers",
    "adapter": "peft",
}
_WEAK = 0.4
_AUDIT = (
    ("malformed", "malformed"),
    ("duplicate_id", "duplicates"),
    ("missing_overview", "without an overview"),
    ("placeholder_overview", "with a placeholder for one"),
    ("no_genres", "without genres"),
)


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides what the run's files say.

    Attributes:
        form: of the export.
        name: of the folder.
        onnx: comparison of the ONNX model; None without one.
        difference: largest difference of a probability from the run's, where that was measured.
    """

    form: Form
    name: str
    onnx: OnnxCheck | None = None
    difference: float | None = None


def model_card(source: Source, facts: CardFacts) -> str:
    """The card: metadata, use, data, figures, each genre, limits and licence."""
    run = Run(source.run.path)
    settings = source.run.settings()
    split = "test" if run.has("test") else "validation"
    metrics = run.metrics(split)
    rows = [r for r in run.genre_rows(split) if r["policy"] == SHIPPED_POLICY]
    csv = Path(str(settings["data"]["csv"])).name
    file = markdown_code(csv)
    licence = _licence(source.base)
    sections = [
        f"# {markdown(facts.name)}: genres of films from their plot summaries",
        _about(source),
        "## How to use it\n\n" + _use(source, facts),
        "## Data\n\n" + _data(run.audit() or {}, file),
        f"## Figures on {split}\n\n"
        + markdown(" ".join([*describe_films(metrics)]))
        + "\n\n"
        + _figures(metrics, split, settings, facts),
        "## Each genre\n\n" + _genres(rows),
        "## Limits\n\n" + _limits(source, metrics, rows, split),
        "## Training\n\n" + _training(settings, metrics, source),
        "## Licence\n\n" + _licences(source, licence, file),
    ]
    return f"---\n{_metadata(source, facts, metrics, split, csv)}---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(source: Source, facts: CardFacts, metrics: Mapping[str, Any], split: str, csv: str) -> str:
    figures = metrics["policies"][SHIPPED_POLICY]
    measured = [
        ("f1", "micro-F1, a threshold for each genre", figures["f1_micro"]),
        ("f1", "macro-F1, a threshold for each genre", figures["f1_macro"]),
        ("mean_average_precision", "mAP", metrics["threshold_free"]["map_macro"]),
    ]
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="multi-label genre classification",
            dataset_type="csv",
            dataset_name=csv,
            dataset_split=split,
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in measured
        if value is not None
    ]
    data = ModelCardData(
        license="unknown",
        library_name=_LIBRARIES[facts.form],
        pipeline_tag="text-classification",
        tags=["multi-label-classification", "film-genres", "genre-lightning"],
        base_model=None if _is_local(source.base["name"]) else source.base["name"],
        model_name=facts.name,
        eval_results=results or None,
    )
    return data.to_yaml().rstrip("\n") + "\n"


def _is_local(name: str) -> bool:
    return name in ("small", "random") or Path(name).exists() or name.startswith((".", "/", "~"))


def _base_name(name: str) -> str:
    if name in ("small", "random"):
        return "random weights"
    return f"the local directory {markdown_code(Path(name).name)}" if _is_local(name) else markdown_code(name)


def _about(source: Source) -> str:
    kind = source.facts.get("backbone_config", {}).get("model_type") or "decoder"
    pooled = {
        "mean": "the mean of its tokens' states",
        "cls": "its first token's state",
        "last": "its last token's state",
    }
    lora = ", fine-tuned by LoRA" if source.facts.get("lora") else ", fine-tuned in full"
    if adapter := source.facts.get("adapter"):
        lora = f", fine-tuned by adapters ({markdown(adapter['method'].upper())})"
    if source.base["name"] == "small":
        lora = ", trained from random weights"
    return (
        f"Gives the probability of each of {len(source.decision.genres)} genres for the plot summary of a film; a film "
        f"may have several. A model of type {markdown(kind)} ({_base_name(source.base['name'])}){lora}; a linear head "
        f"reads {pooled[source.pooled_by]}. Probabilities are calibrated on validation "
        f"({_calibration(source)}), and the calibration is folded into the head: the sigmoid of a logit is the "
        "calibrated probability."
    )


def _calibration(source: Source) -> str:
    decision = source.decision
    names = {"platt": "Platt scaling for each genre", "none": "none was chosen"}
    return names.get(decision.calibration, f"temperature {decision.temperature:.3f}")


def _use(source: Source, facts: CardFacts) -> str:
    text = "A boy finds a map and sets out with his dog to look for the treasure."
    ready = {"transformers": _TRANSFORMERS, "sentence-transformers": _SENTENCE, "adapter": _ADAPTER}[facts.form]
    base = source.base["name"] if not source.base.get("random") else f"{facts.name}/base"
    parts = [
        f"The text is {markdown_code(source.template)} of a film, cut at {source.max_tokens} tokens. `decision.json` "
        "holds the thresholds, fitted on validation: one global, and one for each genre, which the code below uses.",
        _block(
            ready, folder=facts.name, text=text, base=base, tokens=source.max_tokens, state=_STATES[source.pooled_by]
        ),
    ]
    if facts.form == "adapter" and source.base.get("quantization") == "nf4":
        parts.append(
            "The adapter was trained over the base in NF4 with double quantisation; load the base with "
            "`BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)` for "
            "the probabilities of the figures below."
        )
    if facts.onnx:
        parts.append(
            f"`{_ONNX_FOLDER}/model.onnx` is the same model for onnxruntime, for any number and length of texts:"
        )
        tokenizer = f"{facts.name}/0_Transformer" if facts.form == "sentence-transformers" else facts.name
        parts.append(_block(_ONNX, folder=facts.name, text=text, tokenizer=tokenizer, tokens=source.max_tokens))
        parts.append(
            f"Its logits differ from torch's by at most {facts.onnx.difference:.1e}. One text of {facts.onnx.tokens} "
            f"tokens took {facts.onnx.onnx_ms:.1f} ms, by torch {facts.onnx.torch_ms:.1f} ms (median, "
            f"{facts.onnx.threads} thread{'s' * (facts.onnx.threads > 1)} of the CPU that it was exported on)."
        )
    return "\n\n".join(parts)


_ONNX_FOLDER = "onnx"
_STATES = {
    "mean": "(states * mask[..., None]).sum(1) / mask[..., None].sum(1)",
    "cls": "states[:, 0]",
    "last": "states[:, -1]",
}

_TRANSFORMERS = """
import json
from pathlib import Path

from transformers import pipeline

folder = ${folder}
tagger = pipeline("text-classification", model=folder, top_k=None)
thresholds = json.loads(Path(folder, "decision.json").read_text())["thresholds"]["per_genre"]
scores = tagger([${text}], truncation=True)[0]
print([(s["label"], round(s["score"], 3)) for s in scores if s["score"] >= thresholds[s["label"]]])
"""
_SENTENCE = """
import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

folder = ${folder}
tagger = SentenceTransformer(folder)
thresholds = json.loads(Path(folder, "decision.json").read_text())["thresholds"]["per_genre"]
# one for each genre, in the order of decision.json
probabilities = tagger.encode(${text})
print([(g, round(float(p), 3)) for (g, t), p in zip(thresholds.items(), probabilities) if p >= t])
"""
_ADAPTER = """
import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

folder = ${folder}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModel.from_pretrained(${base}), folder).eval()
head = load_file(f"{folder}/head.safetensors")
thresholds = json.loads(Path(folder, "decision.json").read_text())["thresholds"]["per_genre"]
inputs = tokenizer(${text}, truncation=True, max_length=${tokens}, return_tensors="pt")
mask = inputs["attention_mask"]
with torch.inference_mode():
    states = model(**inputs).last_hidden_state.float()
    pooled = ${state}
    probabilities = torch.sigmoid(pooled @ head["weight"].T + head["bias"])[0]
print([(g, round(float(p), 3)) for (g, t), p in zip(thresholds.items(), probabilities) if p >= t])
"""
_ONNX = """
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

folder = ${folder}
tokenizer = AutoTokenizer.from_pretrained(${tokenizer})
session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")
inputs = tokenizer([${text}], truncation=True, max_length=${tokens}, padding=True, return_tensors="np")
logits = session.run(None, {name: inputs[name] for name in ("input_ids", "attention_mask")})[0]
probabilities = 1 / (1 + np.exp(-logits))
"""


def _block(code: str, *, state: str = "", **values: object) -> str:
    """Fill a block of Python: names are literals in ASCII, so that none can end its string or the block."""
    literals = {name: ascii(value).replace("`", "\\x60") for name, value in values.items()}
    return f"```python{Template(code).substitute(literals, state=state)}```"


def _data(audit: Mapping[str, Any], file: str) -> str:
    if not audit.get("splits"):
        return f"{file}; its audit was not kept."
    dropped = ", ".join(f"{audit[key]:,} {name}" for key, name in _AUDIT)
    genres = sorted(audit["splits"]["train"]["genres"], key=lambda g: -audit["splits"]["train"]["genres"][g])
    shown = [s for s in ("train", "validation", "test") if s in audit["splits"]]
    rows = [
        [f"**{s}**", f"{audit['splits'][s]['films']:,}", markdown_code(audit["splits"][s]["ids_sha256"][:16])]
        for s in shown
    ]
    most = ", ".join(f"{markdown(g)} {audit['splits']['train']['genres'][g]:,}" for g in genres)
    same = (
        "\n\n**Validation and test are the same films: the figures are optimistic, as thresholds were chosen where "
        "they are judged.**"
        if audit.get("validation_is_test")
        else "\n\nNo film and no text stands in two splits."
    )
    return (
        f"{file}: {audit['rows']:,} rows, of which {audit['kept']:,} films were kept and the rest left out "
        f"({dropped}). {audit['films_used']:,} films were used.\n\n"
        + markdown_table(["split", "films", "SHA-256 of its ids"], rows)
        + same
        + f"\n\nFilms of each genre in training: {most}."
    )


def _figures(metrics: Mapping[str, Any], split: str, settings: Mapping[str, Any], facts: CardFacts) -> str:
    spans = metrics.get("intervals", {})
    rows = []
    for name, title in HEADLINES:
        cells = []
        for policy in POLICIES:
            span = spans.get("policies", {}).get(policy, {}).get(name)
            cells.append(figure_text(metrics["policies"][policy][name], span))
        rows.append([title, *cells])
    heads = [f"{metrics['n']:,} films of {split}", *(POLICY_NAMES[policy] for policy in POLICIES)]
    free = [
        [title, figure_text(metrics["threshold_free"][name], spans.get("threshold_free", {}).get(name))]
        for name, title in THRESHOLD_FREE
    ]
    precision = str(settings.get("trainer", {}).get("precision", "32-true"))
    notes = ["In brackets: 95% bootstrap intervals over films."]
    notes += [f"{line[0].upper()}{markdown(line[1:])}." for line in headline_lines(metrics)[1:]]
    if split == "validation":
        notes.append("**The decision was fitted on these very films: the figures are optimistic.**")
    if not precision.startswith("32"):
        notes.append(f"They were computed in {markdown(precision)}; the files here compute in what they are loaded in.")
    if facts.difference is not None:
        notes.append(
            f"The exported model's probabilities were compared with the run's in float32: they differ by at most "
            f"{facts.difference:.1e}."
        )
    return (
        markdown_table(heads, rows)
        + "\n\n"
        + markdown_table(["without a threshold", ""], free)
        + "\n\n"
        + " ".join(notes)
    )


def _genres(rows: Sequence[Mapping[str, str]]) -> str:
    cells = []
    for row in rows:
        f1 = figure_text(_number(row["f1"]), [_number(row["f1_low"]), _number(row["f1_high"])])
        others = (figure_text(_number(row[key])) for key in ("precision", "recall"))
        tail = (figure_text(_number(row[key])) for key in ("average_precision", "threshold"))
        cells.append([markdown(row["genre"]), markdown(row["support"]), f1, *others, *tail])
    heads = ["genre", "films", "F1", "precision", "recall", "average precision", "threshold"]
    return "At the threshold of each genre.\n\n" + markdown_table(heads, cells)


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _limits(source: Source, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, str]], split: str) -> str:
    weak = [f"{markdown(r['genre'])} ({float(r['f1']):.2f})" for r in rows if r["f1"] and float(r["f1"]) < _WEAK]
    lines = [
        "- Genres are those of the file: matters of opinion, incomplete, and never checked by hand. Others are never "
        "named.",
        "- Made for plot summaries like those of the file. On other texts, in other languages, and where genres are "
        "differently frequent, neither probabilities nor thresholds were tested.",
        f"- Of a text longer than {source.max_tokens} tokens only the beginning is read.",
    ]
    if weak:
        lines.append(f"- Weak on {split} (F1 below {_WEAK}): {', '.join(weak)}.")
    if source.decision.without_positives:
        names = ", ".join(map(markdown, source.decision.without_positives))
        lines.append(f"- Without films to fit a threshold on, and decided by the global one: {names}.")
    ece = metrics["threshold_free"]["ece"]
    if ece is not None:
        lines.append(f"- Calibration error on {split}: {ece:.3f} on average; single genres are further off.")
    lines.append("- Not tested for bias towards persons, countries or periods that a summary names.")
    return "\n".join(lines)


def _training(settings: Mapping[str, Any], metrics: Mapping[str, Any], source: Source) -> str:
    model = settings.get("model", {}).get("init_args", {})
    trainer, data = settings.get("trainer", {}), settings.get("data", {})
    rows = [
        ["model class", markdown_code(settings.get("model", {}).get("class_path", ""))],
        ["epochs", markdown(trainer.get("max_epochs"))],
        ["films a step", markdown(data.get("global_batch_size"))],
        ["loss, weight of positives", markdown(f"{model.get('loss')}, {model.get('pos_weight')}")],
        ["precision", markdown(trainer.get("precision"))],
        ["trained parameters", f"{metrics['trainable_parameters']:,}" if "trainable_parameters" in metrics else "-"],
        ["checkpoint", f"{markdown_code((source.decision.checkpoint_sha256 or '-')[:16])} (SHA-256)"],
        *([name, markdown(value)] for name, value in describe_provenance(metrics)),
        ["written by", f"genre-lightning {__version__}"],
    ]
    return markdown_table(["setting", "value"], rows)


def _licence(base: Mapping[str, Any]) -> str | None:
    """The licence that the base's own card names; None where there is no card here, or it names none."""
    from transformers.utils import cached_file

    name = base["name"]
    if name in ("small", "random"):
        return None
    try:
        found = cached_file(
            name,
            "README.md",
            revision=base.get("revision"),
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )
        licence = ModelCard.load(found).data.license if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return None  # a card that cannot be read says nothing
    return str(licence) if licence else None


def _licences(source: Source, licence: str | None, file: str) -> str:
    name = source.base["name"]
    if name in ("small", "random"):
        base = "none, the weights were random"
    else:
        base = f"{_base_name(name)}: " + (
            f"{markdown(licence)}, by its own card" if licence else "unknown; ask where it is from"
        )
    return (
        "Nobody has stated a licence of these weights; those of what they were made from bind them.\n\n"
        + markdown_table(
            ["of", "licence"],
            [
                ["base model", base],
                ["data", f"{file}: unknown; the file does not name one, its publisher may"],
            ],
        )
    )
