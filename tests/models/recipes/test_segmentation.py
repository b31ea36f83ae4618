"""Segmentation of digits on clutter: its loss, its figures, and that it learns."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from stnkit.models.recipes.segmentation import CLUTTER, SegmentationTask, mask_loss
from stnkit.models.training.errors import DataError
from stnkit.models.training.recipe import Recipe

RECIPE = Recipe(epochs=3, seed=5, batch_size=16)
THETA_PARTS = ("localization", "theta_head")


@pytest.fixture(scope="module", params=[True, False], ids=["transformer", "frozen"])
def run(request, data, trained):
    """Return a task, the result of a whole run, and its losses."""
    task = SegmentationTask(data, RECIPE, transformer=request.param)
    return task, *trained(task)


def test_the_loss_by_hand():
    mask = np.array([[[1, 0], [0, 1]]], np.uint8)
    digit = np.array([[[0.8, 0.1], [0.0, 0.0]]], np.float32)
    probabilities = np.stack([1 - digit, digit], axis=-1)
    # The last pixel, missed altogether, counts as a probability of 0.001.
    entropy = -np.log([0.8, 0.9, 1.0, 0.001]).mean()
    overlap = (2 * 0.8 + 1) / (2 + 0.9 + 1)
    assert np.asarray(mask_loss(mask, probabilities)) == pytest.approx([entropy + 1 - overlap])


def test_the_loss_of_what_is_right_is_zero():
    mask = np.array([[[1, 0], [0, 1]], [[0, 0], [0, 0]]], np.uint8)
    probabilities = np.stack([1 - mask, mask], axis=-1).astype(np.float32)
    assert np.asarray(mask_loss(mask, probabilities)) == pytest.approx([0, 0], abs=1e-6)


def test_a_batch_is_a_function_of_its_numbers(data):
    first, again = SegmentationTask(data, RECIPE), SegmentationTask(data, RECIPE)
    expected = [first.batch(epoch, step) for epoch, step in [(0, 0), (1, 2), (1, 3)]]
    for place, want in [((1, 2), expected[1]), ((0, 0), expected[0])]:
        for got, array in zip(again.batch(*place), want, strict=True):
            assert np.array_equal(got, array)
    scenes, masks = expected[0]
    assert scenes.shape == (16, 64, 64, 1)
    assert masks.shape == (16, 64, 64)
    assert not np.array_equal(scenes, expected[1][0])


def test_scenes_and_masks_belong_together(data):
    scenes, masks = SegmentationTask(data, RECIPE).batch(0, 0)
    # Noise aside, every pixel of the digit is brighter than half.
    assert scenes[..., 0][masks > 0].min() > 0.5 - 6 * CLUTTER.noise
    assert 0.01 < masks.mean() < 0.1


class Crafted:
    """Predicts what a function makes of the true masks, scene by scene in the test's order."""

    def __init__(self, data, change):
        rng = np.random.default_rng(2015)
        _, masks = CLUTTER.draw(rng, data.test_images, np.arange(len(data.test_images)))
        self.masks, self.digit = masks, change(masks.astype(np.float32))

    def predict(self, scenes, batch_size, verbose):
        assert scenes.shape == (*self.digit.shape, 1)
        return np.stack([1 - self.digit, self.digit], axis=-1)


def figures(data, change):
    crafted = Crafted(data, change)
    evaluation = SegmentationTask(data, RECIPE).evaluate(crafted)
    assert evaluation.count == 24
    return crafted.masks, evaluation.figures


def test_figures_of_crafted_predictions(data):
    masks, received = figures(data, lambda masks: 0.51 * masks)
    assert received == {"iou": 1, "dice": 1, "pixel_accuracy": 1}
    masks, received = figures(data, lambda masks: 0.5 * masks)  # not above a half: nothing found
    assert received == {
        "iou": 0,
        "dice": 0,
        "pixel_accuracy": pytest.approx(1 - masks.mean()),
    }
    masks, received = figures(data, np.ones_like)  # everything found
    share = masks.mean(axis=(1, 2))
    assert received == {
        "iou": pytest.approx(share.mean()),
        "dice": pytest.approx((2 * share / (share + 1)).mean()),
        "pixel_accuracy": pytest.approx(masks.mean()),
    }


def test_training_lowers_the_loss(run):
    _, _, losses = run
    assert losses[2] < 0.97 * losses[0]


def test_theta_is_learnt_or_stays_the_identity(run):
    task, result, _ = run
    model = keras.saving.load_model(result.model)
    assert not model.compiled
    keras.utils.set_random_seed(RECIPE.seed)
    start = task.build()
    learnt = task.settings()["transformer"]
    for name in THETA_PARTS:
        pairs = zip(
            model.get_layer(name).get_weights(), start.get_layer(name).get_weights(), strict=True
        )
        assert any(not np.array_equal(*pair) for pair in pairs) is learnt
        assert bool(model.get_layer(name).trainable_variables) is learnt
    scenes, _ = task.batch(0, 0)
    theta = keras.Model(model.input, model.get_layer("theta_head").output).predict(
        scenes, verbose=0
    )
    assert np.allclose(theta, [1, 0, 0, 0], atol=1e-6) is not learnt


def test_the_figures_are_those_of_the_saved_network(run):
    task, result, _ = run
    model = keras.saving.load_model(result.model)
    assert task.evaluate(model).figures == pytest.approx(result.figures, abs=1e-6)


def test_the_provenance_says_how_it_was_made(run, data):
    task, result, _ = run
    record = json.loads(result.provenance.read_text("utf-8"))
    clutter = json.loads(json.dumps(dataclasses.asdict(CLUTTER)))
    assert set(clutter) == {"side_px", "placement", "pieces", "piece_px", "noise"}
    assert record["recipe"] == {
        "epochs": 3,
        "seed": 5,
        "batch_size": 16,
        "transformer": task.settings()["transformer"],
        "clutter": clutter,
        "learning_rate": 1e-3,
    }
    assert record["data"] == {"source": "idx", "sha256": data.checksums, "train_count": 96}
    assert record["test"] == {**result.figures, "count": 24, "scenes_seed": 2015}


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_digit_alone_is_refused(part, data):
    few = {f"{part}_images": data.train_images[:1], f"{part}_labels": data.train_labels[:1]}
    with pytest.raises(DataError, match="two at least"):
        SegmentationTask(dataclasses.replace(data, **few), RECIPE)
