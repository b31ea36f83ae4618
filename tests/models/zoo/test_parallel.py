"""Several attention crops of one image, looked at side by side."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from stnkit.models import Attention, read_transformers
from stnkit.models.zoo import parallel_network
from stnkit.models.zoo.parallel import tiles

BACKBONE = "MobileNet"  # the quickest to make


def network(crops=2, **options):
    options = {"input_shape": (64, 64, 3), "output_size": (32, 32), "classes": 3, **options}
    return parallel_network(crops, BACKBONE, **options)


@pytest.fixture(scope="module")
def shared():
    """Return a network of four crops and one backbone; not to be changed."""
    keras.utils.set_random_seed(1)
    return network(4)


@pytest.fixture(scope="module")
def separate():
    """Return a network of two crops and two backbones; not to be changed."""
    keras.utils.set_random_seed(1)
    return network(2, shared=False)


def backbones(model):
    return [
        layer
        for layer in model.layers
        if layer.name.startswith("mobilenet_") and isinstance(layer, keras.Model)
    ]


# ---- where the crops start ----


@pytest.mark.parametrize("count", range(1, 65))
def test_tiles_are_apart_and_inside_of_the_image(count):
    found = np.array(tiles(count))
    assert found.shape == (count, 3)
    assert (found[:, 0] == 0.5).all()
    assert (np.abs(found[:, 1:]) <= 0.5).all()
    assert len({tuple(tile) for tile in found}) == count


@pytest.mark.parametrize("count", [4, 6, 9, 16, 36])
def test_tiles_of_a_whole_grid_cover_the_image(count):
    y, x = np.meshgrid(*[np.linspace(-1, 1, 41)] * 2, indexing="ij")
    covered = np.zeros_like(x, bool)
    for side, left, top in tiles(count):
        covered |= (np.abs(x - left) <= side) & (np.abs(y - top) <= side)
    assert covered.all()


def test_tiles_by_hand():
    assert tiles(1) == [(0.5, 0.0, 0.0)]
    assert tiles(2) == [(0.5, -0.5, 0.0), (0.5, 0.5, 0.0)]
    assert tiles(4) == [(0.5, x, y) for y in (-0.5, 0.5) for x in (-0.5, 0.5)]
    assert {tile[1] for tile in tiles(9)} == {-0.5, 0.0, 0.5}


def test_untrained_crops_are_the_quarters_of_the_image(shared, draw, assert_close, tolerances):
    images = draw(shared)
    seen = {found.layer: found for found in read_transformers(shared, images)}
    assert sorted(seen) == ["crop_1", "crop_2", "crop_3", "crop_4"]
    quarters = [
        images[:, row : row + 32, column : column + 32] for row in (0, 32) for column in (0, 32)
    ]
    for number, (quarter, tile) in enumerate(zip(quarters, tiles(4), strict=True), start=1):
        found = seen[f"crop_{number}"]
        assert_close(found.theta, np.array([tile] * 2), tolerances.exact)
        assert_close(found.warped, quarter, tolerances.exact)


# ---- one backbone or several ----


def test_a_shared_backbone_has_one_set_of_weights(shared, draw, assert_close):
    (only,) = backbones(shared)
    single = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    assert only.count_params() == single.count_params()
    images = draw(shared)
    vectors = []
    for row in (0, 32):
        for column in (0, 32):
            crop = 2 * images[:, row : row + 32, column : column + 32] - 1
            vectors.append(only(crop).numpy().mean((1, 2)))
    joined = keras.Model(shared.input, shared.get_layer("features").output)(images).numpy()
    expected = np.concatenate(vectors, 1)
    assert_close(joined, expected, 1e-5 * max(1.0, float(expected.max())))


def test_separate_backbones_are_trained_each(separate, draw, fit_once):
    model = keras.models.clone_model(separate)
    model.set_weights(separate.get_weights())
    first, second = backbones(model)
    assert [first.name, second.name] == ["mobilenet_1.00_32_1", "mobilenet_1.00_32_2"]
    assert not {id(w) for w in first.weights} & {id(w) for w in second.weights}
    before = [network.get_weights() for network in (first, second)]
    assert np.any(before[0][0] != before[1][0])
    fit_once(model)
    for network, values in zip((first, second), before, strict=True):
        assert np.any(network.get_weights()[0] != values[0])


def test_separate_backbones_survive_saving(separate, draw, tmp_path, assert_close, tolerances):
    images = draw(separate)
    separate.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(images).numpy(), separate(images).numpy(), tolerances.exact)
    assert [layer.name for layer in backbones(loaded)] == [
        layer.name for layer in backbones(separate)
    ]


def test_every_crop_gets_the_weights_and_the_freezing(tmp_path):
    single = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    single.save_weights(tmp_path / "mobilenet.weights.h5")
    model = network(2, shared=False, weights=tmp_path / "mobilenet.weights.h5")
    for inner in backbones(model):
        assert inner.trainable_variables == []
        for got, want in zip(inner.get_weights(), single.get_weights(), strict=True):
            assert np.array_equal(got, want)


def test_a_single_crop_and_another_size():
    model = network(1, input_shape=(40, 56, 3), output_size=(32, 48))
    assert [layer.name for layer in model.layers if layer.name.startswith("crop_")] == ["crop_1"]
    assert model.get_layer("crop_1").transform == Attention()
    assert model.get_layer("crop_1").compute_output_shape([(1, 40, 56, 3), (1, 3)]) == (
        1,
        32,
        48,
        3,
    )
    assert model(np.zeros((1, 40, 56, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crops": 0}, "crops is 0: expected an integer of at least 1"),
        ({"classes": 0}, "classes is 0"),
        ({"output_size": (32,)}, r"output_size is \(32,\): expected"),
        ({"output_size": None}, "output_size is None: expected"),
        ({"input_shape": (64, 64, 1)}, "expected 3 channels"),
        ({"output_size": (8, 8)}, r"MobileNet does not take images of \(8, 8, 3\)"),
        ({"trainable": "block99"}, "trainable is 'block99'"),
        ({"weights": "nowhere.h5"}, "weights is 'nowhere.h5': no such file"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        network(**arguments)
