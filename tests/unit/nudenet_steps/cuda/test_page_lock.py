"""`page_lock.py`: shared memory is page-locked once, other memory never."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from nudenet_steps.cuda.page_lock import PageLock
from nudenet_steps.cuda.runtime import Checked


class Runtime:
    """`cuda.bindings.runtime` as far as it is asked."""

    cudaHostRegisterDefault = 0

    def __init__(self):
        self.locked, self.status, self.errors_taken = [], 0, 0

    def cudaHostRegister(self, address, size, flags):
        self.locked.append((address, size))
        return (self.status,)

    def cudaGetLastError(self):
        self.errors_taken += 1
        return (self.status,)


@pytest.fixture
def region():
    """A file in /dev/shm of two pages that can grow: returns a new mapping of all of it as an array."""
    path = Path("/dev/shm") / f"nudenet-test-page-lock-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)

    def mapped(size):
        os.ftruncate(descriptor, size)
        return np.frombuffer(mmap.mmap(descriptor, size), np.uint8)

    yield mapped
    os.close(descriptor)
    path.unlink()


def covers(lock, array):
    return lock.covers(array.ctypes.data, array.nbytes)


def test_a_mapping_is_locked_as_a_whole_and_once(region):
    runtime, memory = Runtime(), region(2 * mmap.PAGESIZE)
    lock = PageLock(Checked(runtime))
    assert covers(lock, memory[100:300])
    assert covers(lock, memory[mmap.PAGESIZE :])
    assert covers(lock, memory)
    assert runtime.locked == [(memory.ctypes.data, memory.nbytes)]


def test_a_grown_file_is_locked_where_it_is_mapped_anew(region):
    runtime = Runtime()
    lock = PageLock(Checked(runtime))
    before = region(mmap.PAGESIZE)
    assert covers(lock, before)
    after = region(3 * mmap.PAGESIZE)
    assert covers(lock, after)
    assert covers(lock, before)
    assert runtime.locked == [(array.ctypes.data, array.nbytes) for array in (before, after)]


def test_other_memory_is_left_alone():
    runtime, array = Runtime(), np.zeros(1 << 22, np.uint8)
    assert not covers(PageLock(Checked(runtime)), array)
    assert runtime.locked == []


def test_the_maps_are_not_read_again_for_memory_that_was_refused(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("1000-3000 rw-p 00000000 00:00 0\n3000-5000 rw-p 00000000 00:00 0 [heap]\n")
    lock = PageLock(Checked(Runtime()), maps)
    assert not lock.covers(0x2000, 0x2000)  # from one mapping into the next
    maps.unlink()
    assert not lock.covers(0x2000, 0x2000)


def test_memory_beyond_the_end_is_not_covered(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("1000-3000 rw-s 00000000 00:18 5 /dev/shm/a region\n")
    lock = PageLock(Checked(Runtime()), maps)
    assert not lock.covers(0x2000, 0x1001)
    assert lock.covers(0x2000, 0x1000)


def test_a_refusal_of_the_driver_is_no_error_and_is_taken_back(region):
    runtime, memory = Runtime(), region(mmap.PAGESIZE)
    runtime.status = 2
    lock = PageLock(Checked(runtime))
    assert not covers(lock, memory)
    assert not covers(lock, memory)
    assert (len(runtime.locked), runtime.errors_taken) == (1, 1)
