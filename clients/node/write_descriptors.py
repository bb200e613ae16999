#!/usr/bin/env python3
"""Write Triton's gRPC service as a descriptor set for @grpc/proto-loader, out of the installed tritonclient.

So the Node client speaks exactly the protocol of the pinned Python package, and no .proto file is copied.
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import service_pb2

TARGET = Path(__file__).resolve().parent / "triton.binpb"


def descriptor_set(file: FileDescriptor) -> FileDescriptorSet:
    """`file` and all that it imports, imports first."""
    result, done = FileDescriptorSet(), set()

    def add(one: FileDescriptor) -> None:
        if one.name not in done:
            done.add(one.name)
            for imported in one.dependencies:
                add(imported)
            one.CopyToProto(result.file.add())

    add(file)
    return result


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_bytes(descriptor_set(service_pb2.DESCRIPTOR).SerializeToString())
    print(target)
