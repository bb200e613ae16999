"""ONNX Runtime where a process may use some of a machine's cores only, as under `taskset`."""

from __future__ import annotations

import functools
import os

import onnxruntime


def confine() -> None:
    """Make NudeDetector's sessions keep to the cores that this process may use, a thread on each.

    Others must be given no options of their own from then on.

    By itself ONNX Runtime starts a thread for each core of the machine and pins it there. Where all cores may be used,
    nothing changes.
    """
    allowed = len(os.sched_getaffinity(0))
    if allowed == os.cpu_count():
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = allowed
    onnxruntime.InferenceSession = functools.partial(onnxruntime.InferenceSession, sess_options=options)
