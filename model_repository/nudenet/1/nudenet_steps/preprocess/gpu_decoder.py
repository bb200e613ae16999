"""JPEG decoding on the GPU: NVIDIA's hardware decoder through nvJPEG, then resize and scaling in one kernel.

nvJPEG is called directly: nvImageCodec's decoder reaches a third of its rate on 720p frames (bench/NOTES.md).
The hardware takes baseline files; all others, small ones and those with other colours than sRGB go to the CPU decoder.
It says nothing of damage. So with `strict` it decodes a file only where the CPU's decoder has accepted another one with
the same headers, and what it gives counts only where `gpu_damage` finds the entropy-coded data whole; the CPU's decoder
judges the rest.
No Triton import: usable and testable alone, on a machine with an NVIDIA GPU that has the JPEG engine (A100, H100, ...).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nudenet_steps.cuda import dlpack
from nudenet_steps.cuda.kernels import Kernel, runtime
from nudenet_steps.cuda.runtime import page_locked
from nudenet_steps.preprocess import entropy
from nudenet_steps.preprocess.canvas import LARGEST, Canvas
from nudenet_steps.preprocess.cpu_decoder import CpuDecoder, Picture
from nudenet_steps.preprocess.gpu_damage import MAX_BYTES, MAX_CODINGS, MAX_INTERVALS, DamageCheck

_HARDWARE_BACKEND = 3  # NVJPEG_BACKEND_HARDWARE
_PLANAR_RGB = 3  # NVJPEG_OUTPUT_RGB
_LIBRARIES = ("libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so")
_EOI = b"\xff\xd9"
_MAX_HEADER_BYTES = 16384  # that are remembered, `MAX_CODINGS` times; 600 bytes are usual

# Area average (what INTER_AREA does): each output pixel is the mean of the source rectangle that it covers.
_KERNEL = r"""
struct Source {
  const unsigned char* pixels;
  unsigned char* out;
  int width, height, box_width, box_height, canvas_width, canvas_height;
};

