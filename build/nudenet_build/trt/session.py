"""TensorRT or TensorRT for RTX as a module: find it, listen to it, and turn its log into an error with a remedy."""

from __future__ import annotations

import enum
import importlib
import re
from collections import deque
from types import ModuleType

from nudenet_steps.cuda.execution import Level

OLDEST = (10, 3)  # of TensorRT: the first release with everything used here; 11 removed what came before it


class Runtime(enum.StrEnum):
    """Which library compiles, and runs what was compiled."""

    TENSORRT = "tensorrt"
    RTX = "rtx"

    @property
    def full_name(self) -> str:
        """In messages."""
        return "TensorRT" if self is Runtime.TENSORRT else "TensorRT for RTX"

    @property
    def modules(self) -> tuple[str, ...]:
        """Names to import: the bindings alone are enough beside the libraries, as in a Triton image."""
        name = "tensorrt" if self is Runtime.TENSORRT else "tensorrt_rtx"
        return name, f"{name}_bindings"

    @property
    def install(self) -> str:
        """How to get it."""
        if self is Runtime.RTX:
            return "Install it: pip install -r requirements/rtx.txt"
        return (
            "Install it beside an NVIDIA driver: pip install tensorrt-cu13 (or tensorrt-cu12), together with "
            "-r requirements/tensorrt.txt; or build the plan inside Triton's own image, which has it: make plan"
        )


# "Could not find any implementation" alone means that the workspace is too small; after one of these, too large.
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|could not be allocated|insufficient memory|error allocating", re.I)
_NO_IMPLEMENTATION = re.compile(r"could not find any implementation", re.I)


class TensorRTError(RuntimeError):
    """TensorRT could not do what was asked; the message ends with the remedy."""


class TensorRTMissing(TensorRTError):
    """TensorRT, or what it needs to start, is not installed here."""


def load(runtime: Runtime) -> ModuleType:
    """The module of `runtime`.

    Raises:
        TensorRTMissing: it cannot be imported, or it is TensorRT before 10.3.
    """
    reasons = []
    for name in runtime.modules:
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            reasons.append(str(error))
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
        if runtime is Runtime.TENSORRT and numbers < OLDEST:
            raise TensorRTMissing(
                f"TensorRT {trt.__version__} is too old, {'.'.join(map(str, OLDEST))} or newer is needed. "
                f"{runtime.install}"
            )
        return trt
    # The first reason is the useful one unless it only says that there is no such module.
    reason = next((reason for reason in reasons if not reason.startswith("No module named")), reasons[0])
    raise TensorRTMissing(f"{runtime.full_name} is not installed here ({reason}). {runtime.install}")


def load_installed(runtime: Runtime | None) -> tuple[Runtime, ModuleType]:
    """`runtime` and its module; None takes TensorRT where it is installed, else TensorRT for RTX.

    Raises:
        TensorRTMissing: it cannot be imported; for None, neither can.
    """
    if runtime is not None:
        return runtime, load(runtime)
    try:
        return Runtime.TENSORRT, load(Runtime.TENSORRT)
    except TensorRTMissing as missing:
        try:
            return Runtime.RTX, load(Runtime.RTX)
        except TensorRTMissing as other:
            raise TensorRTMissing(f"{missing}. For --runtime rtx: {other}") from other


class Log:
    """What TensorRT said: warnings and errors of one build or run, newest last, bounded; and its list of layers."""

    def __init__(self) -> None:
        self.messages: deque[str] = deque(maxlen=200)
        self.errors: deque[str] = deque(maxlen=50)
        self.layers = ""  # the engine's layers as the builder prints them with detailed verbosity

    def hear(self, level: Level, message: str) -> None:
        """Keep a warning, an error or the list of layers."""
        if level is Level.DETAIL:
            if ", LayerType: " in message:
                self.layers = message
            return
        self.messages.append(message)
        if level is Level.ERROR:
            self.errors.append(message)

    def out_of_memory(self) -> bool:
        """Whether the GPU ran out of memory at some point. TensorRT may still have found another way."""
        return any(_OUT_OF_MEMORY.search(message) for message in self.messages)

    def no_implementation(self) -> bool:
        """Whether no kernel for a layer fitted into the workspace."""
        return any(_NO_IMPLEMENTATION.search(message) for message in self.messages)

    def last_errors(self, count: int = 3) -> str:
        """The last errors in one line each, or a hint that there were none."""
        return "\n".join(f"  {error}" for error in list(self.errors)[-count:]) or "  (TensorRT gave no reason)"
