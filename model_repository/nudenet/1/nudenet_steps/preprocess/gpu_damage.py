"""Whether entropy-coded data of JPEG files is whole, checked on the GPU, whose JPEG engine does not tell.

libjpeg-turbo notices damage because it runs out of data, has some left, or meets a code that is none. The kernel reads
the same codes without decoding pixels. It also looks for coefficients that no picture of eight bits has: libjpeg-turbo
computes them modulo 65536, and the engine need not. What it doubts is for the CPU's decoder to judge; so it may doubt
too much, but must not doubt too little. docs/gpu.md has what it was tried on.
No Triton import.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nudenet_steps.cuda.kernels import Kernel, runtime
from nudenet_steps.cuda.runtime import page_locked
from nudenet_steps.preprocess.entropy import CODING, LOOK_BITS, Coding, Interval

MAX_CODINGS = 256  # that lie ready on the GPU, 32 KB each
MAX_INTERVALS = 4096  # in one call
# Of a file. The worst that can be made of it takes 0.2 s, about as long as its decoding on the CPU.
MAX_BYTES = 4_000_000
_THREADS = 512
_PADDING = 16  # zero bytes that the kernel reads beyond the end
_INTERVAL = np.dtype([("data", "u8"), ("plain", "u8"), ("coding", "u8"), ("size", "u4"), ("blocks", "u4")])

_KERNEL = (
    f"#define THREADS {_THREADS}\n#define PADDING {_PADDING}\n#define LOOK_BITS {LOOK_BITS}\n"
    + r"""
// Whether entropy-coded data is whole. One block of threads for each restart interval.
//
// Each thread reads a part of the bits. Where its first symbol begins is known only when the thread before has read its
// part, so all of them guess first; then each reads again whenever its predecessor came out somewhere else than it had
// assumed. Huffman codes fall into step by themselves, so some rounds suffice. The first thread begins at a known
// place: when nobody has to read again, all have read what a single reader would. Then they look at what they read.

// Symbols: see `_symbol` of entropy.py.
struct Table { unsigned look[1 << LOOK_BITS], limit[17]; int offset[17]; unsigned symbols[256]; };
struct Coding { Table tables[3][2]; unsigned short quantizers[3][64]; int blocks; unsigned char component[12]; };
struct Interval { const unsigned char* data; unsigned char* plain; const Coding* coding; unsigned size, blocks; };

#define MIN_BITS 512   // of a thread's part; longer than any symbol
#define MAX_ROUNDS 64  // what has not fallen into step by then is left to the CPU
#define MAX_LEVEL 1280  // a coefficient of an 8-bit picture is below 1024; rounding adds half a quantizer

// Where a reader is: the bit, and 64 times the block in the minimum coded unit plus the coefficient in the block.
struct Place { unsigned bit, coefficient; };

// What no encoder writes. DC coefficients are written as differences: what those of each component add up to, and the
// least and most on the way.
struct Findings { bool bad; int sum[3], low[3], high[3]; };

__device__ unsigned big_endian(unsigned word) { return __byte_perm(word, 0, 0x0123); }

// Reads on from `place` to bit `end`, or until `most` blocks are finished. Returns how many were.
template <bool LOOKS>
__device__ unsigned read(const unsigned* words, const Coding& coding, Place& place, unsigned end, unsigned most,
                         Findings& found) {
  unsigned bit = place.bit, block = place.coefficient >> 6, k = place.coefficient & 63, finished = 0;
  unsigned component = coding.component[block];
  unsigned index = bit >> 5, high = big_endian(words[index]), low = big_endian(words[index + 1]);
  unsigned ahead = words[index + 2];  // fetched before it is needed: memory is slow
  while (bit < end && finished < most) {
    if (bit >> 5 != index) {
      high = low;
      low = big_endian(ahead);
      ahead = words[++index + 2];
    }
    unsigned next = __funnelshift_l(low, high, bit & 31);  // 32 bits; no symbol takes more than 31
    const Table& table = coding.tables[component][k > 0];
    unsigned symbol = table.look[next >> (32 - LOOK_BITS)];
    if (!symbol) {
      unsigned length = LOOK_BITS + 1;
      for (int i = length; i <= 16; ++i) length += next >> 16 >= table.limit[i];  // no branch: threads stay together
      if (length > 16) {  // no such code
        found.bad = true;
        place = {end, 0};
        return finished;
      }
      symbol = table.symbols[((next >> (32 - length)) + table.offset[length]) & 255] + length;
    }
    unsigned bits = symbol & 255, step = symbol >> 8 & 255;
    if (LOOKS) {
      unsigned size = symbol >> 16 & 255;
      int value = size ? next << (bits - size) >> (32 - size) : 0;
      if (size && !(value >> (size - 1))) value -= (1 << size) - 1;
      found.bad |= symbol >> 24;
      found.bad |= step < 64 && k + step > 64;
      if (k) {
        found.bad |= abs(value) * coding.quantizers[component][(k + step - 1) & 63] > MAX_LEVEL;
      } else {
        int sum = found.sum[component] += value;
        found.low[component] = min(found.low[component], sum);
        found.high[component] = max(found.high[component], sum);
      }
    }
    bit += bits;
    k += step;
    if (k >= 64) {
      k = 0;
      block = block + 1 == coding.blocks ? 0 : block + 1;
      component = coding.component[block];
      ++finished;
    }
  }
  place = {bit, block << 6 | k};
  return finished;
}

