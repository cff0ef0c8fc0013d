"""What torchrun tells the ranks that it starts, and a real torchrun that starts a run again when a rank dies."""

import json
import os
import sys

import pytest
from outcome import differences
from small_run import SMALL
from starts import start_by_lightning, start_ranks

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.launch import Ranks, has_company, leave_last_words, speaks, torchrun_ranks
from genre_lightning.errors import ConfigError, PreemptedError, RankLostError, SaveError, agreed

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("TORCHELASTIC", "SLURM")) or name in TORCHRUN or name == "GROUP_WORLD_SIZE":
            monkeypatch.delenv(name)


@pytest.fixture
def torchrun(monkeypatch):
    for name, value in {**TORCHRUN, "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_plain_process_is_alone():
    assert torchrun_ranks() is None
    assert not has_company()


def test_torchruns_ranks_are_taken(torchrun):
    assert torchrun_ranks() == Ranks(nodes=2, devices=4)
    assert has_company()


def test_machines_with_different_numbers_of_ranks_are_refused(torchrun):
    torchrun.setenv("WORLD_SIZE", "7")
    with pytest.raises(ConfigError, match="same --nproc-per-node"):
        torchrun_ranks()


def test_restarts_that_share_a_store_are_refused(torchrun):
    torchrun.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    torchrun.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ConfigError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        torchrun_ranks()
    torchrun.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert torchrun_ranks() == Ranks(nodes=2, devices=4)


def test_what_all_ranks_meet_is_reported_by_the_first(torchrun):
    errors = (ConfigError("x"), PreemptedError("x"), RankLostError("x"))
    assert not any(map(speaks, errors))
    torchrun.setenv("RANK", "0")
    assert all(map(speaks, errors))
    # Lightning's own ranks start when the options have been checked: what one of them meets, it meets alone
    torchrun.delenv("TORCHELASTIC_RUN_ID")
    torchrun.delenv("RANK")
    assert [speaks(error) for error in errors] == [True, False, True]
    assert not speaks(agreed(SaveError("x")))
    assert speaks(SaveError("x"))


def test_last_words_are_where_torchrun_looks(torchrun, tmp_path):
    torchrun.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    try:
        raise RankLostError("gone")
    except RankLostError as error:
        leave_last_words(error)
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "RankLostError: gone"


@pytest.mark.slow
def test_torchrun_starts_a_run_again_whose_rank_was_killed(tmp_path):
    sample = write_sample(tmp_path / "sample.csv", films=165, seed=1)
    environment = {"GENRE_LIGHTNING_CACHE": str(tmp_path / "cache")}
    words = ["fit", f"--data.csv={sample}", *SMALL]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    again = start_by_lightning(
        [*words, f"--run_dir={tmp_path / 'again'}"],
        tmp_path / "log",
        {**environment, "FAULT": "in a step:20:SIGKILL:1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        seconds=300,
        by=torchrun,
    )
    assert again.statuses == [0], again.said[-3000:]
    # the agent names the rank, and each line of ours comes once a start; whether the other rank still says what it has
    # lost depends on which is quicker, its connection's end or the agent's signal
    assert "(exitcode: -9) local_rank: 1" in again.said
    assert again.said.count("model   small") == 2
    assert again.said.count("resuming") == 1
    words.append(f"--run_dir={tmp_path / 'unbroken'}")
    assert start_ranks(words, 2, tmp_path / "log", environment, seconds=300).statuses == [0, 0]
    assert differences(tmp_path / "unbroken", tmp_path / "again") == []
