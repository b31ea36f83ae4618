"""Measurements of stnkit; their results are files under `results`."""
