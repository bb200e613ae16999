"""The page of make ui."""
