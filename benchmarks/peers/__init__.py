"""Other ways to warp an image by a theta, beside which stnkit is timed."""
