"""The grid generator against grids that PyTorch made, and against ONNX Runtime's AffineGrid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from stnkit.models import affine_grid

VECTORS = np.load(Path(__file__).parents[1] / "oracles" / "grid_sample_vectors.npz")
AFFINE = sorted({"_".join(key.split("_")[:2]) for key in VECTORS if key.startswith("affine_")})


def gradient_by_theta(theta, size, upstream, align_corners):
    variable = tf.constant(theta)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        grid = affine_grid(variable, size, align_corners)
        total = tf.reduce_sum(grid * upstream)
    return grid.numpy(), tape.gradient(total, variable).numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", AFFINE)
def test_values_and_gradients_equal_the_stored_ones(name, align_corners, assert_close, tolerances):
    expected = VECTORS[f"{name}_values"][int(align_corners)]
    theta, upstream = VECTORS[f"{name}_theta"], VECTORS[f"{name}_upstream"]
    grid, gradient = gradient_by_theta(theta, expected.shape[1:3], upstream, align_corners)
    assert_close(grid, expected, tolerances.grid)
    assert_close(gradient, VECTORS[f"{name}_grad_theta"][int(align_corners)], tolerances.gradient)


@pytest.mark.parametrize("name", AFFINE)
def test_six_vector_has_the_gradient_of_the_matrix(name, assert_close, tolerances):
    theta, upstream = VECTORS[f"{name}_theta"], VECTORS[f"{name}_upstream"]
    _, gradient = gradient_by_theta(
        theta.reshape(-1, 6), upstream.shape[1:3], upstream, align_corners=False
    )
    expected = VECTORS[f"{name}_grad_theta"][0].reshape(-1, 6)
    assert_close(gradient, expected, tolerances.gradient)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_equals_onnx_runtime(seed, align_corners, sampling_cases, assert_close, tolerances):
    rng = np.random.default_rng(seed)
    theta = sampling_cases.draw_theta(rng, batch=int(rng.integers(1, 4)))
    # From 2 on: with align_corners the operator's own formula divides by `side - 1`.
    height, width = (int(side) for side in rng.integers(2, 40, 2))
    session = affine_grid_session(align_corners)
    size = np.array([len(theta), 1, height, width], np.int64)
    (expected,) = session.run(None, {"theta": theta, "size": size})
    received = affine_grid(theta, (height, width), align_corners).numpy()
    assert_close(received, expected, tolerances.grid)


def affine_grid_session(align_corners):
    node = onnx.helper.make_node(
        "AffineGrid", ["theta", "size"], ["grid"], align_corners=int(align_corners)
    )
    tensor, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        [node],
        "affine_grid",
        [tensor("theta", kinds.FLOAT, ["n", 2, 3]), tensor("size", kinds.INT64, [4])],
        [tensor("grid", kinds.FLOAT, ["n", "h", "w", 2])],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_live_torch(
    seed, align_corners, sampling_cases, torch_oracle, assert_close, tolerances
):
    rng = np.random.default_rng(1000 + seed)
    size = tuple(int(side) for side in rng.integers(1, 12, 2))
    theta = sampling_cases.draw_theta(rng, batch=2)
    upstream = rng.uniform(-1, 1, (2, *size, 2)).astype(np.float32)
    expected, expected_gradient = torch_oracle.affine_grid(theta, size, upstream, align_corners)
    grid, gradient = gradient_by_theta(theta, size, upstream, align_corners)
    assert_close(grid, expected, tolerances.grid)
    assert_close(gradient, expected_gradient, tolerances.gradient)
