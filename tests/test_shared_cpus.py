"""How torch's threads wait at barriers, by what else runs on their CPUs."""

import os
import subprocess
import sys

import pytest

from genre_lightning import shared_cpus
from genre_lightning.shared_cpus import CpuTimes, are_shared, sleep_early_if_shared

ON_LINUX = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="other systems do not show them")
START = CpuTimes(clock=100.0, free=50.0, cpus=4)


@pytest.mark.parametrize(
    ("free", "threads", "shared"),
    [
        pytest.param(2.0, 4, False, id="nothing else runs"),
        pytest.param(1.8, 4, False, id="a little else"),
        pytest.param(1.5, 4, True, id="another process has one CPU"),
        pytest.param(1.5, 3, False, id="which these threads do not need"),
        pytest.param(0.5, 1, False, id="one thread waits for none"),
    ],
)
def test_half_a_cpu_that_is_missing_is_noticed(free, threads, shared):
    now = CpuTimes(clock=100.5, free=50.0 + free, cpus=4)
    assert are_shared(START, now, threads) is shared


def test_nothing_is_concluded_from_too_short_a_time():
    assert not are_shared(START, CpuTimes(clock=100.05, free=50.0, cpus=4), 4)


@pytest.fixture
def before_torch(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(shared_cpus, "_at_start", START)
    monkeypatch.setattr(CpuTimes, "now", lambda: CpuTimes(clock=101.0, free=52.0, cpus=4))
    return monkeypatch


def test_threads_sleep_early_on_shared_cpus(before_torch):
    sleep_early_if_shared()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "5"), ("OMP_WAIT_POLICY", "active")])
def test_a_setting_of_the_environment_stays(before_torch, name, value):
    before_torch.setenv(name, value)
    sleep_early_if_shared()
    assert os.environ[name] == value
    assert len({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}) == 1


def test_two_of_four_cpus_are_enough_for_two_threads(before_torch):
    before_torch.setenv("OMP_NUM_THREADS", "2")
    sleep_early_if_shared()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_nothing_is_changed_once_torch_is_loaded(before_torch):
    before_torch.setitem(sys.modules, "torch", None)
    sleep_early_if_shared()
    assert "GOMP_SPINCOUNT" not in os.environ


@ON_LINUX
def test_times_of_the_cpus(monkeypatch, tmp_path):
    one = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {one})
    tick = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(
        f"cpu  9 9 9 {9 * tick} 9 0 0 0 0 0\n"
        f"cpu{one} 1 1 1 {3 * tick} {tick} 0 0 0 0 0\n"
        f"cpu{one + 1} 1 1 1 {7 * tick} 1 0 0 0 0 0\n"
        "intr 12 3\n"
    )
    monkeypatch.setattr(shared_cpus, "_STAT", stat)
    monkeypatch.setattr(shared_cpus.time, "process_time", lambda: 0.25)
    now = CpuTimes.now()
    assert (now.free, now.cpus) == (4.25, 1)


@ON_LINUX
@pytest.mark.parametrize("content", [None, "", "cpu 1 1 1 1 1\n", "cpu{one} 1\n", "cpu{one} a b c d e\n"])
def test_a_system_that_does_not_show_them(content, monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    if content is not None:
        stat.write_text(content.format(one=min(os.sched_getaffinity(0))))
    monkeypatch.setattr(shared_cpus, "_STAT", stat)
    assert CpuTimes.now() is None


def test_libgomp_reads_the_variable_that_is_set_before_torch_is_loaded():
    code = (
        "import os\nos.environ['GOMP_SPINCOUNT'] = '1000'\nos.environ['OMP_DISPLAY_ENV'] = 'verbose'\nimport torch\n"
        "torch.ones(1)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    if "OPENMP" not in shown:
        pytest.skip("torch's threads are not libgomp's")
    assert "GOMP_SPINCOUNT = '1000'" in shown
