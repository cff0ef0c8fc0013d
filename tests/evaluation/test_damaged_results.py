"""Results of a run whose JSON files have been changed: refused in one line, or shown without what is missing."""

import copy
import json
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from made_runs import make_run

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation import report
from genre_lightning.evaluation.against_parent import comparison_path, print_against_parent, read_against_parent
from genre_lightning.evaluation.console import print_headline, print_headlines
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.sections import keep_section
from genre_lightning.files import write_json

MISSING = object()
VALUES = (None, "x", -1, [], [None], {"x": None}, MISSING)
MADE_BY = {"version": "0.2.0", "git_commit": None, "date": "2026-11-30", "host": "node", "device": "cpu"}
TRAINING = {
    **MADE_BY, "parent_run": "runs/a", "parent_checkpoint_sha256": "0" * 64, "parent_generation": 1, "devices": 1,
    "learning_rate": 1e-4, "head_learning_rate": 1e-3, "best_epoch": 1, "best_step": 5, "overridden": None,
    "chosen": "x",
}  # fmt: skip
OTHER_FILM_FILE = {
    "file": "new.csv", "ids_sha256": "0" * 64, "path": "/data/new.csv", "excluded_trained": 1,
    "excluded_by_id_alone": 1,
    "from_validation": 1, "from_test": 1, "unknown_genres": {"Noir": 2}, "films_without_known_genres": 1,
    "unknown_labels": 3,
}  # fmt: skip
LANGUAGES = {
    "language": "en", "languages": 1, "films": 80, "f1_micro": 0.5, "f1_low": 0.4, "f1_high": 0.6, "map_macro": None
}  # fmt: skip
CHECK = {"name": "Drama", "reference": 0.1, "new": 0.2, "effect": 0.1, "p": 0.01, "drifted": True, "interval": [0, 1]}
MONITOR = {
    "file": "new.csv", "films": 9, "labelled": 9, "reference_films": 80, "left_out": 0, "inputs": [CHECK],
    "genres": [CHECK], "calibration": [CHECK], "auroc": [0.7, 0.8], "auroc_interval": [-0.1, 0.1],
    "new_genres": {"Noir": 2}, "advice": "none", "why": "nothing",
}  # fmt: skip
DOUBT = {
    "film": "A", "id": "1", "split": "test", "genre": "Drama", "kind": "missing", "score": 0.9, "labels": ["War"],
    "predicted": ["Drama"],
}  # fmt: skip
ROW = {"name": "micro-F1", "old": 0.5, "new": 0.6, "p": 0.01, "worse": False}
AGAINST = {"parent": "/runs/a", "n": 80, "overall": [ROW], "genres": [{**ROW, "name": "Drama", "support": 9}]}
WORD = {"word": "ghost", "films": 3, "log_odds": 0.5}
TOP_WORDS = {
    "split": "test", "films": 80, "fewest_films_of_a_word": 3, "baseline": "[PAD]",
    "genres": [{"genre": "Drama", "films": 9, "words": [WORD]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with everything that a page can show."""
    found = Run(make_run(tmp_path_factory.mktemp("runs") / "run"))
    path = found.files.evaluation("test").metrics
    added = {"made_by": MADE_BY, "training": TRAINING, "films": OTHER_FILM_FILE, "languages": [LANGUAGES]}
    write_json(path, {**json.loads(path.read_text()), **added})
    keep_section(found, "monitor", MONITOR)
    keep_section(found, "doubts", {"count": 1, "kind": "missing", "rows": [DOUBT]})
    write_json(comparison_path(found.files), AGAINST)
    write_json(found.files.evaluation("test").top_words, TOP_WORDS)
    return found


@pytest.fixture
def show(run, monkeypatch):
    """Lay out all that the page and the terminal show; the films' predictions are read once."""
    predictions = run.predictions("test")
    monkeypatch.setattr(Run, "predictions", lambda *_: predictions)
    monkeypatch.setattr(report, "confident_mistakes", lambda stored: [])
    environment = Environment(
        loader=FileSystemLoader(Path(report.__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"figure": report._figure, "span": report._span, "isolated": report._isolated}
    page = environment.get_template("report.html.j2")

    def shown():
        text = page.render(report.report_values(Run(run.directory), "test"))
        print_headlines(run.metrics("test"), sys.stdout)
        print_headline(run.metrics("test"), sys.stdout)
        print_against_parent(read_against_parent(run.files), sys.stdout)
        return text

    return shown


def places(value, place=()):
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in parts:
        yield from places(inner, (*place, key))


def changed(value, place, new):
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if new is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return value


@pytest.mark.parametrize(
    "name",
    [
        "test/metrics.json",
        "against_parent.json",
        "monitor.json",
        "doubts.json",
        "test/top_words.json",
    ],
)
def test_any_changed_value_is_refused_or_shown(run, show, name):
    path = run.directory / "evaluation" / name
    original = path.read_bytes()
    content = json.loads(original)
    refused = 0
    try:
        for place in list(places(content))[1:]:
            for new in VALUES:
                path.write_text(json.dumps(changed(content, place, new)))
                try:
                    show()
                except CheckpointError as error:
                    refused += f"{path.name} is damaged (" in str(error)
    finally:
        path.write_bytes(original)
    assert refused > 20


@pytest.mark.parametrize("part", ["intervals", "bootstrap"])
def test_a_part_that_is_null_is_shown_without(run, show, part):
    path = run.files.evaluation("test").metrics
    original = path.read_bytes()
    try:
        path.write_text(json.dumps({**json.loads(original), part: None}))
        null = show()
        path.write_text(json.dumps({n: v for n, v in json.loads(original).items() if n != part}))
        assert show() == null
    finally:
        path.write_bytes(original)
