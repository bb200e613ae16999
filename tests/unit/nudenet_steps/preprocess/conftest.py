"""Every test reads its headers and colour profiles itself."""

import pytest

from nudenet_steps.preprocess import colour, entropy, jpeg


@pytest.fixture(autouse=True)
def _forget():
    jpeg._recent.clear()
    entropy._headers.cache_clear()
    for _, remembered in colour._REMEMBERED:
        remembered.cache_clear()
