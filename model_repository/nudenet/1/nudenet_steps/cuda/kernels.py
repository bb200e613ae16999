"""Kernels compiled when they are needed, by NVIDIA's run-time compiler. No Triton import."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda.bindings import driver as _driver
from cuda.bindings import nvrtc as _nvrtc
from cuda.bindings import runtime as _runtime

from nudenet_steps.cuda.runtime import Checked

driver, nvrtc, runtime = Checked(_driver), Checked(_nvrtc), Checked(_runtime)


class Kernel:
    """One function of `source`, on GPU `device`, whose context must exist."""

    def __init__(self, source: str, name: str, device: int) -> None:
        attributes = runtime.cudaDeviceAttr
        major = runtime.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMajor, device)
        minor = runtime.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMinor, device)
        program = nvrtc.nvrtcCreateProgram(source.encode(), f"{name}.cu".encode(), 0, [], [])
        options = [f"--gpu-architecture=sm_{major}{minor}".encode()]
        nvrtc.nvrtcCompileProgram(program, len(options), options)
        binary = b" " * nvrtc.nvrtcGetCUBINSize(program)
        nvrtc.nvrtcGetCUBIN(program, binary)
        self._module = driver.cuModuleLoadData(np.char.array(binary))
        self._function = driver.cuModuleGetFunction(self._module, name.encode())

    def __call__(self, stream: Any, blocks: tuple[int, int, int], threads: int, *addresses: int) -> None:
        """Start it on `stream` with `blocks` of `threads` and pointers as arguments."""
        arguments = (addresses, (ctypes.c_void_p,) * len(addresses))
        driver.cuLaunchKernel(self._function, *blocks, threads, 1, 1, 0, int(stream), arguments, 0)
