"""The commands of `genre-lightning` and where each is done; nothing is imported before it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from genre_lightning.config.packaged import with_packaged
from genre_lightning.config.trust import with_trust
from genre_lightning.distributed.launch import check_launch
from genre_lightning.distributed.signals import stopping_on_signals
from genre_lightning.shared_cpus import note_start
from genre_lightning.streams import keep_working


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        about: What it is for.
        target: "module:function" that takes the arguments and returns the exit status.
        saves: A stop signal has it save its state and leave; others are ended by it.
    """

    about: str
    target: str
    saves: bool = False


COMMANDS = {
    "fit": Command("train a model, evaluate it and leave a run directory; again: resume", "fit:fit", saves=True),
    "tune": Command("search for a configuration: many runs on the same films; again: resume", "tune:tune", saves=True),
    "lr-range": Command("where the loss falls as the learning rate rises: a range test", "lr_range:lr_range"),
    "sweep-config": Command("a space as a sweep of Weights & Biases", "sweep_config:sweep_config"),
    "pretrain": Command(
        "train an encoder on the texts alone, before fit; again: resume", "pretrain:pretrain", saves=True
    ),
    "folds": Command(
        "probabilities of the training films out of fold, for model.teacher; again: resume", "folds:folds", saves=True
    ),
    "validate": Command("evaluate a run on its validation split", "evaluate:validate", saves=True),
    "test": Command("evaluate a run on its test split", "evaluate:test", saves=True),
    "evaluate": Command(
        "evaluate a run on another labelled file, without what it was trained on", "evaluate_file:evaluate"
    ),
    "predict": Command("tag every film of a file with a run; again: resume", "predict:predict", saves=True),
    "tag": Command("the genres of texts, as they come", "tag:tag"),
    "explain": Command("why a text got its genres, word by word; --top_words: of a split", "explain:explain"),
    "baseline tfidf_nb": Command("TF-IDF and naive Bayes as a run like any other", "baseline:tfidf_nb"),
    "baseline tfidf_logreg": Command("TF-IDF and logistic regression, likewise", "baseline:tfidf_logreg"),
    "report": Command("make the page about a run again; --paper: the paper's tables", "report:report"),
    "compare": Command("runs on the same films in one table, with intervals and p-values", "compare:compare"),
    "ensemble": Command("the weighted mean of runs, evaluated like any run", "ensemble:ensemble"),
    "export": Command("write a run for transformers, peft, sentence-transformers or ONNX", "export:export"),
    "plan": Command("whether a run will fit, how long it takes, and what is wrong with it", "plan:plan"),
    "submit": Command("queue a training on a SLURM cluster; it outlives its time limit", "submit:submit"),
    "status": Command("where a run stands: job, step, rate, last metrics, time left", "status:status"),
    "configs": Command("the configurations that come with the package", "configs:show"),
    "configs copy": Command("write one of them to edit", "configs:copy"),
    "configs schema": Command("the JSON Schema of configurations, for editors", "configs:schema"),
    "data inspect": Command("print the audit, genres, lengths and splits of a movies file", "data:inspect"),
    "data download": Command("fetch The Movies Dataset from Kaggle and check it", "data:download"),
    "data sample": Command("write the embedded sample of a movies file", "data:sample"),
    "data doubts": Command("genres of films that are probably wrong or missing", "doubts:doubts"),
    "feedback import": Command("store the labels of a filled-in queue or a table", "feedback:import_feedback"),
    "feedback export": Command("write the stored feedback as a table", "feedback:export"),
    "feedback stats": Command("how far people agree with the predictions, by genre and over time", "feedback:stats"),
    "feedback forget": Command("erase a person from the feedback", "feedback:forget"),
    "queue": Command("which films to label next, as a table to fill in", "queue:queue"),
    "monitor": Command("whether new films have drifted from those of a run; exit status 1 if so", "monitor:monitor"),
    "serve": Command("a run behind HTTP, with a page to try it and to collect corrections", "serve:serve"),
    "demo": Command("the service and its page on a small run of the embedded sample", "demo:demo"),
    "features ratings": Command("film vectors from what users rate, as an input", "features:ratings"),
    "features posters": Command("film vectors from posters, by CLIP or SigLIP", "features:posters"),
}


def help_text() -> str:
    """Return what `genre-lightning --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: genre-lightning COMMAND [OPTIONS]",
            "",
            "Fine-tunes language models to tag films with genres.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --help       show this, or the options of a command: genre-lightning fit --help",
            "  --version    show the version",
            "  --trust PACKAGE   after any command: models, losses, readers and callbacks of this package may be named",
            "",
            "a first run:  genre-lightning data sample data/sample.csv && genre-lightning fit --config quickstart",
            "exit status:  0 done, 1 the run failed, 2 bad use, 75 stopped after saving its state",
        ]
    )


def find_command(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the command that the arguments start with, and those after it; None if they name none."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            return name, list(words[length:])
    return None, list(words)


def run(name: str, arguments: Sequence[str], *, whole_process: bool = False) -> int:
    """Run a command and return its exit status.

    Args:
        name: Name of the command.
        arguments: The words after it.
        whole_process: Nothing comes after it in this process, which no signal need end then.
    """
    # first what needs no library: a rank of nothing
    check_launch()
    note_start()
    command = COMMANDS[name]
    if command.saves and whole_process:
        keep_working()
    arguments = with_trust(with_packaged(arguments))
    module, function = command.target.split(":")
    # from here on, as loading the libraries takes seconds
    with stopping_on_signals(last=whole_process, at_once=True) if command.saves else nullcontext():
        return getattr(importlib.import_module(f"genre_lightning.commands.{module}"), function)(arguments)
