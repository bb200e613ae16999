"""Every test reads its colour profiles itself."""

import pytest

from nudenet_steps.preprocess import colour


@pytest.fixture(autouse=True)
def _forget_profiles():
    for _, remembered in colour._REMEMBERED:
        remembered.cache_clear()
