"""Pictures of other formats in child processes: right, bounded, and replaced when one hangs or dies."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nudenet_client import PictureError
from nudenet_tools.gateway import converter
from nudenet_tools.gateway.conversion import Converters, ConvertersBusy
from nudenet_tools.gateway.settings import Limits, Settings

COLOURS = ["red", "lime", "blue"]


def encoded(kind: str, *colours: str, size=(48, 32)) -> bytes:
    target = io.BytesIO()
    first, *others = [Image.new("RGB", size, colour) for colour in colours]
    options = {"save_all": True, "append_images": others, "duration": 100} if others else {}
    first.save(target, kind, **options)
    return target.getvalue()


def middle(data: bytes) -> tuple:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return tuple(value > 128 for value in np.asarray(picture.convert("RGB"))[16, 24].tolist())


def run(*files: bytes, settings: Settings | None = None, seconds: float = 30):
    """What each file becomes: JPEG files, or the reason."""

    async def convert():
        converters = Converters(settings or Settings(converters=1))
        found = []
        for data in files:
            try:
                found.append(await converters.frames(data, seconds))
            except PictureError as error:
                found.append(error.reason)
        await converters.close()
        return found

    return asyncio.run(convert())


def test_every_format_and_every_frame():
    stills = [encoded(kind, "red") for kind in ("PNG", "WEBP", "AVIF", "GIF")]
    animated = [encoded(kind, *COLOURS) for kind in ("GIF", "WEBP", "PNG")]
    found = run(*stills, *animated)
    assert [len(files) for files in found] == [1] * 4 + [3] * 3
    reds = [middle(files[0]) for files in found]
    assert reds == [reds[0]] * 7
    assert len({middle(file) for file in found[4]}) == 3


def test_jpeg_and_nothing_stay_as_they_are(astronaut):
    assert run(astronaut, b"", b"\xff\xd8\xff rubbish") == [[astronaut], [b""], [b"\xff\xd8\xff rubbish"]]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


def test_what_is_no_picture_goes_on_for_triton_to_name(tmp_path, monkeypatch):
    """PostScript, too: Pillow would start Ghostscript for it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert run(b"%PDF-1.7 and so on", EPS) == [[b"%PDF-1.7 and so on"], [EPS]]
    assert not (tmp_path / "started").exists()


def test_limits_are_those_of_all_frames_together():
    settings = Settings(converters=1, limits=Limits(pixels=48 * 32 * 2, frames=2))
    wide, three, two = encoded("PNG", "red", size=(100, 100)), encoded("GIF", *COLOURS), encoded("GIF", *COLOURS[:2])
    large = encoded("GIF", *COLOURS[:2], size=(50, 50))
    found = run(wide, three, large, two, encoded("PNG", "red")[:60], settings=settings)
    assert "100x100 pixels, the limit is 3072" in found[0]
    assert "3 frames, the limit is 2" in found[1]
    assert "2 frames of 50x50 pixels, the limit is 3072 pixels in all" in found[2]
    assert len(found[3]) == 2
    assert "damaged PNG" in found[4]


def test_memory_is_limited_and_the_next_picture_is_served():
    settings = Settings(converters=1, conversion_bytes=700_000_000, limits=Limits(pixels=10**9))
    bomb = encoded("PNG", "red", size=(20_000, 20_000))  # 1.2 GB of pixels in 1.2 MB
    found = run(bomb, encoded("PNG", "red"), settings=settings)
    assert isinstance(found[0], str)
    assert len(found[1]) == 1


def test_a_child_that_hangs_is_replaced(monkeypatch):
    async def convert():
        converters = Converters(Settings(converters=1, conversion_seconds=30))
        await converters.frames(encoded("PNG", "red"), 30)
        child = converters._free._queue[0]
        os.kill(child.pid, signal.SIGSTOP)
        converters._settings = replace(converters._settings, conversion_seconds=0.5)
        with pytest.raises(PictureError, match=r"more than 0\.5 s"):
            await converters.frames(encoded("PNG", "red"), 30)
        assert child.returncode is not None
        converters._settings = replace(converters._settings, conversion_seconds=30)
        assert len(await converters.frames(encoded("PNG", "red"), 30)) == 1
        child = converters._free._queue[0]
        os.kill(child.pid, signal.SIGSTOP)
        task = asyncio.create_task(converters.frames(encoded("PNG", "red"), 30))
        await asyncio.sleep(0.2)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(PictureError, match="ended the process"):
            await task
        assert len(await converters.frames(encoded("PNG", "red"), 30)) == 1
        await converters.close()

    asyncio.run(convert())


def test_waiting_for_a_free_child_ends_with_the_deadline():
    async def convert():
        converters = Converters(Settings(converters=1))
        await converters._free.get()
        with pytest.raises(asyncio.TimeoutError):
            await converters.frames(encoded("PNG", "red"), 0.05)

    asyncio.run(convert())


def test_frames_of_other_sizes_are_not_left_out():
    target = io.BytesIO()
    Image.new("RGB", (8, 8)).save(target, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    with pytest.raises(PictureError, match="differ in size"):
        list(converter.frames(target.getvalue(), 10_000, 10))


def test_the_time_of_the_request_is_not_the_pictures_fault():
    """While a process converts, and while none is free."""

    async def convert():
        converters = Converters(Settings(converters=1, conversion_seconds=30))
        with pytest.raises(TimeoutError) as starting:  # less than a process needs to start
            await converters.frames(encoded("PNG", "red"), 0.01)
        await converters.frames(encoded("PNG", "red"), 30)
        child = converters._free._queue[0]
        os.kill(child.pid, signal.SIGSTOP)
        hanging = asyncio.create_task(converters.frames(encoded("PNG", "red"), 1.0))
        await asyncio.sleep(0)
        with pytest.raises(ConvertersBusy):
            await converters.frames(encoded("PNG", "red"), 0.1)
        with pytest.raises(TimeoutError) as late:
            await hanging
        assert type(starting.value) is type(late.value) is TimeoutError
        assert child.returncode is not None
        assert len(await converters.frames(encoded("PNG", "red"), 30)) == 1
        await converters.close()

    asyncio.run(convert())