// The sum of `value` over the threads before this one; `total` over all.
__device__ unsigned sum_before(unsigned value, unsigned* shared, unsigned& total) {
  unsigned i = threadIdx.x;
  __syncthreads();
  shared[i] = value;
  for (unsigned step = 1; step < THREADS; step *= 2) {
    __syncthreads();
    unsigned other = i >= step ? shared[i - step] : 0;
    __syncthreads();
    shared[i] += other;
  }
  __syncthreads();
  total = shared[THREADS - 1];
  return shared[i] - value;
}

// Takes the byte stuffing out; returns the bytes that are left. `bad`: a marker stands in between.
__device__ unsigned unstuff(const Interval& interval, unsigned* shared, bool& bad) {
  const unsigned char* data = interval.data;
  unsigned left = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (unsigned first = 0; first < interval.size; first += THREADS) {  // neighbours read neighbours
    unsigned at = first + threadIdx.x;
    bool inside = at < interval.size, stuffing = inside && at && data[at - 1] == 0xff;
    bad |= stuffing && data[at];
    unsigned kept = __ballot_sync(~0u, inside && !stuffing);
    if (!lane) shared[warp] = __popc(kept);
    __syncthreads();
    unsigned out = left + __popc(kept & ((1u << lane) - 1));
    for (unsigned i = 0; i < THREADS / 32; ++i) {
      out += i < warp ? shared[i] : 0;
      left += shared[i];
    }
    if (inside && !stuffing) interval.plain[out] = data[at];
    __syncthreads();
  }
  if (threadIdx.x < PADDING) interval.plain[left + threadIdx.x] = 0;  // what is read beyond the end
  bad |= !interval.size || data[interval.size - 1] == 0xff;
  __syncthreads();
  return left;
}

