"""The code points of an AVIF file's picture: its boxes are walked, since the same bytes may stand anywhere else."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Box = tuple[bytes, bytes]  # type, content
_MOST_BOXES = 10_000


def code_points(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer (H.273) of the primary item; None where it names none, or the boxes are damaged."""
    try:
        meta = dict(_boxes(dict(_boxes(data))[b"meta"][4:]))
        properties = dict(_boxes(meta[b"iprp"]))
        known = list(_boxes(properties[b"ipco"]))
        for index in _properties_of(properties[b"ipma"], _primary_item(meta[b"pitm"])):
            kind, content = known[index - 1]
            if kind == b"colr" and content[:4] == b"nclx":
                primaries, transfer = struct.unpack_from(">HH", content, 4)
                return primaries, transfer
    except (KeyError, IndexError, struct.error):
        pass
    return None


def _boxes(data: bytes) -> Iterator[Box]:
    """The boxes that stand side by side in `data`; of several of a type, `dict` keeps the last."""
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        elif size == 0:
            size = len(data) - position
        if size < head:
            return
        yield kind, data[position + head : position + size]
        position += size


def _primary_item(box: bytes) -> int:
    return int(struct.unpack_from(">I" if box[0] else ">H", box, 4)[0])


def _properties_of(box: bytes, item: int) -> list[int]:
    """Numbers, from 1, of the properties of an item, in the order of box `ipma`."""
    version, flags = box[0], box[3]
    (count,) = struct.unpack_from(">I", box, 4)
    position = 8
    for _ in range(min(count, _MOST_BOXES)):
        (number,) = struct.unpack_from(">I" if version else ">H", box, position)
        position += 4 if version else 2
        associations = box[position]
        position += 1
        kind, mask = (">H", 0x7FFF) if flags & 1 else (">B", 0x7F)
        found = [
            value & mask
            for (value,) in struct.iter_unpack(kind, box[position:][: associations * struct.calcsize(kind)])
        ]
        position += associations * struct.calcsize(kind)
        if number == item:
            return [value for value in found if value]
    return []
