"""`SpatialTransformer` with every transform, wherever Keras can take a model.

Compiled by XLA, exported, cloned, in half precision, and on two devices of a MirroredStrategy.
Saving and loading each transform stands in `test_layer_transforms.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from stnkit.models import (
    Affine,
    Attention,
    DenseFlow,
    DiffeomorphicFlow,
    InverseSpatialTransformer,
    Projective,
    Similarity,
    SpatialTransformer,
    ThinPlateSpline,
    Translation,
    grid_sample,
    localization_cnn,
    transform_names,
)

SIZE = (8, 10)
TRANSFORMS = [
    Translation(),
    Attention(bounds=0.4),
    Similarity(),
    Affine(),
    Projective(),
    ThinPlateSpline(3),
    DenseFlow((3, 4)),
    DiffeomorphicFlow((4, 5), steps=2),
]
INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
PADDING_MODES = ("zeros", "border", "reflection")
# Every pair of interpolation and padding; both alignments.
MODES = [
    (interpolation, padding_mode, (row + column) % 2 == 0)
    for row, interpolation in enumerate(INTERPOLATIONS)
    for column, padding_mode in enumerate(PADDING_MODES)
]
PRODUCT = [
    pytest.param(transform, mode, id=f"{transform.name}-{'-'.join(map(str, mode))}")
    for transform in TRANSFORMS
    for mode in MODES
]
# Every transform once, and every mode: the last goes to an affine transform.
ONE_EACH = [*PRODUCT[: 8 * 9 : 10], PRODUCT[3 * 9 + 8]]
every_combination = pytest.mark.parametrize(("transform", "mode"), PRODUCT)
every_transform = pytest.mark.parametrize(("transform", "mode"), ONE_EACH)


@pytest.fixture
def image():
    return np.random.default_rng(1).uniform(0, 1, (3, *SIZE, 2)).astype(np.float32)


def near_identity(transform, batch=3, amount=0.08):
    noise = np.random.default_rng(2).uniform(-amount, amount, (batch, *transform.theta_shape))
    return (transform.identity() + noise).astype(np.float32)


def layer_of(transform, mode, net=None, **options):
    return SpatialTransformer(net, (7, 6), *mode, transform=transform, name="stn", **options)


def model_of(transform, mode):
    """Return a model that finds theta itself, disturbed: nothing in it is the identity."""
    keras.utils.set_random_seed(5)
    layer = layer_of(transform, mode, localization_cnn((2,), 4, 3))
    model = keras.Sequential([keras.Input((*SIZE, 2), name="image"), layer])
    rng = np.random.default_rng(8)
    for weight in layer.theta_head.weights:
        weight.assign_add(rng.uniform(-0.2, 0.2, weight.shape))
    return model


def test_every_transform_and_every_mode_is_met():
    known = set(transform_names()) - {"chain"}
    assert {transform.name for transform in TRANSFORMS} == known
    assert {parameter.values[0].name for parameter in ONE_EACH} == known
    assert {parameter.values[1] for parameter in ONE_EACH} == set(MODES)


@every_transform
def test_xla_equals_eager_in_values_and_gradients(image, transform, mode, assert_close, tolerances):
    layer = layer_of(transform, mode)
    weights = np.random.default_rng(3).uniform(-1, 1, (3, 7, 6, 2)).astype(np.float32)

    def step(image, theta):
        with tf.GradientTape() as tape:
            tape.watch([image, theta])
            warped = layer([image, theta])
            total = tf.reduce_sum(warped * weights)
        zero = tf.UnconnectedGradients.ZERO  # nearest has no gradient by theta
        by_image, by_theta = tape.gradient(total, [image, theta], unconnected_gradients=zero)
        return warped, tf.convert_to_tensor(by_image), by_theta

    inputs = [tf.constant(image), tf.constant(near_identity(transform))]
    expected = [part.numpy() for part in step(*inputs)]
    received = [part.numpy() for part in tf.function(step, jit_compile=True)(*inputs)]
    assert_close(received[0], expected[0], tolerances.sample)
    assert_close(received[1], expected[1], tolerances.gradient)
    assert_close(received[2], expected[2], tolerances.gradient)
    assert np.abs(expected[1]).max() > 0.1
    assert (np.abs(expected[2]).max() > 0.1) == (mode[0] != "nearest")


@every_transform
def test_clone_has_its_own_weights_and_the_same_answer(
    image, transform, mode, assert_close, tolerances
):
    model = model_of(transform, mode)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert clone.get_layer("stn").transform == transform
    assert clone.get_layer("stn").get_config()["padding_mode"] == mode[1]
    expected = model(image).numpy()
    assert_close(clone(image).numpy(), expected, tolerances.exact)
    clone.get_layer("stn").theta_head.set_weights(
        [part + 1 for part in model.get_layer("stn").theta_head.get_weights()]
    )
    assert np.array_equal(model(image).numpy(), expected)


@every_transform
def test_exported_and_served(image, transform, mode, tmp_path, assert_close, tolerances):
    model = model_of(transform, mode)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    for batch in (1, 3):
        expected = model(image[:batch]).numpy()
        assert_close(loaded.serve(image[:batch]).numpy(), expected, tolerances.sample)


@every_combination
def test_half_precision_warps_by_a_theta_of_float32(image, transform, mode, assert_close):
    layer = layer_of(transform, mode, dtype="mixed_float16")
    theta = near_identity(transform)
    received = layer([image, theta])
    assert received.dtype == tf.float16
    rounded = image.astype(np.float16).astype(np.float32)
    expected = grid_sample(rounded, transform.grid(theta, (7, 6), mode[2]), *mode).numpy()
    # The pixels alone are rounded: at nearest not even they are blended.
    assert_close(received.numpy().astype(np.float32), expected, 0 if mode[0] == "nearest" else 4e-3)


@pytest.mark.parametrize(("transform", "mode"), [ONE_EACH[1], ONE_EACH[4]])
def test_the_way_back_survives_all_of_it(image, transform, mode, tmp_path, assert_close):
    inputs = [keras.Input((*SIZE, 2)), keras.Input((transform.num_params,))]
    layer = InverseSpatialTransformer((9, 5), *mode, transform=transform)
    model = keras.Model(inputs, layer(inputs))
    given = [image, near_identity(transform).reshape(3, -1)]
    expected = model(given).numpy()
    assert_close(keras.models.clone_model(model)(given).numpy(), expected, 1e-6)
    assert_close(tf.function(model, jit_compile=True)(given).numpy(), expected, 1e-5)
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(given).numpy(), expected, 1e-6)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    assert_close(loaded.serve(given).numpy(), expected, 1e-5)


# Devices can be split before TensorFlow starts and not after: a process of its own.
DISTRIBUTED = """
import json, sys, tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from stnkit.models import SpatialTransformer, localization_cnn