// whole[interval]: 1 where it holds exactly the blocks that it must, and nothing that no encoder writes.
extern "C" __global__ void __launch_bounds__(THREADS) check(const Interval* intervals, int* whole) {
  __shared__ Coding coding;
  __shared__ unsigned sums[THREADS];
  __shared__ Place ends[THREADS];
  const Interval interval = intervals[blockIdx.x];
  for (unsigned i = threadIdx.x; i < sizeof(Coding) / 4; i += THREADS)
    ((int*)&coding)[i] = ((const int*)interval.coding)[i];

  bool marker = false;
  unsigned bits = 8 * unstuff(interval, sums, marker);
  const unsigned* words = (const unsigned*)interval.plain;
  unsigned part = max(MIN_BITS, (bits + THREADS - 1) / THREADS);
  unsigned start = min(threadIdx.x * part, bits), end = min(start + part, bits);
  bool takes_part = start < bits, again = false;
  Place begin = {start, 0}, place = begin;
  Findings found = {};
  unsigned finished = takes_part ? read<false>(words, coding, place, end, ~0u, found) : 0;
  for (int round = 0; round < MAX_ROUNDS; ++round) {
    ends[threadIdx.x] = place;
    __syncthreads();
    again = false;
    if (takes_part && threadIdx.x) {
      Place before = ends[threadIdx.x - 1];
      again = before.bit != begin.bit || before.coefficient != begin.coefficient;
      if (again) {
        begin = place = before;
        finished = read<false>(words, coding, place, end, ~0u, found);
      }
    }
    if (!__syncthreads_or(again)) break;
  }
  unsigned total, before = sum_before(finished, sums, total);
  bool wrong = again || marker || total < interval.blocks, counts = before < interval.blocks;
  found.bad = false;
  if (takes_part && counts) {
    place = begin;
    read<true>(words, coding, place, end, interval.blocks - before, found);
    // Where the last block ends, padding follows, less than a byte.
    if (before + finished >= interval.blocks) wrong |= place.bit > bits || bits - place.bit >= 8;
  }
  for (int i = 0; i < 3; ++i) {  // where one is too large, no sum up to it has overflowed
    int dc = sum_before(found.sum[i], sums, total), most = MAX_LEVEL / max(1, coding.quantizers[i][0]);
    found.bad |= dc + found.low[i] < -most || dc + found.high[i] > most;
  }
  wrong |= counts && found.bad;
  wrong = __syncthreads_or(wrong);
  if (!threadIdx.x) whole[blockIdx.x] = !wrong;
}
"""
)


class DamageCheck:
    """Checks files of known coding, a batch at a time, on a stream of its own: the JPEG engine works meanwhile."""

    def __init__(self, device: int) -> None:
        """Compile the kernel and get memory on GPU `device`, which is the current one.

        Raises:
            CudaError: out of memory.
        """
        self._kernel = Kernel(_KERNEL, "check", device)
        self._stream = runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)
        self._codings = int(runtime.cudaMalloc(MAX_CODINGS * CODING.itemsize))
        self._whole = page_locked(runtime, (MAX_INTERVALS,), np.int32)
        self._whole_on_gpu = int(runtime.cudaMalloc(self._whole.nbytes))
        self._host, self._on_gpu = np.zeros(0, np.uint8), 0
        self._owners: list[int] = []

    def keep(self, slot: int, coding: Coding) -> None:
        """Put `coding` into one of `MAX_CODINGS` slots; no check may be under way."""
        self._to_gpu(self._codings + slot * CODING.itemsize, coding.tables)
        runtime.cudaStreamSynchronize(self._stream)

    def start(self, files: Sequence[tuple[bytes, list[Interval], int]]) -> None:
        """Begin to check files.

        Args:
            files: content, intervals as `entropy.intervals` finds them, and the slot of the coding; `MAX_INTERVALS`
                intervals at most.
        """
        runtime.cudaStreamSynchronize(self._stream)  # an earlier check whose result nobody fetched
        self._owners = [i for i, (_, intervals, _) in enumerate(files) for _ in intervals]
        table = np.zeros(len(self._owners), _INTERVAL)
        # Copies of the files' data first, then each interval once more without stuffing, aligned.
        spans = [(intervals[0].start, intervals[-1].end) for _, intervals, _ in files]
        copied = table.nbytes + sum(end - start for start, end in spans)
        sizes = [interval.end - interval.start for _, intervals, _ in files for interval in intervals]
        self._reserve(copied + sum(size + 2 * _PADDING for size in sizes))
        data, plain, row = table.nbytes, -(-copied // _PADDING) * _PADDING, 0
        for (content, intervals, slot), (first, last) in zip(files, spans, strict=True):
            self._host[data : data + last - first] = np.frombuffer(content, np.uint8)[first:last]
            for start, end, blocks in intervals:
                addresses = (self._on_gpu + data + start - first, self._on_gpu + plain)
                table[row] = (*addresses, self._codings + slot * CODING.itemsize, end - start, blocks)
                plain += (end - start) // _PADDING * _PADDING + 2 * _PADDING
                row += 1
            data += last - first
        self._host[: table.nbytes] = table.view(np.uint8)
        self._to_gpu(self._on_gpu, self._host[:copied])
        self._kernel(self._stream, (row, 1, 1), _THREADS, self._on_gpu, self._whole_on_gpu)
        to_host = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        runtime.cudaMemcpyAsync(self._whole.ctypes.data, self._whole_on_gpu, 4 * row, to_host, self._stream)

    def doubted(self) -> set[int]:
        """Which of the files that were given to `start` may be damaged, by index; waits until that is known."""
        runtime.cudaStreamSynchronize(self._stream)
        whole = self._whole[: len(self._owners)].tolist()
        return {owner for owner, is_whole in zip(self._owners, whole, strict=True) if not is_whole}

    def _to_gpu(self, address: int, array: np.ndarray) -> None:
        to_device = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        runtime.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, to_device, self._stream)

    def _reserve(self, size: int) -> None:
        """Grow the memory for files; it never shrinks, the limit on a file's bytes bounds it."""
        if size <= len(self._host):
            return
        host, address, self._host, self._on_gpu = self._host, self._on_gpu, np.zeros(0, np.uint8), 0
        if address:
            runtime.cudaFreeHost(host.ctypes.data)
            runtime.cudaFree(address)
        on_gpu = int(runtime.cudaMalloc(size + size // 2))
        self._host, self._on_gpu = page_locked(runtime, (size + size // 2,), np.uint8), on_gpu
