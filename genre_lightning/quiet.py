"""Warnings of libraries that no user can act on."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence news from libraries that no user can act on; each with its reason."""
    # Lightning calls torch's pytree by a name that torch has renamed
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*")
    # peft asks transformers for a property by its name before version 6
    warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing.*", category=FutureWarning)
    # torch 2.13 renames an option of DDP; torch 2.11 knows it by the old name alone
    warnings.filterwarnings("ignore", message=r".*`broadcast_buffers` is deprecated.*", category=FutureWarning)
    # a fork after tokenising would warn; the tokenisers' threads are done by then
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # batches are slices of a mapped file: worker processes would only add start-up time
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # steps are counted over the whole run: an epoch shorter than the interval is not a mistake
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval.*")
    # on a cluster's login node a run on that one machine is not a mistake
    warnings.filterwarnings("ignore", message=r".*`srun` command is available.*")
    # checkpoints are written into their directory again and again by design
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty.*")
