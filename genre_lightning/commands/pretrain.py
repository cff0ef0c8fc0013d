"""`genre-lightning pretrain`: train an encoder on the texts alone, for a fit that starts from it."""

from __future__ import annotations

from collections.abc import Sequence

from genre_lightning.commands.checked import parse_checked
from genre_lightning.compat import import_lightning
from genre_lightning.config.words import default_run_dir, with_run_config
from genre_lightning.progress import answer, answer_json
from genre_lightning.runs import PRETRAINING


def pretrain(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config, parser = parse_checked(
        PRETRAINING, with_run_config(arguments, PRETRAINING), default_run_dir(arguments) / PRETRAINING
    )
    import_lightning()
    # these load torch, which takes seconds
    from genre_lightning.distributed.ranks import is_first_rank
    from genre_lightning.training.pretrain import pretrain_run

    run = pretrain_run(config, parser)
    if is_first_rank():
        result = {"run_dir": str(run.path), "backbone": str(run.backbone)}
        answer_json(result) if config.json else answer(run.backbone)
    return 0
