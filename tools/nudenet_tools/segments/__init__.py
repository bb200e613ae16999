"""From a video file to when what is seen in it: docs/segments.md."""
