"""Films encoded for an ONNX model by what onnx/inputs.json says alone, as another program would do it."""

import ast
import csv
import json
import math
import re
import string

import numpy as np
import pytest
from made_runs import without_page
from scipy.special import expit
from small_run import SMALL
from transformers import AutoTokenizer

from genre_lightning import Tagger
from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed import sharded
from genre_lightning.export.inputs import described_inputs
from genre_lightning.inference.run_settings import TemplateReader
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.runs import RunDirectory

FEATURES = [
    {"column": "keywords", "kind": "tags", "min_films": 1},
    {"column": "people", "kind": "tags", "min_films": 1, "separator": "/"},
    {"column": "original_language", "kind": "category", "min_films": 1},
    {"column": "runtime", "kind": "number", "zero_is_missing": True},
    {"column": "cost", "kind": "number", "zero_is_missing": True, "log": True},
    {"column": "change", "kind": "number", "log": True},
    {"column": "release_date", "kind": "date"},
    {"column": "v", "kind": "vector"},
    {"column": "tagline", "kind": "text", "marker": "Tagline", "max_tokens": 8},
]
FILM = {
    "overview": "A man walks.", "keywords": ["word 1", "new", "word 2"], "people": "A, B/C", "cost": "1,000,000",
    "original_language": "fr", "runtime": 90, "change": -3, "release_date": "1995-10-30", "v": [0.25, 1],
}  # fmt: skip
FILMS = [
    FILM,
    {"overview": "A man walks."},
    {**FILM, "runtime": 0, "cost": 0, "change": 0},
    {**FILM, "runtime": "0", "cost": "0.0", "change": "0"},
    {**FILM, "keywords": "word 1|a, b", "release_date": "1995-10", "runtime": "90.5", "v": "0.5 2"},
    {**FILM, "keywords": "word 1, word 3", "release_date": "1995", "runtime": "nan", "people": "A, B"},
    {**FILM, "keywords": "[{'id': 1, 'name': 'word 2'}, {'id': 2, 'name': 'word 4'}]", "release_date": 1994.5},
    {**FILM, "keywords": '["word 2", "n/a", "word 2"]', "people": [], "release_date": "1995-10-30T20:15:00"},
    {**FILM, "keywords": "", "people": None, "original_language": "xx", "release_date": "soon", "runtime": 1e9},
    {**FILM, "keywords": "none", "original_language": "N/A", "runtime": "unknown", "cost": -5, "v": None},
    {**FILM, "overview": "A  man\nwalks.", "tagline": " The only way is home. " * 4},
]


def is_missing(described, cell):
    if not isinstance(cell, str):
        return cell is None
    bare = cell.casefold().strip(string.punctuation + string.whitespace)
    return not bare or bare in described["missing"]["names"]


def names_in(described, one, cell):
    """The names in a cell of tags or of a category."""
    if isinstance(cell, str):
        marks = one.get("separators", [])
        mark = next((mark for mark in marks if mark in cell), None)
        cell = ast.literal_eval(cell) if cell.startswith("[") else cell.split(mark) if mark else [cell]
    names = [entry["name"] if isinstance(entry, dict) else entry for entry in cell]
    return list(dict.fromkeys(name.strip() for name in names if not is_missing(described, name)))


def numbers_in(one, cell):
    """The numbers in a cell; None for a missing one."""
    if one["kind"] == "vector":
        return [float(x) for x in (re.split(r"[ ,]+", cell) if isinstance(cell, str) else cell)]
    if one["kind"] == "date":
        if isinstance(cell, float):
            return [cell]
        found = re.match(r"(\d{4})(?:-(\d+))?(?:-(\d+))?", cell)
        year, month, day = (int(part or 1) for part in found.groups()) if found else (0, 0, 0)
        return [year + (month - 1) / 12 + (day - 1) / 365] if found else None
    x = float(cell.replace(",", "") if isinstance(cell, str) else cell)
    return None if math.isnan(x) or (x == 0 and one["zero_is_missing"]) else [x]


