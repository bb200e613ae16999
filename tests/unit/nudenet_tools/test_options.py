"""How the tools reach a server that is not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from nudenet_client import Tls
from nudenet_tools import options


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv("NUDENET_API_KEY", raising=False)


@pytest.fixture
def key_file(tmp_path) -> Path:
    path = tmp_path / "key"
    path.write_text("from-the-file\n")
    return path


def test_nothing_asked_for():
    assert options.access(False, None, None) == {"tls": None, "api_key": None}


def test_a_key_from_a_file_or_the_environment(key_file, monkeypatch):
    ca = Path("ca.pem")
    assert options.access(False, ca, key_file) == {"tls": Tls(ca), "api_key": "from-the-file"}
    monkeypatch.setenv("NUDENET_API_KEY", "from-the-environment")
    assert options.access(True, None, None) == {"tls": Tls(None), "api_key": "from-the-environment"}
    assert options.access(True, None, key_file)["api_key"] == "from-the-file"


def test_a_key_never_travels_unencrypted(key_file):
    with pytest.raises(typer.BadParameter, match=r"encrypted only: add --tls or --ca FILE"):
        options.access(False, None, key_file)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff\xfe", "can't decode")]
)
def test_a_file_without_a_key(content, message, tmp_path):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(typer.BadParameter, match=message):
        options.access(True, None, path)
