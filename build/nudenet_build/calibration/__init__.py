"""Frames for INT8."""
