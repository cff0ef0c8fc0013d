"""The report is one safe, self-contained page; what it says is what the run's files say."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_predictions import make_predictions
from quick_figures import real_figures

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.decisions import fit_decision, write_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.predictions import Predictions, read_stored_predictions
from genre_lightning.evaluation.report import confident_mistakes, write_report
from genre_lightning.evaluation.setting_tables import audit_tables, setting_tables

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects tags with their attributes, and the visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def evil_predictions(seed):
    made = make_predictions(seed, films=120, noise=2)
    genres = (f"{EVIL}&", *made.genres[1:])
    titles, texts = [f"{EVIL} {i}" for i in range(120)], [f'"><img src=x onerror=alert({i})>' for i in range(120)]
    languages = [EVIL] * 70 + ["fr"] * 50
    return Predictions(genres, made.ids, titles, texts, made.labels, made.logits, languages=languages)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "a run"
    decision = fit_decision(evil_predictions(1), "validation")
    (directory / "evaluation").mkdir(parents=True)
    (directory / "curves.csv").write_text("epoch,train/loss,val/loss\n0,0.5,0.6\n")
    with real_figures():
        write_evaluation(
            directory / "evaluation" / "test",
            evil_predictions(2),
            decision,
            split="test",
            resamples=50,
            curves_csv=directory / "curves.csv",
        )
    write_decision(decision, directory / "decision.json")
    (directory / "config.yaml").write_text(f"title: '{EVIL}'\n")
    audit = {"rows": 21245, "kept": 3, "splits": {"train": {"films": 5, "genres": {EVIL: 4}}}}
    (directory / "data_audit.json").write_text(json.dumps(audit))
    return directory


def test_report_escapes_every_text_and_reaches_for_nothing(run):
    path = write_report(run)
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert path == run / "report.html"
    assert EVIL in page.text
    assert EVIL not in content
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert "http:" not in content
    assert "https:" not in content


def test_tables_and_plots_scroll_on_a_narrow_screen_and_plots_keep_a_light_panel(run):
    content = write_report(run).read_text(encoding="utf-8")
    assert content.count("<table") == content.count('<div class="table"><table')
    assert content.count("<img") == content.count("<figure><img")
    rules = dict(re.findall(r"^([.\w ]+) \{([^}]*)\}", content, re.MULTILINE))
    assert "overflow-x: auto" in rules[".table"]
    assert "overflow-x: auto" in rules["figure"]
    assert "background: #fff" in rules["figure"]
    narrow = content[content.index("@media (max-width: 36rem)") :]
    assert re.search(r"figure img \{[^}]*max-width: none; width: 42rem", narrow)


def test_report_says_what_the_files_say(run):
    page = Page(write_report(run).read_text(encoding="utf-8"))
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    for policy in metrics["policies"].values():
        assert f"{policy['f1_macro']:.3f}" in page.text
    low, high = metrics["intervals"]["policies"]["per_genre"]["f1_micro"]
    assert f"{low:.3f}–{high:.3f}" in page.text
    assert "21,245" in page.text
    for row in metrics["languages"]:
        interval = f"{row['f1_low']:.3f}–{row['f1_high']:.3f}"
        shown = f"{row['language']} {row['films']} {row['f1_micro']:.3f} {interval} {row['map_macro']:.3f}"
        assert "".join(shown.split()) in "".join(page.text.split())  # cells stand side by side
    assert "viewport" in [attributes.get("name") for tag, attributes in page.tags if tag == "meta"]
    assert sum(tag == "article" for tag, _ in page.tags) == 20


def test_mistakes_are_the_most_confident_and_films_appear_once(run):
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet")
    rows = confident_mistakes(stored, 20)
    assert len({row["id"] for row in rows}) == 20
    assert [row["missed"] for row in rows] == [False] * 10 + [True] * 10
    given = stored.decided & ~stored.predictions.labels
    assert rows[0]["wrong"] == pytest.approx(stored.probabilities[given].max())
    for row in rows:
        assert (row["genre"] in row["true"]) is row["missed"]
        assert (row["genre"] in row["decided"]) is not row["missed"]
    few = confident_mistakes(stored, 4)
    assert len(few) == 4


def test_a_perfect_model_has_no_mistakes():
    made = make_predictions(0, films=10)
    stored_like = type("Stored", (), {})()
    stored_like.predictions, stored_like.decided = made, made.labels
    stored_like.probabilities = made.labels.astype(np.float32)
    assert confident_mistakes(stored_like) == []


def test_audit_tables_lay_out_rows_and_splits():
    genres = {"train": {"A": 4000, "B": 0}, "test": {"A": 1, "B": 2}}
    splits = {name: {"films": 5, "ids_sha256": "0123456789abcdef", "genres": counts} for name, counts in genres.items()}
    rows, films = audit_tables({"rows": 1000, "kept": 900, "file": "m.csv", "splits": splits})
    assert rows["rows"] == [["rows", "1,000", "100.00%"], ["kept", "900", "90.00%"]]
    assert films["columns"] == ["train", "test"]
    assert films["rows"][1:3] == [["A", "4,000", "1"], ["B", "0", "2"]]


def test_audit_tables_name_the_paper_protocol_once():
    splits = {name: {"films": 5, "genres": {}} for name in ("train", "validation", "test")}
    (films,) = audit_tables({"validation_is_test": True, "splits": splits})
    assert films["columns"] == ["train", "validation = test"]


def test_setting_tables_show_what_was_set():
    config = """
run_dir: somewhere
seed: 3
model: {class_path: a.b.Encoder, init_args: {backbone: small, lr: null, lora: {rank: 4}}}
trainer: {max_epochs: 2, precision: 32-true, logger: null, benchmark: false}
"""
    model, training, rest = setting_tables(config)
    assert model == {
        "title": "Model",
        "rows": [("class", "Encoder"), ("backbone", "small"), ("lr", "not set"), ("lora.rank", "4")],
    }
    assert dict(training["rows"]) == {"max_epochs": "2", "precision": "32-true"}
    assert rest["rows"] == [("seed", "3")]
    assert setting_tables("- no mapping") == []
    assert setting_tables("a: [") == []


def test_validation_alone_is_reported_as_optimistic(tmp_path):
    made = make_predictions(0, films=60)
    decision = fit_decision(made, "validation")
    write_evaluation(
        tmp_path / "evaluation" / "validation", made, decision, split="validation", resamples=0, figures=False
    )
    assert "optimistic" in write_report(tmp_path).read_text(encoding="utf-8")


def test_no_run_and_unfinished_runs_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no directory"):
        write_report(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is not a run directory"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 1\n")
    with pytest.raises(CheckpointError, match="no finished evaluation"):
        write_report(tmp_path)
