"""The code of all three Python steps: one package, one import name."""
