"""Small finished run directories, as a training command leaves them, in milliseconds."""

import numpy as np
import pytest

from genre_lightning.evaluation.decisions import fit_decision, write_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.files import write_json
from genre_lightning.runs import RunDirectory

GENRES = ("Comedy", "Drama", "Horror", "War")


def made_predictions(films, noise, first_id=0, genres=GENRES, seed=0):
    """The same films at any noise: a model sees them more or less clearly."""
    truth = np.random.default_rng([7, first_id]).normal(0, 1.5, (films, len(genres)))
    blur = np.random.default_rng([8, first_id, seed]).normal(size=truth.shape)
    return Predictions(
        genres=genres,
        ids=np.arange(films) + first_id,
        titles=[f"Film {i}" for i in range(films)],
        texts=[f"A story told {i} times." for i in range(films)],
        labels=truth > 0.4,
        logits=(2 * truth + noise * blur).astype(np.float32),
    )


def make_run(place, noise=1.0, *, seed=0, genres=GENRES, first_id=0, status="finished", splits=("validation", "test")):
    """A run whose splits have 80 films each."""
    run = RunDirectory(place)
    run.write_config("seed: 0\nmodel:\n  class_path: some.Encoder\n  init_args:\n    backbone: small\n")
    write_json(run.audit, {"rows": 200, "kept": 160, "validation_is_test": False})
    made = {
        "validation": made_predictions(80, noise, first_id, genres, seed),
        "test": made_predictions(80, noise, first_id + 1000, genres, seed),
    }
    decision = fit_decision(made["validation"], "validation", resamples=5)
    write_decision(decision, run.decision)
    for split in splits:
        write_evaluation(
            run.evaluation(split).path,
            made[split],
            decision,
            split=split,
            figures=False,
            resamples=20,
            metadata={"split_sha256": f"{split}{first_id}", "seconds": 12.5, "trainable_parameters": 22_700_000},
        )
    run.set_status(status)
    return place


def without_page(monkeypatch):
    """Leave out the page if a test does not look at it."""
    monkeypatch.setattr("genre_lightning.training.resume.write_report", lambda *arguments, **options: None)


def trained_baseline(place):
    """A run that is trained and loaded in no time; `place` gets it and its film file."""
    from genre_lightning.__main__ import main
    from genre_lightning.data.sample.generate import write_sample

    sample = write_sample(place / "sample.csv", films=200, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        assert main(["baseline", "tfidf_nb", f"--data.csv={sample}", f"--run_dir={place / 'nb'}"]) == 0
    return place / "nb"


def refused(capfd, arguments, *words):
    """Runs the command, which must end with status 2 and one line that holds the words; gives that line."""
    from genre_lightning.__main__ import main

    assert main([str(word) for word in arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("genre-lightning: ")
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


def everything_under(place):
    """Each path below and its content, to see that a refused command left all as it was."""
    return {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file() and path.name != ".lock"}
