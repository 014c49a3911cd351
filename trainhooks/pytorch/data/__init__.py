"""Loaders that know their position: map-style, sampled, iterable, foreign and evaluation data."""
