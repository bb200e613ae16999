"""Reads entropy-coded JPEG data one symbol after the other, with the tables that the GPU gets, to the same verdict."""

from __future__ import annotations

import numpy as np

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
        known = int(table["look"][window >> 24])
        size, symbol = known >> 8, known & 255
        if not size:
            size = next((n for n in range(9, 17) if window >> (32 - n) <= table["last"][n]), 0)
            if not size:
                return False
            symbol = int(table["values"][(window >> (32 - size)) + table["offset"][size]])
        more = symbol & 15
        value = window << size >> (32 - more) & (1 << more) - 1
        if more and not value >> (more - 1):
            value -= (1 << more) - 1
        at += size + more
        if not k:
            levels[component] += value
            if symbol > 11 or abs(levels[component]) > MAX_LEVEL // max(1, int(steps[0])):
                return False
            k = 1
        elif more:
            k += symbol >> 4
            if more > 10 or abs(value) * int(steps[k & 63]) > MAX_LEVEL:
                return False
            k += 1
        elif symbol in (0, 0xF0):
            k = k + 16 if symbol else 64
        else:
            return False
        if k >= 64:
            if k > 64:
                return False
            k, block, finished = 0, (block + 1) % int(tables["blocks"]), finished + 1
    return finished == blocks and 0 <= length - at < 8
