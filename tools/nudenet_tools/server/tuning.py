"""What is set for one machine instead of standing in a committed file. The figures behind it are in bench/NOTES.md."""

from __future__ import annotations

from container.instances import cores, for_cpu
from container.repository import ConfigError, Tuning
from nudenet_tools.server import mps


def for_config(name: str, precision: str = "", decoder: str = "") -> Tuning:
    """What suits this machine in configuration `name`; configurations that nothing is known of stay as they are.

    Args:
        precision: of the detector; "" is the configuration's own choice.
        decoder: for cuda: cpu or nvjpeg; "" is cpu.

    Raises:
        ConfigError: the configuration has no such choice.
    """
    if name == "cpu" and not decoder:
        return for_cpu(cores(), precision or "auto")
    if name == "cuda":
        return for_cuda(cores(), decoder or "cpu", precision or "FP16", mps.is_running())
    if precision or decoder:
        choice = "--precision" if precision and not decoder else "--decoder"
        raise ConfigError(
            f"configuration {name or 'config.pbtxt'!r} has no {choice}: --precision is for cpu and cuda (a plan has "
            "the precision it was built with), --decoder is for cuda"
        )
    return Tuning()


def for_cuda(cpu_cores: int, decoder: str = "cpu", precision: str = "FP16", shared: bool = False) -> Tuning:
    """The cuda configuration on a host with `cpu_cores` cores and one GPU.

    Args:
        decoder: cpu, or nvjpeg for the GPU's JPEG engine.
        precision: FP16 or FP32.
        shared: processes share the GPU through CUDA MPS; without it they take turns, and fewer are better.
    """
    on_gpu = decoder == "nvjpeg"
    if on_gpu and shared:
        decoders, detectors, postprocessors = 6, 3, cpu_cores // 3
    elif on_gpu:
        decoders, detectors, postprocessors = 3, 2, cpu_cores // 4
    else:
        decoders, detectors, postprocessors = max(2, cpu_cores - 4), 2, cpu_cores // 4
    return Tuning(
        instances={
            "nudenet_preprocess": decoders,
            "nudenet_trt": detectors,
            "nudenet_postprocess": max(1, postprocessors),
        },
        parameters={
            "nudenet_preprocess": {"decoder": decoder},
            "nudenet_trt": {"precision": precision},
        },
    )
