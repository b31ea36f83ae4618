"""Registration of digits: its pairs, its figures, and that it learns."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from stnkit.models.digits.mnist import Mnist
from stnkit.models.recipes.registration import RegistrationTask
from stnkit.models.training.recipe import Recipe

RECIPE = Recipe(epochs=4, seed=4, batch_size=16)


@pytest.fixture(scope="module")
def run(data, trained):
    """Return the result of a whole run, and its losses."""
    return trained(RegistrationTask(data, RECIPE, "dense"))  # the faster of the two to compile


def test_a_batch_is_a_function_of_its_numbers(data):
    first, again = RegistrationTask(data, RECIPE), RegistrationTask(data, RECIPE)
    expected = [first.batch(epoch, step)[0] for epoch, step in [(0, 0), (1, 2), (1, 3)]]
    for place, want in [((1, 2), expected[1]), ((0, 0), expected[0])]:
        got, targets = again.batch(*place)
        assert got.keys() == want.keys() == {"moving", "fixed"}
        for name in got:
            assert np.array_equal(got[name], want[name])
        assert np.array_equal(targets["warped"], want["fixed"])
        assert targets["flow"].shape == (16, 1, 1, 2)
    assert not np.array_equal(expected[0]["moving"], expected[1]["moving"])
    other = RegistrationTask(data, Recipe(epochs=4, seed=6, batch_size=16)).batch(0, 0)[0]
    assert not np.array_equal(other["fixed"], expected[0]["fixed"])


def test_pairs_are_of_one_class_and_the_moving_one_is_another_distorted_digit():
    labels = np.repeat(np.arange(5), 4).astype(np.uint8)
    # Every digit is a flat square whose brightness tells which one it is.
    images = np.zeros((20, 28, 28), np.uint8)
    images[:, 8:20, 8:20] = (10 * np.arange(20) + 40).reshape(-1, 1, 1)
    task = RegistrationTask(Mnist(images, labels, images, labels, "idx", {}), RECIPE)
    (pairs, _) = task.batch(0, 0)
    assert all(images.dtype == np.float32 for images in pairs.values())
    moving, fixed = (
        np.round((pairs[name].max(axis=(1, 2, 3)) * 255 - 40) / 10).astype(int)
        for name in ("moving", "fixed")
    )
    assert len(set(fixed.tolist())) == 16
    assert (labels[moving] == labels[fixed]).all()
    assert (moving != fixed).all()
    assert np.array_equal(pairs["fixed"][..., 0], images[fixed] / np.float32(255))
    filled = (pairs["moving"] > 0).sum(axis=(1, 2, 3))
    assert len(set(filled.tolist())) > 8  # of many sizes


def test_the_untrained_network_leaves_the_images_as_they_are(data):
    task = RegistrationTask(data, RECIPE)
    figures = task.evaluate(task.build()).figures
    for name in ("dice", "mse"):
        before = figures[f"{name}_before"]
        assert 0 < before < 0.6
        assert figures[f"{name}_affine"] == pytest.approx(before, abs=1e-6)
        assert figures[f"{name}_flow"] == pytest.approx(before, abs=1e-6)
    assert figures["folded_pixels"] == 0


def crafted(mirrored):
    """Return a "network" whose affine stage gives black and whose flow stage gives the target."""
    moving, fixed = (keras.Input((28, 28, 1), name=name) for name in ("moving", "fixed"))
    black = keras.layers.Rescaling(0.0, name="affine_stage")(moving)
    warped = keras.layers.Add(name="flow_stage")([fixed, black])
    x = (2 * np.arange(28, dtype=np.float32) + 1) / 28 - 1
    mirror = np.stack(np.broadcast_arrays(-2 * x[None, :], np.float32(0)), -1).reshape(1, 1, 28, 2)
    flow = keras.layers.Lambda(lambda image: keras.ops.zeros_like(image) + mirror * mirrored)(fixed)
    return keras.Model({"moving": moving, "fixed": fixed}, {"warped": warped, "flow": flow})


def test_figures_of_crafted_predictions(data):
    task = RegistrationTask(data, RECIPE)
    evaluation = task.evaluate(crafted(mirrored=0.0))
    fixed = data.test_images / 255
    assert evaluation.count == 24
    assert (data.test_images.max(axis=(1, 2)) > 127).all()  # else black would overlap black
    assert evaluation.figures["dice_affine"] == 0
    assert evaluation.figures["mse_affine"] == pytest.approx((fixed**2).mean(), rel=1e-5)
    assert evaluation.figures["dice_flow"] == 1
    assert evaluation.figures["mse_flow"] == 0
    assert evaluation.figures["folded_pixels"] == 0
    assert task.evaluate(crafted(mirrored=1.0)).figures["folded_pixels"] == 1


def test_the_test_pairs_do_not_depend_on_the_seed(data):
    figures = [
        RegistrationTask(data, Recipe(1, seed, 16)).evaluate(crafted(0.0)).figures
        for seed in (0, 1)
    ]
    assert figures[0] == figures[1]


def test_training_lowers_the_loss_and_brings_the_images_together(run):
    result, losses = run
    assert losses[3] < 0.9 * losses[0]
    assert result.figures["mse_flow"] < 0.9 * result.figures["mse_before"]
    assert result.figures["dice_flow"] > result.figures["dice_before"]


def test_the_saved_network_loads_without_the_recipe(run, data):
    result, _ = run
    model = keras.saving.load_model(result.model)
    assert not model.compiled
    task = RegistrationTask(data, RECIPE, "dense")
    assert task.evaluate(model).figures == pytest.approx(result.figures, abs=1e-6)


def test_the_provenance_says_how_it_was_made(run, data):
    result, _ = run
    record = json.loads(result.provenance.read_text("utf-8"))
    assert record["recipe"] == {
        "epochs": 4,
        "seed": 4,
        "batch_size": 16,
        "flow": "dense",
        "distortion": {"rotation_degrees": 30.0, "scale": [0.8, 1.2], "shift_px": 3.0},
        "learning_rate": 2e-3,
        "bending_weight": 1e-4,
    }
    assert record["data"] == {"source": "idx", "sha256": data.checksums, "train_count": 96}
    assert record["test"] == {**result.figures, "count": 24, "pairs_seed": 2015}


def test_the_dense_flow_is_the_displacement_itself(data):
    kinds = {}
    for flow in ("diffeomorphic", "dense"):
        task = RegistrationTask(data, RECIPE, flow)
        kinds[flow] = task.build().get_layer("flow").transform.transforms[1].name
        assert task.identity()["recipe"]["flow"] == flow
    assert kinds == {"diffeomorphic": "diffeomorphic_flow", "dense": "dense_flow"}
