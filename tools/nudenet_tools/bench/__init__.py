"""Measurements: rounds, load, peers, report."""
