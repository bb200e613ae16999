"""Candidates to detections."""
