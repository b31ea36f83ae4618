"""The digits recipe: a small spatial-transformer network for distorted MNIST digits."""
