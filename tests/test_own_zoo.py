"""stnkit's own checks for CI, used on stnkit's own networks: the fixture of the pytest plugin."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.convert import convert, source_from_keras
from stnkit.models.zoo import make

NETWORKS = {
    "tutorial": {},
    "paper-st-fcn": {"input_shape": (28, 28, 1), "transform": "thin_plate_spline"},
    "segmentation": {"input_shape": (32, 32, 1), "frame_size": (16, 16)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_the_zoo_is_its_bundle(name, equivalence, tmp_path):
    keras.utils.set_random_seed(4)
    model = make(name, **NETWORKS[name])
    rng = np.random.default_rng(4)
    for variable in model.variables:
        if "theta" in variable.path:
            variable.assign_add(rng.normal(0, 0.05, variable.shape))
    model.save(tmp_path / "model.keras")
    convert(source_from_keras(model), tmp_path / "model.bundle")
    report = equivalence(tmp_path / "model.keras", tmp_path / "model.bundle", seed=11)
    assert len(report.candidates) == 2
    assert any(probe.driven for probe in report.probes)
