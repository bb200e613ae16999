"""Millions of pictures: listings, actors, parts."""
