"""The sampler: an image read at the points of a grid, with gather ops alone."""

from stnkit.models.sampling.grid_sample import GridSampler, grid_sample

__all__ = ["GridSampler", "grid_sample"]
