"""JPEG bytes to model input."""
