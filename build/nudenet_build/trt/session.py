"""TensorRT as a module: find it, listen to it, and turn its log into an error with a remedy."""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

OLDEST = (10, 3)  # the first release with everything used here; 11 removed what came before it

INSTALL = (
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


def load() -> ModuleType:
    """The TensorRT module: ``tensorrt``, or ``tensorrt_bindings`` where only the bindings were installed.

    Raises:
        TensorRTMissing: neither can be imported, or it is older than 10.3.
    """
    reasons = []
    for name in ("tensorrt", "tensorrt_bindings"):
        try:
            trt = importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
        if numbers < OLDEST:
            raise TensorRTMissing(
                f"TensorRT {trt.__version__} is too old, {'.'.join(map(str, OLDEST))} or newer is needed. {INSTALL}"
            )
        return trt
    # The first reason is the useful one unless it only says that there is no such module.
    reason = next((reason for reason in reasons if not reason.startswith("No module named")), reasons[0])
    raise TensorRTMissing(f"TensorRT is not installed here ({reason}). {INSTALL}")


class Log:
    """What TensorRT said: warnings and errors of one build or run, newest last, bounded."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self.messages: deque[str] = deque(maxlen=200)
        self.errors: deque[str] = deque(maxlen=50)
        self._echo = echo

    def add(self, is_error: bool, message: str) -> None:
        """Keep one message."""
        self.messages.append(message)
        if is_error:
            self.errors.append(message)
        if self._echo is not None:
            self._echo(message)

    def out_of_memory(self) -> bool:
        """Whether the GPU ran out of memory at some point. TensorRT may still have found another way."""
        return any(_OUT_OF_MEMORY.search(message) for message in self.messages)

    def no_implementation(self) -> bool:
        """Whether no kernel for a layer fitted into the workspace."""
        return any(_NO_IMPLEMENTATION.search(message) for message in self.messages)

    def last_errors(self, count: int = 3) -> str:
        """The last errors in one line each, or a hint that there were none."""
        return "\n".join(f"  {error}" for error in list(self.errors)[-count:]) or "  (TensorRT gave no reason)"


def make_logger(trt: Any, log: Log) -> Any:
    """An ``ILogger`` of `trt` that writes warnings and errors into `log`. Keep it as long as what was made with it."""
    loud = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)
    quiet = (trt.ILogger.Severity.INFO, trt.ILogger.Severity.VERBOSE)

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity not in quiet:
                log.add(severity in loud, msg)

    return Logger()
