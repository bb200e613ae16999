"""Reads entropy-coded JPEG data one symbol after the other, with the tables that the GPU gets, to the same verdict."""

from __future__ import annotations

import numpy as np


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
    while finished < blocks and at < length:
        window = bits >> (length + 128 - at - 32) & 0xFFFFFFFF
        table = tables["tables"][tables["component"][block], int(k > 0)]
        known = int(table["look"][window >> 24])
        size, symbol = known >> 8, known & 255
        if not size:
            size = next((n for n in range(9, 17) if window >> (32 - n) <= table["last"][n]), 0)
            if not size:
                return False
            symbol = int(table["values"][(window >> (32 - size)) + table["offset"][size]])
        at += size + (symbol & 15)
        if not k:
            if symbol > 11:
                return False
            k = 1
        elif symbol & 15:
            if symbol & 15 > 10:
                return False
            k += (symbol >> 4) + 1
        elif symbol in (0, 0xF0):
            k = k + 16 if symbol else 64
        else:
            return False
        if k >= 64:
            if k > 64:
                return False
            k, block, finished = 0, (block + 1) % int(tables["blocks"]), finished + 1
    return finished == blocks and 0 <= length - at < 8
