"""The kernel of `gpu_damage` as C++: its very source, with a thread of the operating system for each of the GPU's."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from nudenet_steps.preprocess import entropy, gpu_damage

THREADS = 64  # instead of 512: as many as the operating system wakes quickly
_CUDA = r"""
#include <barrier>
#include <cstdlib>
#include <thread>
#include <type_traits>
#include <vector>

#define __device__ static
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;
static std::barrier<> everybody(%d);
static int said[%d];

template <class A, class B> std::common_type_t<A, B> min(A a, B b) { return a < b ? a : b; }
template <class A, class B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
static unsigned __byte_perm(unsigned word, unsigned, unsigned) { return __builtin_bswap32(word); }
static unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return by ? high << by | low >> (32 - by) : high;
}
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
static void __syncthreads() { everybody.arrive_and_wait(); }
static bool __syncthreads_or(bool value) {
  said[threadIdx.x] = value;
  __syncthreads();
  bool any = false;
  for (int one : said) any |= one;
  __syncthreads();
  return any;
}
static unsigned __ballot_sync(unsigned, bool value) {
  said[threadIdx.x] = value;
  __syncthreads();
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (unsigned)said[threadIdx.x / 32 * 32 + i] << i;
  __syncthreads();
  return bits;
}
"""
_RUN = r"""
extern "C" void run(const Interval* intervals, int* whole, unsigned count) {
  for (unsigned block = 0; block < count; ++block) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < %d; ++i)
      threads.emplace_back([=] { threadIdx = {i}; blockIdx = {block}; check(intervals, whole); });
    for (auto& thread : threads) thread.join();
  }
}
"""


def build(folder: Path) -> ctypes.CDLL:
    """Compile the kernel with g++."""
    kernel = gpu_damage._KERNEL.replace(f"#define THREADS {gpu_damage._THREADS}", f"#define THREADS {THREADS}")
    assert kernel != gpu_damage._KERNEL
    source, library = folder / "kernel.cpp", folder / "kernel.so"
    source.write_text(_CUDA % (THREADS, THREADS) + kernel + _RUN % THREADS)
    command = ["g++", "-std=c++20", "-O1", "-w", "-pthread", "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def is_whole(kernel: ctypes.CDLL, data: bytes, coding: entropy.Coding, intervals: list[entropy.Interval]) -> bool:
    """What the kernel says of a file."""
    table = np.zeros(len(intervals), gpu_damage._INTERVAL)
    whole = np.full(len(intervals), -1, np.int32)
    content = np.frombuffer(data, np.uint8)
    plain = [np.full((end - start) // 16 * 16 + 48, 0xEE, np.uint8) for start, end, _ in intervals]
    for row, (start, end, blocks), room in zip(table, intervals, plain, strict=True):
        addresses = (content.ctypes.data + start, room.ctypes.data, coding.tables.ctypes.data)
        row["data"], row["plain"], row["coding"] = addresses
        row["size"], row["blocks"] = end - start, blocks
    kernel.run(ctypes.c_void_p(table.ctypes.data), ctypes.c_void_p(whole.ctypes.data), len(intervals))
    for (start, end, _), room in zip(intervals, plain, strict=True):
        assert (room[end - start + gpu_damage._PADDING :] == 0xEE).all()  # it keeps to its memory
    assert set(whole.tolist()) <= {0, 1}
    return bool(whole.all())
