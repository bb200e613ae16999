"""Pictures that are no JPEG become JPEG in child processes; what hangs or dies there is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from nudenet_client import PictureError
from nudenet_tools import ROOT
from nudenet_tools.gateway.converter import LENGTH
from nudenet_tools.gateway.settings import Settings

JPEG_START = b"\xff\xd8\xff"


class ConvertersBusy(TimeoutError):
    """No process became free in time."""


class Converters:
    """A pool of `converter` processes, started when they are needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        for _ in range(settings.converters):
            self._free.put_nowait(None)

    async def frames(self, data: bytes, seconds: float) -> list[bytes]:
        """The JPEG of each frame of a picture file; a JPEG stays as it is, Triton decodes it.

        Args:
            data: the file.
            seconds: the time left, waiting for a free process included.

        Raises:
            PictureError: refused, see its message.
            ConvertersBusy: no process became free in time.
            TimeoutError: `seconds` are over.
        """
        if data.startswith(JPEG_START) or not data:
            return [data]
        end = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(end):
                process = await self._free.get()
        except TimeoutError as error:
            raise ConvertersBusy from error
        async with asyncio.timeout_at(end):
            return await self._convert_in(process, data)

    async def _convert_in(self, process: asyncio.subprocess.Process | None, data: bytes) -> list[bytes]:
        """Convert in this process, or in a new one, which then is free."""
        limit = self._settings.conversion_seconds
        try:
            if process is None or process.returncode is not None:
                process = await self._start()
                assert process.stdout is not None
                await process.stdout.readexactly(LENGTH.size)  # it is ready: its start is not the picture's fault
            try:
                async with asyncio.timeout(limit):
                    return await self._convert(process, data)
            except TimeoutError as error:
                raise PictureError(f"decoding it takes more than {limit:g} s") from error
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise PictureError("decoding it ended the process that did it") from error
        except BaseException as error:
            # A refusal leaves the process in order; anything else leaves half an answer in its pipe.
            if not isinstance(error, PictureError) or error.__cause__ is not None:
                await _end(process)
                process = None
            raise
        finally:
            self._free.put_nowait(process)

    async def close(self) -> None:
        """End the processes that are free."""
        while not self._free.empty():
            await _end(self._free.get_nowait())

    async def _start(self) -> asyncio.subprocess.Process:
        paths = [str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "nudenet_tools.gateway.converter",
            str(self._settings.conversion_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    async def _convert(self, process: asyncio.subprocess.Process, data: bytes) -> list[bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        limits = self._settings.limits
        head = json.dumps({"pixels": limits.pixels, "frames": limits.frames}).encode()
        process.stdin.write(LENGTH.pack(len(head)) + head + LENGTH.pack(len(data)))
        process.stdin.write(data)
        await process.stdin.drain()
        (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        answer = json.loads(await process.stdout.readexactly(length))
        if "error" in answer:
            raise PictureError(answer["error"])
        return [await process.stdout.readexactly(size) for size in answer["sizes"]]


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
