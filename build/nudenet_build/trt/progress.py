"""TensorRT's build progress on the terminal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from rich.progress import Progress, TaskID


class BuildProgress:
    """One bar for each phase that TensorRT is in; phases nest and may come from several threads."""

    def __init__(self, progress: Progress) -> None:
        self.cancelled = False
        self._progress = progress
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._depths: dict[str, int] = {}

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins inside `parent`."""
        with self._lock:
            depth = self._depths.get(parent, -1) + 1 if parent else 0
            self._depths[phase] = depth
            self._tasks[phase] = self._progress.add_task("  " * depth + phase, total=steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step` (from 0) is done. Returns False to cancel the build."""
        with self._lock:
            if phase in self._tasks:
                self._progress.update(self._tasks[phase], completed=step + 1)
        return not self.cancelled

    def finish(self, phase: str) -> None:
        """A phase is over; nested ones disappear from the terminal, the outermost stays as a line."""
        with self._lock:
            task = self._tasks.pop(phase, None)
            if task is None:
                return
            if self._depths.pop(phase):
                self._progress.remove_task(task)
            else:
                self._progress.update(task, completed=self._progress.tasks[self._progress.task_ids.index(task)].total)


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """An ``IProgressMonitor`` of `trt` that reports to `progress`. Keep it until the build is over."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

    return Monitor()


@contextlib.contextmanager
def cancel_on_interrupt(progress: BuildProgress) -> Iterator[None]:
    """Make Ctrl-C end the build at its next step: an exception may not pass through TensorRT's own code."""

    def cancel(*_: Any) -> None:
        progress.cancelled = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
