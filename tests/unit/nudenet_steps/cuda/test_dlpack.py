"""`dlpack.py`: what is exported is found again, lives as long as it is used, and is refused if it is something else."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from nudenet_steps.cuda import dlpack

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_address_shape_and_type_travel(dtype):
    tensor = dlpack.GpuTensor(dlpack.export(0x7F0000001000, (4, 3, 180, 320), dtype, 0))
    assert (tensor.address, len(tensor)) == (0x7F0000001000, 4)
    assert tensor.shape == (4, 3, 180, 320)
    assert tensor.dtype == dtype


def test_slices_are_views_as_in_numpy():
    pixels = np.zeros((4, 3, 320, 320), np.uint8)
    tensor = dlpack.GpuTensor(dlpack.export(pixels.ctypes.data, pixels.shape, pixels.dtype, 0))
    cut, same = tensor[2:3, 1:, 5:180, 7:320], pixels[2:3, 1:, 5:180, 7:320]
    assert (cut.address, cut.shape, cut.strides, cut.dtype) == (same.ctypes.data, same.shape, same.strides, same.dtype)
    assert tensor.shape == pixels.shape


def test_the_description_lives_until_its_consumer_is_done():
    capsule = dlpack.export(0x1000, (1, 2), np.float32, 3)
    address = _pointer(capsule, b"dltensor")
    managed = dlpack._ManagedTensor.from_address(address)
    assert list(managed.tensor.shape[:2]) == [1, 2]
    assert managed.tensor.device_id == 3
    before = len(dlpack._alive)
    managed.deleter(address)
    assert len(dlpack._alive) == before - 1


@pytest.mark.parametrize("array", [np.zeros(3, np.float32), np.zeros(3, np.int32)], ids=["host memory", "integers"])
def test_other_tensors_are_refused(array):
    with pytest.raises(ValueError, match="not a UINT8 or FP32 tensor in GPU memory"):
        dlpack.GpuTensor(array.__dlpack__())
