"""`report` as its user runs it: the page again, the paper's tables, or one line that says why not."""

import json

import pytest
from made_runs import everything_under, make_run, refused

from genre_lightning.__main__ import main


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "a run")


def test_the_page_is_made_again(run, capfd):
    assert main(["report", str(run)]) == 0
    assert capfd.readouterr().out.strip() == str(run / "report.html")
    first = (run / "report.html").read_text()
    assert "Encoder" in first
    assert "22,700,000" in first
    trivial = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["trivial_baseline"]["f1_micro"]
    assert f"Trivial baseline {trivial:.3f}: " in first
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == first


def test_the_papers_tables_stand_beside_the_published_figures(run, capfd):
    assert main(["report", str(run), "--paper"]) == 0
    page = (run / "paper.html").read_text()
    assert "0.5687" in page
    assert "optimistic" in page
    held_out = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["policies"]["global"]
    assert f"{held_out['f1_micro']:.4f}" in page
    assert "no held-out metric" not in page


def test_the_papers_protocol_has_no_held_out_figure(run, capfd):
    (run / "data_audit.json").write_text('{"rows": 5, "validation_is_test": true}')
    assert main(["report", str(run), "--paper"]) == 0
    page = (run / "paper.html").read_text()
    assert "no held-out metric" in page
    assert "held out here" not in page
    assert main(["report", str(run)]) == 0
    assert "metrics are optimistic" in (run / "report.html").read_text()


def test_bad_directories_are_refused(tmp_path, capfd):
    refused(capfd, ["report", tmp_path / "none"], "there is no directory", "--run_dir")
    refused(capfd, ["report", tmp_path], "is not a run directory")
    refused(capfd, ["report"], "run", "--help")
    half = make_run(tmp_path / "half", status="training")
    before = everything_under(half)
    refused(capfd, ["report", half], "has not finished", "training")
    refused(capfd, ["report", half, "--paper"], "has not finished")
    assert everything_under(half) == before


def test_a_run_without_evaluation_is_refused(tmp_path, capfd):
    bare = make_run(tmp_path / "bare", splits=())
    refused(capfd, ["report", bare], "no finished evaluation")
    refused(capfd, ["report", bare, "--paper"], "no finished evaluation on test")


def test_undefined_figures_are_null_and_said(tmp_path, capfd):
    from made_runs import GENRES, made_predictions

    from genre_lightning.evaluation.decisions import fit_decision
    from genre_lightning.evaluation.evaluate import write_evaluation

    run = make_run(tmp_path / "rare")
    made = made_predictions(80, 1.0)
    made.labels[:, GENRES.index("War")] = False
    decision = fit_decision(made, "validation", resamples=5)
    write_evaluation(
        run / "evaluation" / "test", made, decision, split="test", figures=False, resamples=20, metadata={}
    )
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["undefined"] == ["War"]
    assert metrics["decision"]["without_positives"] == ["War"]
    row = next(
        r for r in (run / "evaluation" / "test" / "per_genre.csv").read_text().splitlines() if r.startswith("War")
    )
    assert ",,," in row
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "No film here has, or every film has: War" in page
    assert "Decided by the global threshold, having no films to fit their own: War" in page
