"""`genre-lightning predict`: tags every film of a file with a trained run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from genre_lightning.commands.build import Setup, bind_model, build_trainer, is_first_rank, tell
from genre_lightning.commands.evaluate import open_run
from genre_lightning.commands.evaluation import collect_logits, load_decision, restore_weights
from genre_lightning.data.collate import TokenisedFilms
from genre_lightning.data.datamodule import LazyTexts, padding_of
from genre_lightning.data.films import FilmTable, load_films
from genre_lightning.data.steps import EvaluationSampler
from genre_lightning.data.tokens import tokenise
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.evaluate import SHIPPED_POLICY
from genre_lightning.evaluation.predictions import Predictions


def predict(arguments: Sequence[str]) -> int:
    """Tags the films of `--data.csv` (the run's own file where none is named) and writes one table.

    Films need no genres; those that the file names and the model knows are kept beside the decided ones.
    """
    words, file, out = _own_options(arguments)
    setup = open_run("predict", words)
    out = out or setup.run.path / "predictions.parquet"
    if out.suffix != ".parquet":
        raise ConfigError(f"--out is {out}: name a .parquet file")
    source = replace(setup.data.source, path=file or setup.data.source.path, require_genres=False)
    films = load_films(source, setup.data.cache_dir)
    watch_ranks()
    with explaining_failures():
        predictions = _predict(setup, films)
    if not is_first_rank():
        return 0
    decision = load_decision(setup)
    probabilities = decision.probabilities(predictions.logits)
    predictions.write_parquet(
        out, probabilities, decision.decide(probabilities, SHIPPED_POLICY), {"policy": SHIPPED_POLICY}
    )
    dropped = films.audit.rows - films.audit.kept
    tell(
        f"tagged {len(predictions):,} films of {source.path}; {dropped:,} rows without an overview or a number left out"
    )
    print(out, file=sys.stdout)
    return 0


def _own_options(arguments: Sequence[str]) -> tuple[list[str], Path | None, Path | None]:
    """Takes --data.csv and --out, which name this command's files and not the run's, out of the arguments."""
    taken: dict[str, Path] = {}
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("--data.csv", "--out"):
            value = value if equals else next(rest, "")
            if not value:
                raise ConfigError(f"{name} names no file: give its path")
            taken[name] = Path(value).expanduser().absolute()
        else:
            words.append(word)
    return words, taken.get("--data.csv"), taken.get("--out")


def _predict(setup: Setup, films: FilmTable) -> Predictions:
    data = bind_model(setup)
    rows = np.arange(len(films))
    with setup.data.progress("Tokenising", len(films)) as progress:
        tokens = tokenise(
            LazyTexts(films, rows),
            data.tokenizer,
            max_tokens=setup.data.max_tokens,
            cache_dir=setup.data.cache_dir,
            content=films.digest,
            progress=progress,
        )
    trainer, _ = build_trainer(setup)
    restore_weights(setup.model, setup.run.best)
    dataset = TokenisedFilms(tokens, rows, None, padding_of(data.tokenizer))
    sampler = EvaluationSampler(
        dataset.lengths,
        budget=setup.data.evaluation_budget(trainer),
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    loader = DataLoader(dataset, sampler=sampler, batch_size=None)
    names = data.vocabulary.names
    known = [[name for name in genres if name in names] for genres in films.genres()]
    return Predictions(
        genres=names,
        ids=films.ids,
        titles=films.strings("title"),
        texts=films.strings("text"),
        labels=data.vocabulary.encode(known),
        logits=collect_logits(trainer, setup.model, loader, (len(films), len(names))),
    )
