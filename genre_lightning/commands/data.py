"""`genre-lightning data`: a look at a movies file, the embedded sample, and the real file from Kaggle."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genre_lightning.bounds import SEED, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.files import check_output
from genre_lightning.progress import answer, say


def sample(arguments: Sequence[str]) -> int:
    """Write the embedded sample."""
    from genre_lightning.data.sample.generate import write_sample

    parser = CommandParser("data sample", "Writes a made-up movies file in The Movies Dataset's format.")
    parser.add_argument("file", type=Path, help="where to: a .csv or .csv.gz file")
    parser.add_argument(
        "--films",
        type=within(int, at_least(100, 10**7)),
        default=2000,
        help="films that are fit to learn from, at least 100 (default: 2000)",
    )
    parser.add_argument("--seed", type=within(int, SEED), default=0, help="equal seeds write equal files (default: 0)")
    options = parser.parse_args(list(arguments))
    check_output(options.file, "FILE")
    path = write_sample(options.file, films=options.films, seed=options.seed)
    say(f"wrote {path}")
    return 0


def download(arguments: Sequence[str]) -> int:
    """Fetch The Movies Dataset's file."""
    from genre_lightning.data.download import HANDLE, download_movies

    parser = CommandParser(
        "data download",
        f"Fetches movies_metadata.csv of {HANDLE} by kagglehub, checks it, and puts it into a directory.",
    )
    parser.add_argument("dir", type=Path, nargs="?", default=Path("data"), help="where to (default: data)")
    path, audit, fetched = download_movies(parser.parse_args(list(arguments)).dir.expanduser())
    counts = f"{audit.rows:,} rows, {audit.kept:,} films kept"
    say(f"{'fetched and checked' if fetched else 'it is there already'}: {counts}")
    answer(path)
    return 0


def inspect(arguments: Sequence[str]) -> int:
    """Print the audit, the genres, the lengths and the splits of a file."""
    from genre_lightning.commands.checked import parse_checked
    from genre_lightning.compat import import_lightning
    from genre_lightning.config.words import with_film_file, with_run_config

    words = with_run_config(with_film_file(arguments))
    config, parser = parse_checked("data inspect", words, Path("runs/inspect"))
    import_lightning()
    # these load torch, which takes seconds
    import numpy as np

    from genre_lightning.commands.audit_tables import print_audit
    from genre_lightning.evaluation.console import console_of
    from genre_lightning.training.setup import check_setup

    setup = check_setup(config, parser)
    data = setup.data.prepare()
    lengths = data.tokens.lengths
    audit = {
        **data.audit,
        "tokens": {
            "tokenizer": setup.data.tokenizer_name,
            "max_tokens": setup.data.options.max_tokens,
            "mean": float(lengths.mean()),
            **{f"p{p}": int(np.percentile(lengths, p)) for p in (5, 50, 95, 99)},
            "longest": int(lengths.max()),
            "cut": int((lengths == setup.data.options.max_tokens).sum()),
        },
        "genres_a_film": float(np.concatenate([s.labels for s in _distinct(data.splits)]).sum(axis=1).mean()),
    }
    if config.json:
        answer(json.dumps(audit))
    else:
        print_audit(audit, console_of(sys.stdout))
    return 0


def _distinct(splits: dict[str, Any]) -> list[Any]:
    return list({split.sha256: split for split in splits.values()}.values())
