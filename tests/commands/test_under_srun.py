"""The trainer of a process that srun has started: its ranks are SLURM's, its signals are not Lightning's."""

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment
from small_run import SMALL

from genre_lightning.config.parser import parse
from genre_lightning.distributed.preemption import NoSignalConnector
from genre_lightning.errors import ConfigError
from genre_lightning.training.setup import build_trainer, check_setup


@pytest.fixture
def first_of_four_ranks(monkeypatch):
    for name, value in {
        "SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "a run", "SLURM_NNODES": "2", "SLURM_NODEID": "0",
        "SLURM_NODELIST": "n[1-2]", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def setup_of(sample_csv, run_dir, *more):
    config, parser = parse("fit", [f"--data.csv={sample_csv}", f"--run_dir={run_dir}", *SMALL, *more])
    return check_setup(config, parser)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "fsdp"])
def test_ranks_and_devices_are_sruns(first_of_four_ranks, sample_csv, tmp_path, strategy):
    setup = setup_of(sample_csv, tmp_path / "run", f"--trainer.strategy={strategy}")
    trainer, _ = build_trainer(setup)
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert isinstance(trainer._signal_connector, NoSignalConnector)
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size, trainer.global_rank) == (2, 2, 4, 0)
    # the run may be evaluated on any machine, so its configuration does not hold them
    assert (setup.config.trainer.devices, setup.config.trainer.num_nodes) == ("auto", 1)


def test_what_the_configuration_says_against_srun_is_refused(first_of_four_ranks, sample_csv, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.devices is 8.*trainer.num_nodes is 3"):
        setup_of(sample_csv, tmp_path / "run", "--trainer.devices=8", "--trainer.num_nodes=3")
