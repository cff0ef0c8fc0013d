"""Variables that other launchers leave in the environment: a rank of nothing is refused by every command."""

import os

import pytest

from genre_lightning.__main__ import main
from genre_lightning.distributed.launch import LaunchError, check_launch, rank_name, speaks
from genre_lightning.errors import ConfigError, DataError, PreemptedError, RankLostError

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "a run", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NUM_TASKS": "32", "SLURM_NTASKS": "32", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip
LIGHTNING = {"GENRE_LIGHTNING_FIRST_RANK": "7", "LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}
LAUNCHERS = {"torchrun": TORCHRUN, "srun": SRUN, "lightning": LIGHTNING}


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


@pytest.fixture
def only(monkeypatch):
    """Sets the variables of launchers to those given, and takes all others away."""

    def set_only(environment):
        known = {*TORCHRUN, *SRUN, *LIGHTNING}
        for name in [*os.environ]:
            if name in known or name.startswith(("SLURM", "TORCHELASTIC")):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_only


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_a_launcher_are_taken(launcher):
    check_launch(LAUNCHERS[launcher])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"},
        {"SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "a run", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        {"SLURM_JOB_NAME": "bash", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"},
    ],
    ids=["nothing", "a pod of its own", "a batch script", "a shell on a node"],
)
def test_a_process_of_its_own_is_taken(environment):
    check_launch(environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "1"},
        {"LOCAL_RANK": "0"},
        {"NODE_RANK": "1"},
        {"WORLD_SIZE": "2"},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        {"SLURM_PROCID": "3"},
        {"SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "bash"},
        {"JSM_NAMESPACE_RANK": "1"},
        {"RANK": "one"},
        {"RANK": ""},
        {"SLURM_NTASKS": "-1"},
        {"SLURM_RESTART_COUNT": "?"},
        {**TORCHRUN, "WORLD_SIZE": "8.0"},
        {**TORCHRUN, "RANK": "8"},
        {**SRUN, "SLURM_PROCID": "32"},
        *(without(TORCHRUN, name) for name in TORCHRUN),
        *(without(SRUN, name) for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS")),
        *(without(LIGHTNING, name) for name in ("NODE_RANK", "WORLD_SIZE", "GENRE_LIGHTNING_FIRST_RANK")),
    ],
    ids=str,
)
def test_a_rank_of_nothing_is_refused(environment):
    with pytest.raises(LaunchError) as refused:
        check_launch(environment)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words", [["fit"], ["predict", "runs/x"], ["status", "runs/x"], ["report", "x"], ["data", "sample", "x.csv"]]
)
@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RANK": "1"}, "RANK=1"),
        (without(TORCHRUN, "MASTER_ADDR"), "lacks MASTER_ADDR"),
        (without(SRUN, "SLURM_NTASKS"), "lacks SLURM_NTASKS"),
    ],
)
def test_every_command_is_reported_in_one_line(only, environment, named, words, tmp_path, monkeypatch, capfd):
    only(environment)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert named in err
    assert list(tmp_path.iterdir()) == []


def test_a_rank_has_the_number_of_its_launcher(only):
    for environment, name in (({}, "0"), (TORCHRUN, "5"), (SRUN, "9"), (LIGHTNING, "1")):
        only(environment)
        assert rank_name() == name


def test_under_srun_a_rank_of_each_machine_prints_bad_use(only):
    only(SRUN)
    assert [speaks(error) for error in (ConfigError("x"), DataError("x"), PreemptedError("x"))] == [False] * 3
    assert speaks(RankLostError("x"))
    only({**SRUN, "SLURM_PROCID": "8", "SLURM_LOCALID": "0"})
    assert [speaks(error) for error in (ConfigError("x"), PreemptedError("x"))] == [True, False]
    only({**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert speaks(PreemptedError("x"))
