"""The launcher's variables for this process's ranks, whether that is complete, and where errors are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from genre_lightning.distributed.slurm import in_step
from genre_lightning.errors import ConfigError, GenreLightningError

FIRST_RANK = "GENRE_LIGHTNING_FIRST_RANK"
"""Environment variable with the process id of the rank that starts the others of its machine."""

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
_SRUN = (
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS",
)  # fmt: skip
_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")
_NUMBERS = {
    *_TORCHRUN,
    *_SRUN,
    "NODE_RANK",
    "MASTER_PORT",
    "SLURM_RESTART_COUNT",
    "SLURM_NTASKS_PER_NODE",
    "JSM_NAMESPACE_RANK",
}

# of a process that nobody has started as a rank, the values that change nothing
_ALONE = {
    "RANK": "0", "NODE_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
    "GROUP_WORLD_SIZE": "1", "SLURM_PROCID": "0", "JSM_NAMESPACE_RANK": "0", "LOCAL_RANK": None,
}  # fmt: skip


class LaunchError(ConfigError):
    """The environment does not name the rank of this process."""


def check_launch(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse an environment that makes this process a rank without saying of what.

    Lightning takes the first rank that it finds there: such a process would write nothing, or wait for ranks that
    nobody has started.

    Raises:
        LaunchError: Rank variables are incomplete; the message names them and the fix.
    """
    if wrong := sorted(name for name in _NUMBERS if not environment.get(name, "0").isdecimal()):
        raise LaunchError(f"{_shown(wrong, environment)} in the environment: give a whole number, or unset it")
    needed: tuple[str, ...]
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, needed = "torchrun", (*_TORCHRUN, "MASTER_ADDR", "MASTER_PORT")
    elif in_step(environment):
        launcher, needed = "srun", _SRUN
    elif FIRST_RANK in environment and "LOCAL_RANK" in environment:
        launcher, needed = "rank 0", _LIGHTNING
    else:
        left = sorted(name for name, value in _ALONE.items() if environment.get(name, value) != value)
        if left:
            unset = " ".join(f"-u {name}" for name in left)
            raise LaunchError(
                f"{_shown(left, environment)} in the environment, and neither torchrun nor srun has started this "
                f"process: run it as 'env {unset} genre-lightning ...', or start its ranks by torchrun or srun"
            )
        return
    if missing := [name for name in needed if name not in environment]:
        raise LaunchError(
            f"{launcher} has started this process, and the environment lacks {', '.join(missing)}: start it again by "
            f"{launcher}, or unset what is left of it ({_left_by(launcher, environment)})"
        )
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in needed and size in needed and int(environment[rank]) >= int(environment[size]):
            raise LaunchError(
                f"{_shown([rank, size], environment)} in the environment, and ranks count from 0: start this process "
                f"again by {launcher}"
            )


def _shown(names: list[str], environment: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={environment[name]}" for name in names)


def _left_by(launcher: str, environment: Mapping[str, str]) -> str:
    own = {"torchrun": "TORCHELASTIC_RUN_ID", "srun": "SLURM_STEP_ID", "rank 0": FIRST_RANK}[launcher]
    known = (*_ALONE, "MASTER_ADDR", "MASTER_PORT") if launcher != "srun" else _SRUN
    return ", ".join([own, *(name for name in known if name in environment)])


@dataclass(frozen=True)
class Ranks:
    """Ranks that are there already, started by another program.

    Attributes:
        nodes: Machines.
        devices: Ranks of each machine.
    """

    nodes: int
    devices: int


def started_by_torchrun() -> bool:
    """Return whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def torchrun_ranks() -> Ranks | None:
    """Return the ranks that torchrun has started; None if it has not started this process.

    Raises:
        ConfigError: Its nodes have different numbers of ranks, which Lightning cannot number; or its restarts would
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
    """Return whether other ranks of the run are there already, which may be waiting for this one."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def rank_name() -> str:
    """Return the rank that the launcher gave this process; "0" if it has none."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK") if in_step() else ("RANK", "LOCAL_RANK")
    return next((os.environ[name] for name in ranks if name in os.environ), "0")


def speaks(error: GenreLightningError) -> bool:
    """Return whether this rank prints an error: one that all ranks meet is printed by rank 0.

    All meet what they have agreed on, and what is wrong with the options. Under torchrun, torchrun itself
    prints the last words of a rank that failed alone. Under srun nobody does, and what is wrong may be wrong on one
    machine: so a rank of each machine prints bad use, and every rank its own failure.
    """
    if rank_name() == "0" or isinstance(error, LaunchError):
        return True
    if error.on_all_ranks or started_by_torchrun():
        return False
    bad_use = error.exit_status == GenreLightningError.exit_status
    return not (in_step() and bad_use and os.environ.get("SLURM_LOCALID") != "0")


def leave_last_words(error: BaseException) -> None:
    """Write an error where torchrun looks for the first failure's words, to be shown with the rank's number."""
    if started_by_torchrun() and "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