def encoded(described, film):
    """The inputs of a film, by name."""
    made = {}
    for one in described["inputs"]:
        cell = film.get(one["column"])
        cell = None if is_missing(described, cell) else cell
        if one["dtype"] == "int64":
            names = names_in(described, one, cell) if cell is not None else []
            numbers = [one["values"].get(name, one["unknown"]) for name in names] or [one["none"]]
            made[one["name"]] = np.array([numbers[: one["shape"][1]] if one["shape"][1] == 1 else numbers])
            continue
        row = np.zeros((1, one["shape"][1]), dtype=np.float32)
        x = None if cell is None else numbers_in(one, cell)
        if x is not None:
            if one["log"]:
                x = np.sign(x) * np.log1p(np.abs(x))
            standard = (np.array(x) - one["mean"]) / one["std"]
            row[0] = [*np.clip(standard, -one["largest"], one["largest"]), 1]
        made[one["name"]] = row
    return made


def text_of(described, film, tokenizer):
    """The text of a film, its lines cut."""

    def tokens(text):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [end for _, end in found]

    first = " ".join(described["text"]["template"].replace("{overview}", film["overview"]).split())
    left, lines = described["text"]["max_tokens"] - tokenizer.num_special_tokens_to_add(), []
    for line in described["lines"]:
        if film.get(line["column"]):
            text = line["begins"] + " ".join(film[line["column"]].split())
            ends = tokens(text)[: line["max_tokens"]]
            lines.append(text[: ends[-1]])
            left -= len(ends)
    ends = tokens(first)[:left]
    return "\n".join([first[: ends[-1]], *lines])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an input of each kind."""
    place = tmp_path_factory.mktemp("runs")
    sample = write_sample(place / "sample.csv", films=160, seed=3)
    with sample.open(newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    with (place / "more.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "keywords", "people", "cost", "change", "v"])
        for n, film in enumerate(ids):
            cost, change = 10 ** (n % 7) * (n % 4 > 0), n % 9 - 4
            writer.writerow([film, f"word {n % 5}|a, b", f"A, B/C{n % 3}", cost, change, f"{n % 3} 1.{n % 7}"])
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        patch.setattr("genre_lightning.evaluation.report.write_report", lambda *a, **k: None)
        words = [f"--data.csv={sample}", f"--data.join=[{{file: {place / 'more.csv'}}}]", *SMALL]
        features = f"--data.features={json.dumps(FEATURES)}"
        assert main(["fit", *words, features, f"--run_dir={place / 'run'}", "--trainer.max_epochs=1"]) == 0
    return place / "run"


def test_films_are_encoded_as_the_run_encodes_them(run):
    directory = RunDirectory(run)
    metadata = CheckpointMetadata.of(sharded.open_checkpoint(directory.best), directory.best)
    reader = TemplateReader(directory.settings())
    described = json.loads(
        json.dumps(described_inputs(metadata.inputs, reader.features, reader.template.template, metadata.max_tokens))
    )
    tagger = Tagger(run, device="cpu", precision="32-true")
    for film in FILMS:
        cells = [tagger.cells(film)]
        ours = tagger.scorer.inputs(cells).batch(np.zeros(1, dtype=np.int64))
        theirs = encoded(described, film)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-6, err_msg=f"{name} of {film}")
        assert text_of(described, film, tagger.scorer.tokenizer) == tagger.scorer.texts(cells)[0]


def test_an_onnx_model_gives_the_taggers_probabilities(run, tmp_path, capsys, monkeypatch):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    import onnxruntime

    assert main(["export", str(run), str(tmp_path / "out"), "--onnx"]) == 0
    described = json.loads((tmp_path / "out" / "onnx" / "inputs.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    fixed = {one["name"]: one["shape"][1] for one in described["inputs"] if one["shape"][1] != "names"}
    assert fixed == {given.name: given.shape[1] for given in session.get_inputs() if given.name in fixed}
    tagger = Tagger(run, device="cpu", precision="32-true")
    for film in FILMS:
        tokens = tokenizer([text_of(described, film, tokenizer)], truncation=True, return_tensors="np")
        logits = session.run(None, {**tokens, **encoded(described, film)})[0][0]
        expected = tagger(film).probabilities
        assert expit(logits) == pytest.approx([expected[genre] for genre in tagger.genres], abs=1e-5), film

    # the card's own code decides by the thresholds
    monkeypatch.chdir(tmp_path)
    code = (tmp_path / "out" / "README.md").read_text().split("```python")[1].split("```")[0]
    example = code.partition("tokenizer(['")[2].partition("']")[0]
    capsys.readouterr()
    exec(compile(code, "card", "exec"), {})
    names = {name for name, _ in ast.literal_eval(capsys.readouterr().out)}
    assert names == set(tagger(example).names)
