"""Registration of pairs: an affine map, then a flow, in one sampling."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import Affine, affine_grid, grid_sample, read_transformers
from stnkit.models.zoo import bending_energy, local_correlation_loss, registration_network

SHAPE = (16, 24, 2)
every_flow = pytest.mark.parametrize("flow", ["diffeomorphic", "dense"])


def network(flow="diffeomorphic", shape=SHAPE, **options):
    keras.utils.set_random_seed(1)
    return registration_network(shape, flow, (4, 8, 8), **options)


def stir(model, affine=0.15, bend=0.3):
    """Give both stages weights of their own, of a size that leaves most of the image in sight."""
    rng = np.random.default_rng(2)
    for name, amount in (("theta_head", affine), ("field", bend)):
        for variable in model.get_layer(name).variables:
            variable.assign_add(rng.normal(0, amount, variable.shape) / np.sqrt(variable.shape[0]))
    return model


def identity_grid(size=SHAPE[:2]):
    return affine_grid(Affine().identity()[np.newaxis], size).numpy()


@every_flow
@pytest.mark.parametrize("side", [(16, 32), (28, 20), (64, 64)], ids=str)
def test_untrained_it_returns_the_moving_image_and_no_flow(
    flow, side, draw, assert_close, tolerances
):
    model = network(flow, (*side, 1))
    inputs = draw(model)
    received = model(inputs)
    assert not np.any(received["flow"])
    assert received["flow"].shape == (2, *side, 2)
    if all(length & (length - 1) == 0 for length in side):
        assert np.array_equal(received["warped"], inputs["moving"])
    assert_close(received["warped"].numpy(), inputs["moving"], tolerances.sample)


@every_flow
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
def test_warped_is_the_moving_image_read_at_identity_plus_flow(
    flow, padding_mode, draw, assert_close, tolerances
):
    model = stir(network(flow, padding_mode=padding_mode))
    inputs = draw(model, 3)
    received = {key: value.numpy() for key, value in model(inputs).items()}
    assert np.abs(received["flow"]).max() > 0.1
    assert np.abs(received["warped"] - inputs["moving"]).max() > 0.1
    grid = identity_grid() + received["flow"]
    expected = grid_sample(inputs["moving"], grid, padding_mode=padding_mode).numpy()
    assert_close(received["warped"], expected, tolerances.sample)


@every_flow
def test_the_affine_stage_comes_first_and_the_flow_looks_at_what_it_made(
    flow, draw, assert_close, tolerances
):
    model = stir(network(flow))
    inputs = draw(model)
    near, both = read_transformers(model, inputs)
    assert (near.layer, both.layer) == ("affine_stage", "flow_stage")
    assert_close(
        near.warped,
        grid_sample(inputs["moving"], affine_grid(near.theta, SHAPE[:2])).numpy(),
        tolerances.sample,
    )
    assert_close(both.theta[:, :6], near.theta.reshape(2, 6), tolerances.exact)
    field = keras.Model(model.get_layer("near_pair").output, model.get_layer("field").output)
    bend = field(np.concatenate([near.warped, inputs["fixed"]], -1)).numpy()
    assert bend.shape == (2, 8, 12, 2)
    assert_close(both.theta[:, 6:], bend.reshape(2, -1), tolerances.exact)
    # The map is A (p + u(p)): the flow moves points first, the affine map after it.
    moved = both_grid(model, bend) @ np.swapaxes(near.theta[:, np.newaxis, :, :2], -1, -2)
    expected = moved + near.theta[:, np.newaxis, np.newaxis, :, 2]
    assert_close(identity_grid() + model(inputs)["flow"].numpy(), expected, 5 * tolerances.grid)


def both_grid(model, bend):
    """Return the grid of the flow alone, `[batch, height, width, 2]` float64."""
    flow = model.get_layer("flow_stage").transform.transforms[1]
    return flow.grid(bend, SHAPE[:2]).numpy().astype(np.float64)


def test_the_affine_part_alone_bends_nothing(draw):
    model = stir(network(), bend=0.0)
    flow = model(draw(model))["flow"]
    assert np.abs(flow).max() > 0.05
    assert np.abs(bending_energy(None, flow)).max() < 1e-7
    assert np.abs(bending_energy(None, stir(network())(draw(model))["flow"])).min() > 1e-3


def test_a_label_image_is_moved_by_the_same_flow(draw):
    """Nearest: what is read of a copy of the moving image are its own values."""
    model = stir(network(shape=(16, 24, 1)))
    inputs = draw(model)
    labels = (inputs["moving"] > 0.5).astype(np.float32)
    grid = identity_grid() + model(inputs)["flow"]
    moved = grid_sample(labels, grid, "nearest").numpy()
    assert set(np.unique(moved)) == {0.0, 1.0}


@every_flow
def test_training_with_both_losses_learns_and_is_saved(flow, draw, tmp_path, assert_close):
    model = network(flow, (16, 16, 1))
    inputs = draw(model, 4)
    inputs["moving"] = np.roll(inputs["fixed"], 1, axis=2)
    losses = {"warped": local_correlation_loss, "flow": bending_energy}
    model.compile("adam", losses, loss_weights={"warped": 1.0, "flow": 1e-4}, run_eagerly=True)
    wanted = {"warped": inputs["fixed"], "flow": np.zeros((4, 1, 1, 2), np.float32)}
    history = model.fit(inputs, wanted, epochs=4, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(loaded(inputs)["warped"].numpy(), model(inputs)["warped"].numpy(), 1e-6)
    assert loaded.loss == losses


def test_two_levels_and_other_steps():
    model = registration_network((6, 10, 1), filters=[2, 3], steps=2)
    assert model.get_layer("field").output.shape == (None, 3, 5, 2)
    assert model.get_layer("flow_stage").transform.transforms[1].steps == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flow": "affine"}, "flow is 'affine': expected one of 'diffeomorphic', 'dense'"),
        ({"filters": (16,)}, r"filters is \(16,\): expected the channels of 2 or more levels"),
        ({"filters": 16}, "filters is 16"),
        ({"filters": (16, -1)}, r"filters is \(16, -1\)"),
        ({"input_shape": (66, 64, 1)}, r"input_shape is \(66, 64, 1\): .* multiples of 4"),
        ({"input_shape": 64}, "input_shape is 64"),
        ({"steps": 0}, "steps is 0"),
        ({"padding_mode": "wrap"}, "padding_mode is 'wrap'"),
    ],
    ids=str,
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        registration_network(**arguments)


def test_inputs_have_names_and_not_an_order(draw):
    model = stir(network())
    inputs = draw(model)
    assert set(inputs) == {"moving", "fixed"}
    other = {"moving": inputs["fixed"], "fixed": inputs["moving"]}
    assert np.abs(model(inputs)["warped"] - model(other)["warped"]).max() > 0.1
    assert tf.nest.map_structure(lambda tensor: tensor.dtype, dict(model.output)) == {
        "flow": "float32",
        "warped": "float32",
    }
