"""Data and helpers that the tests of the recipes share."""

from __future__ import annotations

import hashlib

import pytest

from stnkit.models.digits.mnist import Mnist
from stnkit.models.pretrained import samples
from stnkit.models.training.loop import train


@pytest.fixture(scope="session")
def data():
    """Return 96 training and 24 test digits, cut from the sample images that are shipped."""
    shipped = samples("digits")
    images, labels = shipped.images[..., 0], shipped.labels
    sums = {"train": hashlib.sha256(images.tobytes()).hexdigest()}
    return Mnist(images[:96], labels[:96], images[96:120], labels[96:120], "idx", sums)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return `trained(task)`: the result of a whole run, and the loss at the end of each epoch."""

    def run(task):
        losses = {}

        def progress(epoch, step, figures):
            losses[epoch] = figures["loss"]

        output = tmp_path_factory.mktemp(task.name) / "model.keras"
        return train(task, output, command="of the tests", progress=progress), losses

    return run
