"""Make a copy of the TensorRT bindings importable on a machine without TensorRT, to read their API.

The bindings' extension module names three libraries it needs and nine functions it takes from them, all of which
only matter once something is built or run. In the copy the three DT_NEEDED entries are neutralised and the nine
symbols made weak, so that the dynamic linker leaves them null: enums, signatures and argument checks are the real
ones, and whatever would reach the GPU library crashes. Needs no compiler.
"""

from __future__ import annotations

import struct
from pathlib import Path

LIBRARIES = (b"libnvinfer.so", b"libnvinfer_plugin.so", b"libnvonnxparser.so")
SYMBOLS = {
    b"createInferBuilder_INTERNAL",
    b"createInferRefitter_INTERNAL",
    b"createInferRuntime_INTERNAL",
    b"createNvOnnxParser_INTERNAL",
    b"createNvOnnxParserRefitter_INTERNAL",
    b"getBuilderPluginRegistry",
    b"getNvOnnxParserVersion",
    b"getPluginRegistry",
    b"initLibNvInferPlugins",
}
DT_NEEDED, DT_IGNORED = 1, 0x6FFFFEF5 - 0x100  # the second is a value no linker knows, hence skips
SHT_DYNAMIC, SHT_DYNSYM = 6, 11
WEAK_FUNCTION = (2 << 4) | 2  # STB_WEAK, STT_FUNC


def loosen(extension: Path) -> None:
    """Rewrite `extension` (a 64-bit little-endian ELF file) in place.

    Raises:
        ValueError: the file does not need exactly the libraries and symbols known here.
    """
    data = bytearray(extension.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{extension} is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * entry_size) for i in range(count)]

    def name_at(strings: int, offset: int) -> bytes:
        start = sections[strings][4] + offset
        return bytes(data[start : data.index(b"\0", start)])

    dropped, weakened = [], set()
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind == SHT_DYNAMIC:
            for at in range(offset, offset + size, 16):
                tag, value = struct.unpack_from("<QQ", data, at)
                if tag == DT_NEEDED and name_at(link, value).startswith(LIBRARIES):
                    struct.pack_into("<Q", data, at, DT_IGNORED)
                    dropped.append(name_at(link, value))
        elif kind == SHT_DYNSYM:
            for at in range(offset, offset + size, 24):
                (name,) = struct.unpack_from("<I", data, at)
                if name_at(link, name) in SYMBOLS:
                    data[at + 4] = WEAK_FUNCTION
                    weakened.add(name_at(link, name))
    if len(dropped) != len(LIBRARIES) or weakened != SYMBOLS:
        raise ValueError(f"{extension} needs {dropped} and takes {sorted(weakened)}: not the bindings known here")
    extension.write_bytes(data)
