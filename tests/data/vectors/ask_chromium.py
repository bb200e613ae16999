"""Ask Chromium what it shows for every vector, and write answers.json beside this file.

PYTHONPATH=tests python -m data.vectors.ask_chromium
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from data.vectors import table
from helpers import browser

_DRAW = """async (files) => {
  const shown = [];
  for (const data of files) {
    const image = new Image();
    image.src = 'data:;base64,' + data;
    document.body.replaceChildren(image);
    try { await image.decode(); } catch { shown.push(null); continue; }
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.fillStyle = 'white';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    shown.push(canvas.toDataURL('image/png'));
  }
  return shown;
}"""
_AT_A_TIME = 50  # files in one message to the browser
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]


class Chromium:
    """The system's browser, showing one file after the other; a context manager."""

    def __enter__(self) -> Chromium:
        self._stack = contextlib.ExitStack()
        playwright = self._stack.enter_context(browser.playwright())
        self._browser = playwright.chromium.launch(executable_path=browser.program(), args=FLAGS)
        self.version = self._browser.version
        self._page = self._browser.new_page()
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._stack.close()

    def show_many(self, files: Sequence[bytes]) -> Iterator[np.ndarray | None]:
        """Each picture on white, RGB uint8 [h,w,3]; None where the browser shows none."""
        for start in range(0, len(files), _AT_A_TIME):
            texts = [base64.b64encode(data).decode() for data in files[start : start + _AT_A_TIME]]
            for address in self._page.evaluate(_DRAW, texts):
                yield None if address is None else _pixels(address)


def _pixels(address: str) -> np.ndarray:
    """Of a picture in a data: URL."""
    with Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))) as picture:
        return np.asarray(picture.convert("RGB"))


def main() -> None:
    """Ask about all vectors."""
    answers: dict[str, Any] = {}
    with Chromium() as chromium:
        vectors = [*table.jpegs(), *table.others()]
        shown = chromium.show_many([vector.data for vector in vectors])
        for vector, pixels in zip(vectors, shown, strict=True):
            answers[vector.name] = (
                pixels
                if pixels is None
                else {
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "cells": table.cells(pixels).tobytes().hex(),
                }
            )
        record = {"recorded by": "ask_chromium.py", "browser": f"Chromium {chromium.version}", "answers": answers}
    table.ANSWERS.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{len(answers)} answers of {record['browser']}: {table.ANSWERS}")


if __name__ == "__main__":
    main()
