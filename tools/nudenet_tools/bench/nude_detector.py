"""NudeDetector as users have it, also where a process may use some of a machine's cores only, as under `taskset`."""

from __future__ import annotations

import functools
import os
from unittest import mock

import onnxruntime
from nudenet import NudeDetector


def nude_detector() -> NudeDetector:
    """NudeDetector on the cores that this process may use, a thread on each.

    By itself ONNX Runtime starts a thread for each core of the machine and pins it there. Where all cores may be used,
    that is left to it.
    """
    allowed = len(os.sched_getaffinity(0))
    if allowed == os.cpu_count():
        return NudeDetector()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = allowed
    confined = functools.partial(onnxruntime.InferenceSession, sess_options=options)
    with mock.patch.object(onnxruntime, "InferenceSession", confined):  # NudeDetector takes no options
        return NudeDetector()
