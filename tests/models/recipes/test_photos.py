"""The photos recipe on a few random photos: what a step sees, what is trained, what is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from stnkit.models.recipes.cifar import Photos
from stnkit.models.recipes.photos import PhotosTask, rotate, rotation_left
from stnkit.models.training.recipe import Recipe

RECIPE = Recipe(epochs=2, seed=3, batch_size=8)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    # A bright half tells what is up, and its colour the class.
    images = np.zeros((20, 32, 32, 3), np.uint8)
    labels = np.arange(20, dtype=np.uint8) % 3
    for image, label in zip(images, labels, strict=True):
        image[:16, :, label] = 200
        image += rng.integers(0, 20, image.shape, np.uint8)
    return Photos(images[:16], labels[:16], images[16:], labels[16:], "npz", {"x.npz": "0"})


@pytest.fixture(scope="module")
def task(photos):
    return PhotosTask(photos, RECIPE, None)


def test_a_quarter_turn_by_hand():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
    found = rotate(image, np.array([np.pi / 2], np.float32)).numpy()
    # Theta maps output to input, (x, y) -> (-y, x), which turns the photo clockwise by 90 degrees…
    turned = np.rot90(image[0], k=-1) / 255
    counter = np.rot90(image[0], k=1) / 255
    gaps = [np.abs(found[0] - other).max() for other in (turned, counter)]
    # … or the other way: one of the two, exactly.
    assert min(gaps) < 1e-5 < max(gaps)


def test_no_turn_is_the_photo(photos):
    found = rotate(photos.train_images, np.zeros(16, np.float32)).numpy()
    np.testing.assert_allclose(found, photos.train_images / 255, atol=1e-6)


def test_a_step_is_a_function_of_its_numbers_alone(photos, task):
    (images, targets), (again, same) = task.batch(1, 0), task.batch(1, 0)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(targets["theta"], same["theta"])
    other, _ = task.batch(1, 1)
    assert np.abs(np.asarray(images) - np.asarray(other)).max() > 0.1
    seeded, _ = PhotosTask(photos, replace(RECIPE, seed=4), None).batch(1, 0)
    assert np.abs(np.asarray(images) - np.asarray(seeded)).max() > 0.1


def test_the_target_theta_turns_the_photo_back(task):
    from stnkit.models import Similarity, grid_sample

    images, targets = task.batch(0, 0)
    grid = Similarity().grid(targets["theta"].astype(np.float32), (32, 32))
    back = grid_sample(images, grid).numpy()
    # In the middle, where no corner was lost: the bright half is up again.
    upper, lower = back[:, 10:15, 10:22].max(-1).mean((1, 2)), back[:, 17:22, 10:22].max(-1)
    assert (upper > lower.mean((1, 2)) + 0.3).all()


def test_what_is_left_to_turn_by_hand():
    angles = np.array([0.1, -0.4, 0.3], np.float32)

    def thetas(found):
        return np.stack([np.cos(found), np.sin(found), 0 * found, 0 * found], axis=1)

    assert rotation_left(angles, thetas(-angles)) == pytest.approx(0, abs=1e-3)
    # An upright of one's own is as good.
    assert rotation_left(angles, thetas(-angles + 0.7)) == pytest.approx(0, abs=1e-3)
    off = np.deg2rad([0.0, 20.0, -20.0])
    assert rotation_left(angles, thetas(-angles + off)) == pytest.approx(20, abs=0.5)


def test_the_convolutions_stay_and_the_transformer_learns(task, trained):
    result, losses = trained(task)
    assert losses[1] < losses[0]
    model = keras.saving.load_model(result.model)
    assert model.output_shape == (None, 10)  # theta guides the training and is not delivered
    assert not model.get_layer("vgg16").trainable_weights
    head = model.get_layer("theta_head").dense.kernel.numpy()
    assert np.abs(head).max() > 0
    record = json.loads(result.provenance.read_text("utf-8"))
    assert record["recipe"]["guidance"] == 10.0
    assert record["recipe"]["transformer"] is True
    assert set(result.figures) == {"accuracy", "accuracy_upright", "rotation_left_degrees"}
    assert result.test_count == 4


def test_without_the_transformer_theta_stays_the_identity(photos):
    model = PhotosTask(photos, RECIPE, None, transformer=False).build()
    assert not model.get_layer("localization").trainable_weights
    assert not model.get_layer("theta_head").trainable_weights
    theta = model.predict(photos.test_images / np.float32(255), verbose=0)["theta"]
    np.testing.assert_array_equal(theta, np.tile([1, 0, 0, 0], (4, 1)))


def test_from_a_block_on(photos):
    model = PhotosTask(photos, RECIPE, None, trainable="block5").build()
    trained = {variable.path for variable in model.get_layer("vgg16").trainable_variables}
    assert {path.split("/")[-2] for path in trained} == {f"block5_conv{i}" for i in (1, 2, 3)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"weights": "nowhere.h5"}, "no such file"),
        ({"weights": None, "trainable": "block9"}, "has no such block"),
    ],
)
def test_what_cannot_be_is_said_before_training(arguments, says, photos):
    with pytest.raises(ValueError, match=says):
        PhotosTask(photos, RECIPE, **arguments)
