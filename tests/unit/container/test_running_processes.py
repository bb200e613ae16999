"""The list of processes, read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys

from container.running_processes import command_lines


def test_own_command_line_is_found():
    assert "python" in command_lines()[os.getpid()]


def test_a_session_holds_only_its_own_processes():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()', 'x y'])"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child of the child runs
        found = command_lines(session=process.pid)
        process.communicate(b"\n")
    assert len(found) == 2
    assert process.pid in found
    assert any(line.endswith("input() x y") for line in found.values())
    assert command_lines(session=process.pid) == {}
