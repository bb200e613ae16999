"""Mutation tests: do the unit tests notice a small change of the code? `python -m mutants` runs them."""
