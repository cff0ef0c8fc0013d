"""Runs `genre-lightning fit` with the options that follow, and prints how long its parts took and what it measured."""

import contextlib
import io
import json
import sys

from parts import Parts

parts = Parts()

with parts("imports"):
    from genre_lightning.compat import import_lightning

    import_lightning()
    from lightning.pytorch import Trainer

    from genre_lightning.__main__ import main
    from genre_lightning.data import prepare
    from genre_lightning.data.datamodule import MovieDataModule
    from genre_lightning.evaluation import evaluate as evaluation
    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.training import evaluate
    from genre_lightning.training import fit as run

parts.time_calls(prepare, "load_films", "reading")
parts.time_calls(MovieDataModule, "prepare_films", "reading")
parts.time_calls(MovieDataModule, "prepare", "tokenising")
parts.time_calls(run, "check_setup", "model")
parts.time_calls(GenreClassifier, "configure_model", "model")
parts.time_calls(Trainer, "fit", "training")
parts.time_calls(evaluate, "predict_split", "predicting")
parts.time_calls(evaluate, "fit_and_store_decision", "evaluating")
parts.time_calls(evaluation, "evaluate", "evaluating")
parts.time_calls(evaluate, "write_evaluation", "writing")
parts.time_calls(run, "finish", "writing")

shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    status = main(["fit", *sys.argv[1:], "--json=true"])
if status:
    sys.exit(status)
results = json.loads(shown.getvalue())
test = results["test"]
metrics = {**test["policies"]["per_genre"], **test["threshold_free"]}
names = ("f1_micro", "f1_macro", "map_macro", "auroc_macro")
parts.report({name: metrics[name] for name in names})
