"""`gpu_decoder.py`: which files the JPEG engine gets, and whose word counts. The GPU's memory is host memory here, its
kernels are Python, and its JPEG engine makes every picture grey."""

from __future__ import annotations

import ctypes

import cv2
import numpy as np
import pytest

from helpers.cuda_on_host import CudaOnHost, array_at
from helpers.entropy_reader import is_whole
from helpers.hostile import EOI, encode, photo, scan_start, segment
from nudenet_steps.cuda.runtime import Checked, CudaError
from nudenet_steps.preprocess import cpu_decoder, entropy, gpu_damage, gpu_decoder, jpeg

GREY = 77
LIMITS = jpeg.Limits()


class Kernel:
    def __init__(self, source, name, device):
        self._name = name

    def __call__(self, stream, blocks, threads, *addresses):
        run = self._check if self._name == "check" else self._shrink
        run(blocks, *addresses)

    def _check(self, blocks, table, result):
        whole = array_at(result, (blocks[0],), np.int32)
        for i, row in enumerate(array_at(table, (blocks[0],), gpu_damage._INTERVAL)):
            assert row["plain"] % 4 == 0
            data = ctypes.string_at(int(row["data"]), int(row["size"]))
            array_at(int(row["plain"]), (len(data) + 16,), np.uint8)[:] = 255  # its own memory
            whole[i] = is_whole(data, array_at(int(row["coding"]), (1,), entropy.CODING)[0], int(row["blocks"]))

    def _shrink(self, blocks, table):
        for source in (gpu_decoder._Source * (blocks[2] // 3)).from_address(table):
            array_at(source.out, (3, source.canvas_height, source.canvas_width), np.uint8)[:] = GREY


class Library:
    status = 0

    def nvjpegDecodeBatchedSupportedEx(self, handle, parsed, params, supported):
        supported._obj.value = 0
        return 0

    def nvjpegDecodeBatched(self, handle, state, files, *others):
        return self.status

    def __getattr__(self, name):
        return lambda *arguments: 0


@pytest.fixture
def cuda():
    return CudaOnHost()


@pytest.fixture
def library(monkeypatch, cuda):
    found = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    runtime = Checked(cuda)
    for module in (gpu_decoder, gpu_damage):
        monkeypatch.setattr(module, "runtime", runtime)
        monkeypatch.setattr(module, "Kernel", Kernel)
    return found


@pytest.fixture
def decoder(library):
    return gpu_decoder.GpuDecoder(True, 4)


def picture(shade: int = 0, *options: int) -> bytes:
    pixels = np.asarray(photo(640, 360)).copy()
    pixels[::7] ^= shade
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3] + EOI


def decode(decoder, *files: bytes) -> list[str]:
    """For each file: gpu, cpu, or why it is refused."""
    tensor, pictures = cpu_decoder.lay_out(files, LIMITS, decoder)
    assert all(isinstance(one, cpu_decoder.Picture) for one in pictures)
    decoder.decode(pictures)
    return [
        one.error.reason if one.error else "gpu" if (pixels == GREY).all() else "cpu"
        for one, pixels in zip(pictures, tensor, strict=True)
    ]


def test_the_cpu_vouches_for_the_headers_first(decoder):
    assert decode(decoder, picture(1)) == ["cpu"]
    assert decoder.decoded == 0
    assert decode(decoder, picture(2), picture(3)) == ["gpu", "gpu"]
    assert decoder.decoded == 2
    assert decode(decoder, picture(2, cv2.IMWRITE_JPEG_QUALITY, 80)) == ["cpu"]  # other headers


def test_files_whose_headers_the_cpu_refused_stay_with_it(decoder):
    assert decode(decoder, cut(picture(1))) == ["damaged"]
    assert decode(decoder, picture(2)) == ["cpu"]
    assert decode(decoder, picture(2)) == ["gpu"]


def test_damage_is_found_and_its_neighbours_are_not_touched(decoder):
    decode(decoder, picture())
    assert decode(decoder, picture(1), cut(picture(2)), picture(3)) == ["gpu", "damaged", "gpu"]
    data = picture(4)
    start = scan_start(data)
    marker = data[: start + 900] + b"\xff\xd0" + data[start + 902 :]
    assert decode(decoder, marker, picture(5)) == ["damaged", "gpu"]
    assert decode(decoder, *[cut(picture(6))] * 2) == ["damaged", "damaged"]


def test_what_the_gpu_only_doubts_is_decoded_by_the_cpu(decoder, monkeypatch):
    decode(decoder, picture())
    monkeypatch.setattr(decoder._damage, "doubted", lambda: {0})
    assert decode(decoder, picture(1), picture(2)) == ["cpu", "gpu"]


def test_restart_intervals_are_checked_one_by_one(decoder):
    data = picture(9, cv2.IMWRITE_JPEG_RST_INTERVAL, 40)
    assert [decode(decoder, data) for _ in range(2)] == [["cpu"], ["gpu"]]
    second = data.index(b"\xff\xd1", scan_start(data))
    assert decode(decoder, data[: second - 30] + data[second:], data) == ["damaged", "gpu"]
    assert decode(decoder, data[: second + 1] + b"\xd2" + data[second + 2 :]) == ["damaged"]


@pytest.mark.parametrize(
    "data",
    [
        encode(photo(640, 360), progressive=True),
        encode(photo(640, 360, "L")),
        picture() + b"something",
        picture()[:2] + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0") + picture()[2:],
        encode(photo(100, 60)),
    ],
    ids=["progressive", "grey", "bytes after the end", "turned", "small"],
)
def test_other_files_stay_with_the_cpu(decoder, data):
    for _ in range(2):
        assert decode(decoder, data)[0] in ("cpu", "damaged")


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_INTERVALS"])
def test_what_would_take_long_to_check_stays_with_the_cpu(decoder, monkeypatch, limit):
    data = picture(1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)  # 920 intervals
    assert [decode(decoder, data) for _ in range(2)] == [["cpu"], ["gpu"]]
    monkeypatch.setattr(gpu_decoder, limit, 3000)
    assert decode(decoder, data) == ["cpu"]


def test_more_headers_than_are_remembered(decoder, monkeypatch):
    monkeypatch.setattr(gpu_decoder, "MAX_CODINGS", 3)
    camera = picture(1)
    decode(decoder, camera)
    for quality in (70, 75, 80, 85, 90):  # what is not asked for is forgotten first
        data = picture(1, cv2.IMWRITE_JPEG_QUALITY, quality)
        assert [decode(decoder, data) for _ in range(2)] == [["cpu"], ["gpu"]]
        assert decode(decoder, cut(data), camera) == ["damaged", "gpu"]
    assert decode(decoder, picture(1, cv2.IMWRITE_JPEG_QUALITY, 70)) == ["cpu"]
    assert sorted(headers.slot for headers in decoder._headers.values()) == [0, 1, 2]


def test_no_memory_for_a_large_file_hurts_that_batch_only(decoder, cuda):
    for _ in range(2):
        decode(decoder, picture())
    large = [picture(85, cv2.IMWRITE_JPEG_QUALITY, 95)] * 4
    decode(decoder, large[0])
    cuda.is_full = True
    with pytest.raises(CudaError):
        decode(decoder, *large)
    cuda.is_full = False
    assert decode(decoder, picture(1)) == ["gpu"]
    assert decode(decoder, *large) == ["gpu"] * 4


def test_a_batch_that_the_engine_refuses_is_decoded_by_the_cpu(decoder, library):
    decode(decoder, picture())
    library.status = 6
    assert decode(decoder, picture(1), cut(picture(2))) == ["cpu", "damaged"]
    library.status = 0
    assert decode(decoder, picture(1)) == ["gpu"]


def test_without_strict_damage_is_not_looked_for(library):
    decoder = gpu_decoder.GpuDecoder(False, 4)
    assert decode(decoder, picture(1), cut(picture(2))) == ["gpu", "gpu"]


def test_memory_for_files_grows(decoder):
    decode(decoder, picture())
    large = picture(85, cv2.IMWRITE_JPEG_QUALITY, 95)
    assert len(large) > 3 * len(picture())
    for _ in range(2):
        decode(decoder, large)
    assert decode(decoder, *[large] * 4) == ["gpu"] * 4
