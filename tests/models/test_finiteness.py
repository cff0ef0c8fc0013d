"""Steps that are not finite: counted, forgiven when a loss scaler skips them, and not forgiven when they stay."""

import pytest
import torch

from genre_lightning.models.finiteness import SKIPPED_IN_A_ROW, FiniteSteps

GOOD, NAN, INF = 1.0, float("nan"), float("inf")


def after(*pairs):
    steps = FiniteSteps()
    for step, (loss, norm) in enumerate(pairs):
        steps.update(torch.tensor(loss, dtype=torch.float64), torch.tensor(norm), step)
    return steps


def test_good_steps():
    steps = after(*[(GOOD, GOOD)] * 3)
    assert steps.skipped == 0
    assert steps.first_that_stays(scaled=False) is steps.first_that_stays(scaled=True) is None


@pytest.mark.parametrize("bad", [(NAN, GOOD), (GOOD, NAN), (GOOD, INF), (-INF, GOOD), (INF, INF)])
def test_one_bad_step_spoils_weights_that_no_scaler_guards(bad):
    steps = after((GOOD, GOOD), bad)
    assert steps.first_that_stays(scaled=False) == 1
    assert steps.first_that_stays(scaled=True) is None
    assert steps.skipped == 1


def test_overflows_that_end_are_counted_and_forgiven():
    steps = after((GOOD, INF), (GOOD, INF), (GOOD, GOOD), (GOOD, INF), (GOOD, GOOD))
    assert steps.skipped == 3
    assert steps.first_that_stays(scaled=True) is None


def test_overflows_that_stay_are_named_by_their_first():
    pairs = [(GOOD, INF), (GOOD, GOOD), *[(GOOD, INF)] * (SKIPPED_IN_A_ROW - 1)]
    assert after(*pairs).first_that_stays(scaled=True) is None
    assert after(*pairs, (NAN, NAN)).first_that_stays(scaled=True) == 2


def test_the_count_resumes_after_a_restart():
    steps = FiniteSteps()
    steps.skipped = 4
    steps.update(torch.tensor(NAN), torch.tensor(GOOD), 9)
    assert steps.skipped == 5
    assert steps.first_that_stays(scaled=False) == 9
    assert not steps.state_dict()