extern "C" __global__ void shrink(const Source* sources) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y, image = blockIdx.z / 3, channel = blockIdx.z % 3;
  Source s = sources[image];
  if (x >= s.canvas_width || y >= s.canvas_height) return;
  float value = 0.f;
  if (x < s.box_width && y < s.box_height) {
    const unsigned char* plane = s.pixels + (size_t)channel * s.width * s.height;
    float scale_x = (float)s.width / s.box_width, scale_y = (float)s.height / s.box_height;
    float left = x * scale_x, right = fminf(left + scale_x, s.width);
    float top = y * scale_y, bottom = fminf(top + scale_y, s.height);
    float total = 0.f, weight = 0.f;
    for (int row = (int)top; row < bottom; ++row) {
      float wy = fminf(row + 1, bottom) - fmaxf(row, top);
      for (int column = (int)left; column < right; ++column) {
        float w = wy * (fminf(column + 1, right) - fmaxf(column, left));
        total += w * plane[(size_t)row * s.width + column];
        weight += w;
      }
    }
    value = total / weight;
  }
  s.out[((size_t)channel * s.canvas_height + y) * s.canvas_width + x] = (unsigned char)(value + 0.5f);
}
"""


class GpuError(RuntimeError):
    """No nvJPEG or JPEG engine, or a call to it failed; the message says what to do."""


@dataclass
class _Headers:
    """What is known of files with the same headers."""

    is_supported: bool  # by the hardware
    slot: int  # of `coding` in `DamageCheck`
    coding: entropy.Coding | None  # None: not to be checked on the GPU
    is_accepted: bool = False  # a file was, by the CPU's decoder


class _Chosen(NamedTuple):
    """A picture that the GPU decodes."""

    number: int  # in the batch
    offset: int  # of its memory, see `GpuDecoder.allocate`
    picture: Picture
    slot: int  # of its coding
    intervals: list[entropy.Interval]


class _Image(ctypes.Structure):
    _fields_ = (("channel", ctypes.c_void_p * 4), ("pitch", ctypes.c_size_t * 4))


class _Source(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("box_width", ctypes.c_int),
        ("box_height", ctypes.c_int),
        ("canvas_width", ctypes.c_int),
        ("canvas_height", ctypes.c_int),
    )


def is_shared(device: int) -> bool:
    """Whether CUDA MPS lets processes work on GPU `device` at the same time, instead of in turns."""
    return bool(runtime.cudaDeviceGetAttribute(runtime.cudaDeviceAttr.cudaDevAttrMpsEnabled, device))


class GpuDecoder:
    """Decodes up to `max_batch` pictures in one go, to UINT8. Output lies in page-locked memory until the next call."""

    def __init__(self, strict: bool, max_batch: int, device: int = 0, stay_on_gpu: bool = False) -> None:
        """Set up decoder, kernel and memory on GPU `device`.

        Args:
            strict: refuse damaged files.
            stay_on_gpu: what the GPU decodes is not copied to host memory; `gpu_tensor` hands it over.

        Raises:
            GpuError: no nvJPEG, or a GPU without the JPEG engine.
            CudaError: no GPU, or out of memory.
        """
        self._max_batch, self._device, self._stays_on_gpu = max_batch, device, stay_on_gpu
        self._on_gpu: frozenset[int] = frozenset()  # offsets of the pictures that the GPU has filled
        self._cpu = CpuDecoder(strict)
        runtime.cudaSetDevice(device)
        runtime.cudaFree(0)  # creates the context
        self._stream = runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)
        self._kernel = Kernel(_KERNEL, "shrink", device)
        self._damage = DamageCheck(device) if strict else None
        # Host and GPU memory of one layout: a picture lies at the same offset in both.
        self._host = page_locked(runtime, (max_batch * 3 * LARGEST.area,), np.uint8)
        self._result = runtime.cudaMalloc(self._host.nbytes)
        self._used = 0
        self._device_sources = runtime.cudaMalloc(max_batch * ctypes.sizeof(_Source))
        self._arena, self._arena_bytes = 0, 0
        self._headers: dict[bytes, _Headers] = {}  # see `entropy.headers`
        self._layout: tuple = ()
        self._images: Any = None
        self._open_nvjpeg()

    def _open_nvjpeg(self) -> None:
        for name in _LIBRARIES:
            try:
                self._library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise GpuError("libnvjpeg is not installed: pip install nvidia-nvjpeg, or set decoder to cpu")
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        self._parsed, self._params = ctypes.c_void_p(), ctypes.c_void_p()
        library = self._library
        if library.nvjpegCreateEx(_HARDWARE_BACKEND, None, None, 0, ctypes.byref(self._handle)):
            raise GpuError("this GPU has no JPEG engine (A100, H100 and newer have); set decoder to cpu")
        self._nvjpeg("nvjpegJpegStateCreate", self._handle, ctypes.byref(self._state))
        self._nvjpeg("nvjpegJpegStreamCreate", self._handle, ctypes.byref(self._parsed))
        self._nvjpeg("nvjpegDecodeParamsCreate", self._handle, ctypes.byref(self._params))
        self._nvjpeg("nvjpegDecodeParamsSetOutputFormat", self._params, _PLANAR_RGB)
        self._initialized_for = 0

    def _nvjpeg(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise GpuError(f"{name} failed with status {status}")

    def allocate(self, count: int, canvas: Canvas) -> np.ndarray:
        """Memory for `count` pictures, UINT8: the next `decode` fills it, the one after may write over it."""
        size = count * 3 * canvas.area
        if self._used + size > len(self._host):
            return self._cpu.allocate(count, canvas)
        self._used += size
        return self._host[self._used - size : self._used].reshape(count, 3, *canvas)

    def _is_suitable(self, picture: Picture) -> bool:
        """Whether the hardware may decode this file as the CPU decoder would, as far as `jpeg.Header` tells."""
        header, box = picture.header, picture.box
        if header.scans != 1 or header.orientation != 1 or header.colorspace != "YCbCr":
            return False
        if header.edits or header.colours is not None:  # `colours` are changed after decoding
            return False
        # The CPU samples bilinearly up to twofold. Files whose end is missing or followed by something are its, too.
        is_reduced = 2 * box.width <= header.width and 2 * box.height <= header.height
        return is_reduced and picture.data[-2:] == _EOI

    def _look_up(self, pictures: Sequence[Picture]) -> dict[int, _Headers]:
        """What is known of the headers of suitable pictures, by index: a camera sends the same ones again and again."""
        found = {}
        for i, picture in enumerate(pictures):
            headers = entropy.headers(picture.header.head) if self._is_suitable(picture) else None
            if headers is not None and len(headers) <= _MAX_HEADER_BYTES:
                found[i] = headers
        for i, headers in found.items():
            known = self._headers.pop(headers, None) or self._read(pictures[i])
            self._headers[headers] = known  # the one that was asked for last comes last
        return {i: self._headers[headers] for i, headers in found.items()}

    def _read(self, picture: Picture) -> _Headers:
        """What headers say that are new; those that nobody has asked for longest are forgotten for them."""
        slot = len(self._headers)
        if slot >= MAX_CODINGS:
            slot = self._headers.pop(next(iter(self._headers))).slot
        coding = entropy.read(picture.header.head) if self._damage else None
        if self._damage and coding:
            self._damage.keep(slot, coding)
        return _Headers(self._is_supported(picture.data), slot, coding)

    def _is_supported(self, data: bytes) -> bool:
        """Whether nvJPEG says that the hardware takes this file."""
        supported = ctypes.c_int(1)
        library = self._library
        return (
            library.nvjpegJpegStreamParseHeader(self._handle, data, ctypes.c_size_t(len(data)), self._parsed) == 0
            and library.nvjpegDecodeBatchedSupportedEx(
                self._handle, self._parsed, self._params, ctypes.byref(supported)
            )
            == 0
            and supported.value == 0
        )

    def decode(self, pictures: Sequence[Picture]) -> None:
        """Fill ``out`` of every picture, or set its ``error``; one bad picture does not touch the others."""
        used, self._used = self._used, 0
        known = self._look_up(pictures)
        chosen: list[_Chosen] = []
        for i, headers in known.items():
            offset = self._offset(pictures[i].out)
            if not headers.is_supported or offset is None or len(chosen) == self._max_batch:
                continue
            intervals = self._intervals(pictures[i], headers)
            if intervals is not None:
                chosen.append(_Chosen(i, offset, pictures[i], headers.slot, intervals))
        decoded = self._decode_on_gpu(chosen, used) if chosen else []
        self._on_gpu = frozenset(one.offset for one in decoded)
        done = {one.number for one in decoded}
        rest = [i for i in range(len(pictures)) if i not in done]
        self._cpu.decode([pictures[i] for i in rest])
        for i in rest:
            if i in known and pictures[i].error is None:
                known[i].is_accepted = True

    def _intervals(self, picture: Picture, headers: _Headers) -> list[entropy.Interval] | None:
        """What `DamageCheck` looks at, nothing where damage is accepted; None: the CPU has to decode this file."""
        if self._damage is None:
            return []
        if headers.coding is None or not headers.is_accepted or len(picture.data) > MAX_BYTES:
            return None
        intervals = entropy.intervals(picture.data, len(picture.header.head), headers.coding)
        return intervals if intervals and len(intervals) <= MAX_INTERVALS // self._max_batch else None

    @property
    def decoded(self) -> int:
        """How many pictures of the last batch the GPU has decoded."""
        return len(self._on_gpu)

    def gpu_tensor(self, tensor: np.ndarray) -> Any:
        """DLPack capsule of the GPU memory behind what `allocate` returned, complete, valid until the next `decode`.

        None where there is none: without `stay_on_gpu`, or where more was allocated than fits.
        """
        first = self._offset(tensor)
        if not self._stays_on_gpu or first is None:
            return None
        address = int(self._result) + first
        to_device = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        for i, picture in enumerate(tensor):  # what the CPU decoded, or nobody
            if first + i * picture.nbytes not in self._on_gpu:
                runtime.cudaMemcpy(address + i * picture.nbytes, picture.ctypes.data, picture.nbytes, to_device)
        return dlpack.export(address, tensor.shape, np.uint8, self._device)

    def _offset(self, array: np.ndarray) -> int | None:
        """Where in the page-locked memory `array` begins; None where it lies elsewhere."""
        offset = array.ctypes.data - self._host.ctypes.data
        return offset if 0 <= offset < self._host.nbytes else None

    def _decode_on_gpu(self, chosen: list[_Chosen], used: int) -> list[_Chosen]:
        """Decode and shrink pictures in `used` bytes of memory; returns those that hold."""
        count = len(chosen)
        layout = tuple(
            (
                one.offset,
                one.picture.header.width,
                one.picture.header.height,
                one.picture.box.width,
                one.picture.box.height,
                *one.picture.out.shape[:0:-1],
            )
            for one in chosen
        )
        if layout != self._layout[:count]:  # cameras send the same sizes again and again
            self._lay_out(layout)
        if count != self._initialized_for:
            self._nvjpeg("nvjpegDecodeBatchedInitialize", self._handle, self._state, count, 1, _PLANAR_RGB)
            self._initialized_for = count
        # A picture that the engine would not write must not be the one before.
        size = sum(3 * one.picture.header.width * one.picture.header.height for one in chosen)
        runtime.cudaMemsetAsync(self._arena, 0, size, self._stream)
        if self._damage:
            self._damage.start([(one.picture.data, one.intervals, one.slot) for one in chosen])
        status = self._library.nvjpegDecodeBatched(
            self._handle,
            self._state,
            (ctypes.c_char_p * count)(*(one.picture.data for one in chosen)),
            (ctypes.c_size_t * count)(*(len(one.picture.data) for one in chosen)),
            self._images,
            ctypes.c_void_p(int(self._stream)),
        )
        if status:
            self._initialized_for = 0
            runtime.cudaStreamSynchronize(self._stream)
        else:
            self._shrink(count, used)
        doubted = self._damage.doubted() if self._damage else set()
        return [] if status else [one for i, one in enumerate(chosen) if i not in doubted]

    def _lay_out(self, layout: tuple) -> None:
        """Tell decoder and kernel where pictures of these offsets and sizes lie."""
        self._layout = ()
        self._reserve(sum(width * height * 3 for _, width, height, *_ in layout))
        self._images, sources = (_Image * len(layout))(), (_Source * self._max_batch)()
        address = self._arena
        for i, (image, (offset, width, height, *sizes)) in enumerate(zip(self._images, layout, strict=True)):
            for channel in range(3):
                image.channel[channel] = address + channel * width * height
                image.pitch[channel] = width
            sources[i] = _Source(address, int(self._result) + offset, width, height, *sizes)
            address += width * height * 3
        to_device = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        runtime.cudaMemcpy(self._device_sources, ctypes.addressof(sources), ctypes.sizeof(sources), to_device)
        self._layout = layout

    def _shrink(self, count: int, used: int) -> None:
        """Area average of the first `count` pictures of the layout; waits until it is there."""
        blocks = (-(-LARGEST.width // 128), LARGEST.height, 3 * count)
        self._kernel(self._stream, blocks, 128, int(self._device_sources))
        if not self._stays_on_gpu:
            to_host = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            runtime.cudaMemcpyAsync(self._host.ctypes.data, self._result, used, to_host, self._stream)
        runtime.cudaStreamSynchronize(self._stream)

    def _reserve(self, size: int) -> None:
        """Grow the memory for decoded pictures; it never shrinks, limits on pixels bound it."""
        if size > self._arena_bytes:
            arena, self._arena, self._arena_bytes = self._arena, 0, 0
            if arena:
                runtime.cudaFree(arena)
            self._arena, self._arena_bytes = int(runtime.cudaMalloc(size)), size
