"""What tritonserver prints, for the person who has to act on it."""

from __future__ import annotations

# What Triton prints, and what it means for the person at the terminal.
EXPLANATIONS = (
    ("Version tag does not match", "model.plan was built by another TensorRT; rebuild it for this server: make plan"),
    ("unable to load plan file", "model.plan was built by another TensorRT; rebuild it for this server: make plan"),
    ("backend library 'tensorrt' not found", "this tritonserver has no TensorRT backend; use --config-name cpu"),
    (
        "unable to find backend library for backend 'tensorrt'",
        "this tritonserver has no TensorRT backend; use --config-name cpu",
    ),
    ("No space left on device", "/dev/shm is full; in a container raise it with --shm-size=1g"),
)

# Printed on every machine without a GPU, where they mean nothing.
NO_GPU_NOISE = (
    "CUDA driver version is insufficient",
    "CudaDriverHelper has not been initialized",
    "Failed to initialize NVML",
    "DCGM unable to start",
)


def diagnosis(lines: list[str]) -> str:
    """Why the server did not start: what to do where that is known, else its last errors."""
    for sign, meaning in EXPLANATIONS:
        if any(sign in line for line in lines):
            return meaning
    errors = [line for line in lines if line.startswith(("E", "error:")) and not any(n in line for n in NO_GPU_NOISE)]
    return "\n" + "\n".join(errors[-12:] or lines[:5])
