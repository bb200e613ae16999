"""The code of all three Python steps: one package, one import name."""

import os

# Releases of ONNX Runtime (1.32 is one) send telemetry out of a thread of their own, and keep a device id below
# ~/.cache/Microsoft. They read this when they are imported, so it stands before every engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
