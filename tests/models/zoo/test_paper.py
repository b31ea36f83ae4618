"""The paper's networks for distorted digits: of one size, with and without a transformer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models import ThinPlateSpline
from stnkit.models.zoo import paper_network

KINDS = ("fcn", "cnn", "st_fcn", "st_cnn")


@pytest.mark.parametrize("transform", ["affine", "projective", "thin_plate_spline"])
@pytest.mark.parametrize("kind", KINDS)
def test_about_400_000_parameters(kind, transform):
    model = paper_network(kind, transform)
    assert abs(model.count_params() - 400_000) < 0.02 * 400_000
    assert model.input_shape == (None, 42, 42, 1)
    assert model.output_shape == (None, 10)
    assert isinstance(model, keras.Sequential)
    if kind.startswith("st_"):
        assert model.layers[0].transform.name == transform


def test_the_spline_has_16_control_points():
    layer = paper_network("st_fcn", "thin_plate_spline").layers[0]
    assert layer.transform == ThinPlateSpline(4)
    assert layer.theta_head.dense.units == 32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "classes", "parameters"),
    [((28, 28, 1), 10, 400_000), ((60, 60, 1), 100, 600_000), ((42, 50, 3), 2, 250_000)],
    ids=str,
)
def test_another_size_is_kept_as_well(kind, shape, classes, parameters):
    model = paper_network(kind, "affine", shape, classes, parameters)
    assert 0.93 * parameters < model.count_params() <= parameters
    assert model.output_shape == (None, classes)


def test_the_width_is_the_largest_that_fits():
    """Of three dense layers on 42 x 42 pixels: n^2 + (1764 + 10 + 2) n + 10 parameters."""
    model = paper_network("fcn")
    width = model.get_layer("dense1").units
    assert model.count_params() == width**2 + 1776 * width + 10 <= 400_000
    assert (width + 1) ** 2 + 1776 * (width + 1) + 10 > 400_000
    filters = paper_network("cnn").get_layer("conv1").filters
    # 9x9 and 7x7 kernels; 42 -> 34 -> 17 -> 11 -> 5 pixels a side are left to classify.
    assert paper_network("cnn").count_params() == 49 * filters**2 + (81 + 2 + 250) * filters + 10


def test_layers_are_those_of_the_paper():
    model = paper_network("cnn")
    convolutions = [part for part in model.layers if isinstance(part, keras.layers.Conv2D)]
    assert [part.kernel_size for part in convolutions] == [(9, 9), (7, 7)]
    assert len({part.filters for part in convolutions}) == 1
    dense = [part for part in paper_network("fcn").layers if isinstance(part, keras.layers.Dense)]
    assert len(dense) == 3
    look = paper_network("st_cnn").layers[0].localization_net
    convolutions = [part for part in look.layers if isinstance(part, keras.layers.Conv2D)]
    assert [(part.kernel_size, part.filters) for part in convolutions] == [((5, 5), 20)] * 2
    look = paper_network("st_fcn").layers[0].localization_net
    assert [part.units for part in look.layers if hasattr(part, "units")] == [32, 32, 32]


def test_the_smallest_image_of_a_convolutional_network():
    model = paper_network("st_cnn", input_shape=(24, 25, 1))
    assert np.isfinite(model(np.ones((1, 24, 25, 1), np.float32))).all()
    for shape in ((23, 42, 1), (42, 23, 1), (1, 1, 1)):
        with pytest.raises(ValueError, match="leave nothing of it; expected at least 24x24"):
            paper_network("cnn", input_shape=shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "stcnn"}, "kind is 'stcnn': expected one of 'fcn', 'cnn', 'st_fcn', 'st_cnn'"),
        ({"transform": "rotation"}, "transform is 'rotation': expected a Transform"),
        ({"transform": "dense_flow"}, "dense_flow"),
        ({"input_shape": (42, 42)}, r"input_shape is \(42, 42\): expected \(height"),
        ({"classes": 0}, "classes is 0: expected an integer of at least 1"),
        ({"parameters": 0}, "parameters is 0: expected an integer of at least 1"),
        ({"parameters": 50_000}, "parameters leaves -.* for the classifier: expected more"),
        ({"kind": "fcn", "input_shape": (999, 999, 1)}, "parameters leaves 399990 for the class"),
        ({"kind": "cnn", "input_shape": (1200, 1200, 1)}, "parameters leaves 399990 for the class"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        paper_network(**arguments)
