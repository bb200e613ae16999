"""A file is the old one or the whole new one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nudenet_steps.files import write_whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_a_new_file_or_as_asked(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_whole(tmp_path / "below" / "whole", b"x")
    assert (tmp_path / "below" / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode
    write_whole(tmp_path / "usual", b"x", 0o604)
    assert (tmp_path / "usual").stat().st_mode & 0o777 == 0o604


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(b"original")
    (tmp_path / "link").symlink_to(tmp_path / "original")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "original").read_bytes() == b"original"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()
