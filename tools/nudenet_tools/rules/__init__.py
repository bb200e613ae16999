"""From detections in single frames to events that start, go on and end: docs/rules.md."""
