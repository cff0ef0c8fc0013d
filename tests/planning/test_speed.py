"""How long a step on GPUs takes, on paper."""

from dataclasses import replace

import pytest

from genre_lightning.planning.speed import Work, step_time, usual_utilisation

PEAK = 989.5e12
# 70B in NF4 with checkpointing, 32 films of 70 tokens a step
LLAMA = Work(
    flops=2240 * 4 * 68.8e9, films=32, micro_batches=1, blocks=80, decoder=True, weights=36.1e9, gradients=0.26e9
)


def on(work, ranks, *, sharded, utilisation=0.224):
    return step_time(work, ranks=ranks, sharded=sharded, peak=PEAK, utilisation=utilisation)


def test_utilisation_of_nf4_with_checkpointing_is_about_a_fifth():
    assert usual_utilisation(quantised=False, checkpointed=False) == 0.4
    assert 0.20 <= usual_utilisation(quantised=True, checkpointed=True) <= 0.25


def test_one_device_with_large_steps_is_limited_by_its_matmuls():
    step = on(replace(LLAMA, flops=100 * LLAMA.flops), 1, sharded=False)
    assert step.limit == "matmuls"
    assert step.communication == 0
    assert step.seconds == pytest.approx(100 * LLAMA.flops / (PEAK * 0.224), rel=1e-4)


def test_a_70b_in_steps_of_32_films_on_8_gpus_is_limited_by_the_starting_of_its_kernels():
    step = on(LLAMA, 8, sharded=True)
    assert step.limit == "kernels"
    assert step.kernels == pytest.approx(0.56)
    # 0.16 s, behind the kernels
    assert step.communication == pytest.approx(7 / 8 * 72.46e9 / 450e9 + 244 * 6 * 10e-6, rel=1e-3)
    assert step.seconds == pytest.approx(0.56, rel=0.01)


def test_communication_shows_where_nothing_hides_it():
    short = replace(LLAMA, flops=1e12, blocks=1, decoder=False, gradients=4 * 660e6, weights=4 * 660e6)
    step = on(short, 64, sharded=False)
    assert step.limit == "communication"
    assert step.hidden == pytest.approx(2 / 3 * max(step.matmuls, step.kernels))
    assert step.seconds > step.communication


def test_planning_and_agreements_are_part_of_it():
    few, many = (on(replace(LLAMA, films=films), 512, sharded=True) for films in (8000, 100_000))
    assert few.planning == pytest.approx(0.8e-3)
    assert many.planning == pytest.approx(0.1e-3)  # planned ahead
    assert many.agreement == pytest.approx(0.031, rel=0.02)  # of each second
