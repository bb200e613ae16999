"""Reads entropy-coded JPEG data one symbol after the other, with the tables that the GPU gets, to the same verdict."""

from __future__ import annotations

import numpy as np

from nudenet_steps.preprocess.entropy import LOOK_BITS

MAX_LEVEL = 1280


def is_whole(data: bytes, tables: np.ndarray, blocks: int) -> bool:
    """Whether `data` holds `blocks` blocks and less than a byte of padding, and no marker.

    Args:
        data: one restart interval, with byte stuffing.
        tables: scalar of dtype ``entropy.CODING``.
    """
    plain = data.replace(b"\xff\x00", b"\xff")
    if data.count(b"\xff") != data.count(b"\xff\x00"):
        return False
    bits = int.from_bytes(plain + bytes(16), "big")
    length = 8 * len(plain)
    at = finished = block = k = 0
    levels = [0, 0, 0]
    while finished < blocks and at < length:
        window = bits >> (length + 128 - at - 32) & 0xFFFFFFFF
        component = int(tables["component"][block])
        table, steps = tables["tables"][component, int(k > 0)], tables["quantizers"][component]
        symbol, shift = int(table["look"][window >> (32 - LOOK_BITS)]), 0
        if not symbol:
            shift = next((n for n in range(LOOK_BITS + 1, 17) if window >> 16 < table["limit"][n]), 0)
            if not shift:
                return False
            symbol = int(table["symbols"][(window >> (32 - shift)) + table["offset"][shift]])
        ahead, step, more, is_odd = symbol.to_bytes(4, "little")
        size = ahead + shift - more
        if is_odd:
            return False
        value = window << size >> (32 - more) & (1 << more) - 1
        if more and not value >> (more - 1):
            value -= (1 << more) - 1
        at += size + more
        if not k:
            levels[component] += value
            if abs(levels[component]) > MAX_LEVEL // max(1, int(steps[0])):
                return False
        elif more and abs(value) * int(steps[k + step - 1 & 63]) > MAX_LEVEL:
            return False
        if k + step > 64 > step:
            return False
        k += step
        if k >= 64:
            k, block, finished = 0, (block + 1) % int(tables["blocks"]), finished + 1
    return finished == blocks and 0 <= length - at < 8
