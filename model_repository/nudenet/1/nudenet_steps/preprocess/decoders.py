"""Which decoder a configuration asks for; the GPU's is imported only there. No Triton import."""

from __future__ import annotations

import numpy as np

from nudenet_steps.preprocess.cpu_decoder import CpuDecoder, Decoder


def make(name: str, strict: bool, max_batch: int, dtype: type, device: int) -> Decoder:
    """The decoder behind the parameter `decoder`.

    Args:
        name: cpu or nvjpeg.
        strict: refuse damaged files.
        max_batch: pictures in one request at most.
        dtype: of the model input, UINT8 or FP32.
        device: the GPU, for nvjpeg.

    Raises:
        ValueError: nvjpeg cannot do what else is asked for.
    """
    if name == "cpu":
        return CpuDecoder(strict, max_batch, dtype)
    if dtype != np.uint8:
        raise ValueError("decoder nvjpeg writes UINT8: the output must be 'pixels'; or set decoder to cpu")
    from nudenet_steps.preprocess.gpu_decoder import GpuDecoder, is_shared

    # In turns, processes wait for each other when a tensor goes from one to the other on the GPU.
    return GpuDecoder(strict, max_batch, device, is_shared(device))
