"""The canary's connection."""

import pytest

from container.healthcheck import Canary, CanaryError
from helpers.scripted_triton import scripted_triton


def test_the_canary_never_goes_through_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with scripted_triton(lambda number, context: None) as server, Canary(server.url) as canary:
        with pytest.raises(CanaryError, match="did not find the face"):  # answered: the scripted server knows no faces
            canary.ask(5)
        assert len(server.requests) == 1
