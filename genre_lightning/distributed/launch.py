"""What torchrun tells the processes that it starts: how many ranks there are; and where a dying one leaves words."""

from __future__ import annotations

import os
from dataclasses import dataclass

from genre_lightning.errors import ConfigError, GenreLightningError, PreemptedError


@dataclass(frozen=True)
class Ranks:
    """Ranks that are there already, started by another program.

    Attributes:
        nodes: machines.
        devices: ranks of each machine.
    """

    nodes: int
    devices: int


def started_by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun_ranks() -> Ranks | None:
    """The ranks that torchrun has started; None where it has not started this process.

    Raises:
        ConfigError: its nodes have different numbers of ranks, which Lightning cannot number; or its restarts would
            have the new ranks meet in the store where the addresses of the dead ones still are.
    """
    if not started_by_torchrun():
        return None
    world, local = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = int(os.environ["GROUP_WORLD_SIZE"])
    if nodes * local != world:
        raise ConfigError(
            f"torchrun has started {world} ranks on {nodes} machines, {local} of them here: "
            "give every machine the same --nproc-per-node"
        )
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(
            f"torchrun --max-restarts {restarts} lets restarted ranks find the addresses of dead ones in the store "
            "that all its rounds share: give torchrun the environment variable TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
        )
    return Ranks(nodes, local)


def has_company() -> bool:
    """Whether other ranks of the run are there already, which may be waiting for this one."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def rank_name() -> str:
    """The rank of this process as its launcher tells it; "0" where there is none."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))


def speaks(error: GenreLightningError) -> bool:
    """Whether this rank prints an error: one that all ranks meet is printed by the first.

    All meet a signal, since they agree on it, and under torchrun what is wrong with the options; torchrun itself
    prints the last words of a rank that has failed alone.
    """
    first = rank_name() == "0"
    return first or not (isinstance(error, PreemptedError) or started_by_torchrun())


def leave_last_words(error: BaseException) -> None:
    """Writes an error where torchrun looks for the first failure's words, to be shown with the rank's number."""
    if started_by_torchrun() and "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
