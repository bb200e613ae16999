"""The one set of file suffixes, for tools and build/ alike; it is here because every image has this package."""

from __future__ import annotations

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
PICTURE_SUFFIXES = frozenset(
    {*JPEG_SUFFIXES, ".mpo", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"}
    # Not all of these can be read everywhere: then the picture is reported as refused, not left out.
    | {".heic", ".heif", ".jxl", ".jp2", ".apng"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".mov", ".avi", ".webm", ".ts", ".m4v", ".mpg", ".mpeg", ".mjpeg", ".mjpg", ".3gp", ".flv", ".wmv"}
    | {".mts", ".m2ts", ".ogv"}
)