CASES = json.loads(sys.argv[1])
rng = np.random.default_rng(1)
images = rng.uniform(0, 1, (6, 8, 10, 2)).astype("float32")
targets = rng.uniform(0, 1, (6, 3)).astype("float32")


def make():
    # A transformer of every case, side by side.
    keras.utils.set_random_seed(7)
    image, noise, parts = keras.Input((8, 10, 2)), np.random.default_rng(8), []
    for transform, mode in CASES:
        stn = SpatialTransformer(
            localization_cnn((2,), 4, 3), (7, 6), *mode, transform=transform, name=transform["name"]
        )
        warped = keras.layers.Flatten()(stn(image))
        parts.append(keras.layers.Dense(3)(warped))
        for weight in stn.theta_head.weights:
            weight.assign_add(noise.uniform(-0.2, 0.2, weight.shape))
    model = keras.Model(image, keras.layers.Average()(parts))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def weights(model):
    return {name: model.get_layer(name).get_weights() for name in names}


def step(model):
    before = weights(model)
    data = tf.data.Dataset.from_tensor_slices((images, targets)).batch(6)
    loss = model.fit(data, epochs=1, verbose=0).history["loss"][0]
    return loss, before, weights(model), model(images).numpy()


def gap(a, b):
    return [float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True)]


names = [transform["name"] for transform, _ in CASES]
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
plain = step(make())
with strategy.scope():
    model = make()
spread = step(model)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "model.keras")
    model.save(path)
    alone = keras.saving.load_model(path)
    with strategy.scope():
        again = keras.saving.load_model(path)
print(json.dumps({
    "replicas": strategy.num_replicas_in_sync,
    "loss": abs(plain[0] - spread[0]),
    "output": gap([plain[3]], [spread[3]]),
    "loaded": gap([alone(images).numpy(), again(images).numpy()], [spread[3]] * 2),
    "weights": {name: max(gap(plain[2][name], spread[2][name])) for name in names},
    "moved": {name: gap(spread[1][name], spread[2][name]) for name in names},
}))
"""


def test_one_step_on_two_devices_is_the_step_on_one(tmp_path):
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    cases = [
        ({"name": transform.name, **transform.get_config()}, mode)
        for transform, mode in (parameter.values for parameter in ONE_EACH[:8])
    ]
    result = subprocess.run(
        [sys.executable, script, json.dumps(cases)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    # The devices add up half of the batch each: another order of summation.
    assert found["loss"] < 1e-6
    assert max(found["output"]) < 1e-5
    assert max(found["loaded"]) < 1e-6
    for transform, (interpolation, _, _) in cases:
        name = transform["name"]
        assert found["weights"][name] < 1e-6, name
        # A theta that reads the nearest pixel has no gradient, and nothing before it learns.
        assert (min(found["moved"][name]) > 1e-5) == (interpolation != "nearest"), name
