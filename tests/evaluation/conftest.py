"""Fixtures of the evaluation's tests."""

import pytest
from made_predictions import make_predictions


@pytest.fixture
def predictions():
    return make_predictions()
