"""The output of a bulk run: Parquet part files that are there whole or not at all. They are also its memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from pyarrow import fs

import nudenet_client
from nudenet_tools.bulk.sources import filesystem

# One row a picture. Boxes are in pixels of the upright picture; `error` says why there are none, else it is null.
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        (
            "detections",
            pa.list_(
                pa.struct(
                    [
                        ("label", pa.string()),
                        ("class_id", pa.int32()),
                        ("confidence", pa.float32()),
                        ("x1", pa.float32()),
                        ("y1", pa.float32()),
                        ("x2", pa.float32()),
                        ("y2", pa.float32()),
                    ]
                )
            ),
        ),
        ("error", pa.string()),
        ("verdict", pa.string()),  # with a policy, else null; see docs/decisions.md
        ("reasons", pa.string()),  # JSON
    ]
)


class Parts:
    """The part files in one folder, local or in an object store.

    Args:
        folder: path or address; made when it is missing.
    """

    def __init__(self, folder: str) -> None:
        self._store, self._path = filesystem(folder)
        self._store.create_dir(self._path, recursive=True)

    def done(self) -> set[str]:
        """Names of all pictures that have a row."""
        files = self._store.get_file_info(fs.FileSelector(self._path))
        parts = [file.path for file in files if file.path.endswith(".parquet")]
        if not parts:
            return set()
        dataset = pyarrow.dataset.dataset(parts, schema=SCHEMA, filesystem=self._store)
        return {name for batch in dataset.to_batches(columns=["source"]) for name in batch["source"].to_pylist()}

    def write(self, sources: Sequence[str], found: Sequence[nudenet_client.Detections]) -> None:
        """Write one part. Its name follows from `sources`: written twice, it is still one file."""
        store, path = self._store, self._path
        name = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:24]
        table = pa.Table.from_pylist([_row(*pair) for pair in zip(sources, found, strict=True)], SCHEMA)
        if isinstance(store, fs.LocalFileSystem):
            pyarrow.parquet.write_table(table, f"{path}/.{name}.tmp", filesystem=store)
            store.move(f"{path}/.{name}.tmp", f"{path}/{name}.parquet")
        else:  # object stores show a file only when it is complete
            pyarrow.parquet.write_table(table, f"{path}/{name}.parquet", filesystem=store)


def _row(source: str, found: nudenet_client.Detections) -> dict:
    detections = [
        {"label": d.label, "class_id": d.class_id, "confidence": d.confidence}
        | dict(zip(("x1", "y1", "x2", "y2"), d.box, strict=True))
        for d in found
    ]
    return {
        "source": source,
        "width": found.width,
        "height": found.height,
        "detections": detections,
        "error": found.error,
        "verdict": found.verdict or None,
        "reasons": json.dumps(dict(found.reasons)) if found.verdict else None,
    }
