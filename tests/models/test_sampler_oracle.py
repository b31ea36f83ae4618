"""The sampler against PyTorch (stored, and live where installed) and ONNX Runtime's GridSample."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from stnkit.models import grid_sample

VECTORS = np.load(Path(__file__).parents[1] / "oracles" / "grid_sample_vectors.npz")
STORED_MODES = [
    (interpolation, padding_mode, align_corners == "True")
    for interpolation, padding_mode, align_corners in VECTORS["modes"].tolist()
]
MODES = list(
    itertools.product(("bilinear", "nearest"), ("zeros", "border", "reflection"), (False, True))
)
EXACT_SPATIAL = [(4, 8), (8, 3), (5, 9), (1, 4), (3, 1), (2, 2), (1, 1)]


def names(kind):
    found = {"_".join(key.split("_")[:2]) for key in VECTORS if key.startswith(kind)}
    return sorted(found, key=lambda name: int(name.split("_")[1]))


def mode_id(mode):
    interpolation, padding_mode, align_corners = mode
    return f"{interpolation}-{padding_mode}-{'aligned' if align_corners else 'edges'}"


def values_and_gradients(image, grid, upstream, mode):
    image, grid = tf.constant(image), tf.constant(grid)
    with tf.GradientTape() as tape:
        tape.watch([image, grid])
        values = grid_sample(image, grid, *mode)
        total = tf.reduce_sum(values * upstream)
    # Nearest has no derivative by the grid: TensorFlow may say so with None, torch says 0.
    gradients = tape.gradient(
        total, [image, grid], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return values.numpy(), *(tf.convert_to_tensor(gradient).numpy() for gradient in gradients)


def test_the_stored_vectors_cover_every_mode_and_say_where_they_come_from():
    assert STORED_MODES == MODES
    provenance = json.loads(str(VECTORS["provenance"]))
    assert provenance["torch"].startswith("2.")
    assert isinstance(provenance["seed"], int)
    sides = {VECTORS[f"{name}_image"].shape[1:3] for name in names("smooth")}
    assert any(height == 1 < width for height, width in sides)
    assert any(width == 1 < height for height, width in sides)
    assert (1, 1) in sides
    assert {VECTORS[f"{name}_image"].shape[3] for name in names("smooth")} == {1, 3, 4}
    assert min(np.abs(VECTORS[f"{name}_grid"]).max() for name in names("exact")) >= 999


@pytest.mark.parametrize("mode", STORED_MODES, ids=mode_id)
@pytest.mark.parametrize("name", names("smooth"))
def test_values_and_gradients_equal_the_stored_ones(name, mode, assert_close, tolerances):
    case = {key: VECTORS[f"{name}_{key}"] for key in ("image", "grid", "upstream")}
    values, grad_image, grad_grid = values_and_gradients(**case, mode=mode)
    index = STORED_MODES.index(mode)
    assert_close(values, VECTORS[f"{name}_values"][index], tolerances.sample)
    assert_close(grad_image, VECTORS[f"{name}_grad_image"][index], tolerances.gradient)
    assert_close(grad_grid, VECTORS[f"{name}_grad_grid"][index], tolerances.gradient)


@pytest.mark.parametrize("mode", STORED_MODES, ids=mode_id)
@pytest.mark.parametrize("name", names("exact"))
def test_values_on_ties_and_borders_equal_the_stored_ones(name, mode, assert_close, tolerances):
    received = grid_sample(VECTORS[f"{name}_image"], VECTORS[f"{name}_grid"], *mode).numpy()
    expected = VECTORS[f"{name}_values"][STORED_MODES.index(mode)]
    assert_close(received, expected, tolerances.exact)


@functools.cache
def grid_sample_session(opset, interpolation, padding_mode, align_corners):
    """Return ONNX Runtime's own kernel for one node, on NCHW, from the operator's first version."""
    renamed = {"bilinear": "linear", "nearest": "nearest"} if opset >= 20 else {}
    node = onnx.helper.make_node(
        "GridSample",
        ["image", "grid"],
        ["sampled"],
        mode=renamed.get(interpolation, interpolation),
        padding_mode=padding_mode,
        align_corners=int(align_corners),
    )
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "grid_sample",
        [tensor("image", kind, ["n", "c", "H", "W"]), tensor("grid", kind, ["n", "h", "w", 2])],
        [tensor("sampled", kind, ["n", "c", "h", "w"])],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=9 if opset >= 20 else 8,
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def onnx_runtime_sample(opset, image, grid, mode):
    session = grid_sample_session(opset, *mode)
    (sampled,) = session.run(None, {"image": image.transpose(0, 3, 1, 2), "grid": grid})
    return sampled.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("mode", MODES, ids=mode_id)
@pytest.mark.parametrize("seed", range(6))
def test_equals_onnx_runtime_on_random_shapes(
    seed, mode, opset, sampling_cases, assert_close, tolerances
):
    case = sampling_cases.draw_smooth_of_random_shape(np.random.default_rng([16, seed]))
    expected = onnx_runtime_sample(opset, case.image, case.grid, mode)
    received = grid_sample(case.image, case.grid, *mode).numpy()
    assert_close(received, expected, tolerances.sample)


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("mode", MODES, ids=mode_id)
@pytest.mark.parametrize("spatial", EXACT_SPATIAL, ids=str)
def test_equals_onnx_runtime_on_ties_and_borders(
    spatial, mode, opset, sampling_cases, assert_close, tolerances
):
    rng = np.random.default_rng([20, *spatial])
    case = sampling_cases.draw_exact(rng, spatial, channels=3, output=(9, 11))
    expected = onnx_runtime_sample(opset, case.image, case.grid, mode)
    received = grid_sample(case.image, case.grid, *mode).numpy()
    comparable = np.ones(received.shape[:-1], np.bool_)
    if mode == ("nearest", "reflection", False):
        # The two references part here, and here alone: on a tie outside the frame ONNX rounds
        # first and reflects the rounded pixel, PyTorch reflects first. stnkit does as PyTorch.
        for axis, size in enumerate(reversed(spatial)):
            pixel = sampling_cases.pixel_coordinate(case.grid[..., axis], size, False)
            outside = (pixel < -0.5) | (pixel > size - 0.5)
            comparable &= ~(outside & (pixel % 1 == 0.5))
        assert comparable.mean() > 0.3, "too little is left to compare"
    assert_close(received[comparable], expected[comparable], tolerances.exact)


@pytest.mark.parametrize("mode", MODES, ids=mode_id)
@pytest.mark.parametrize("seed", range(4))
def test_equals_live_torch(seed, mode, sampling_cases, torch_oracle, assert_close, tolerances):
    case = sampling_cases.draw_smooth_of_random_shape(np.random.default_rng([2, seed]))
    expected = torch_oracle.sample(case, *mode)
    received = values_and_gradients(case.image, case.grid, case.upstream, mode)
    for quantity, got, want in zip(
        ("sample", "gradient", "gradient"), received, expected, strict=True
    ):
        assert_close(got, want, getattr(tolerances, quantity))


def test_live_torch_still_says_what_is_stored(torch_oracle, assert_close, tolerances):
    built = torch_oracle.build(json.loads(str(VECTORS["provenance"]))["seed"])
    assert sorted(built) == sorted(VECTORS)
    for key, array in built.items():
        if key not in ("provenance", "modes"):
            assert_close(array, VECTORS[key], tolerances.exact)
