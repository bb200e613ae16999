#!/usr/bin/env python3
"""Coverage-guided fuzzing of `jpeg.py` with atheris (libFuzzer). Needs requirements/chaos.txt.

    PYTHONPATH=model_repository/nudenet/1:tools:tests python tests/chaos/fuzz_jpeg.py -max_total_time=60 CORPUS

Anything but a picture or a `JpegError` is a finding, so is more than a second or 2 GB, or a remembered header that
differs from the one that is read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nudenet_steps"]):
    from nudenet_steps.preprocess import canvas, jpeg, letterbox

import numpy as np

# Smaller than in service: the fuzzer should look for crashes, not for large pictures.
LIMITS = jpeg.Limits(max_bytes=1_000_000, max_pixels=4_000_000, max_scan_work=50_000_000)
WRITER = letterbox.Writer()
OUT = {size: np.empty((3, *size), np.uint8) for size in canvas.CANVASES}


def one_input(data: bytes) -> None:
    try:
        jpeg.check_size(data, LIMITS)
        jpeg._recent.clear()
        header = jpeg.read_header(data)
        assert jpeg.read_header(data) == header  # remembered
        jpeg.check_limits(header, LIMITS)
        chosen = canvas.smallest([header.upright_size])
        box = letterbox.fit(*header.upright_size, chosen)
        for strict in (True, False):
            pixels = jpeg.decode(data, header, box.width, box.height, strict)
            WRITER.write(pixels, box, OUT[chosen])
    except jpeg.JpegError as error:
        assert error.reason and str(error)


def main() -> None:
    from chaos.fuzz import seeds

    corpus = Path(sys.argv[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed{number}.jpg").write_bytes(data)
    options = ["-timeout=1", "-rss_limit_mb=2048", "-max_len=200000", "-seed=1", f"-artifact_prefix={corpus}/finding-"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
