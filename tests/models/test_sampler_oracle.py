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

from stnkit.models import GridSampler, grid_sample

VECTORS = np.load(Path(__file__).parents[1] / "oracles" / "grid_sample_vectors.npz")
PADDING_MODES = ("zeros", "border", "reflection")
MODES = list(itertools.product(("bilinear", "nearest", "bicubic"), PADDING_MODES, (False, True)))
VOLUME_MODES = [mode for mode in MODES if mode[0] != "bicubic"]
EXACT_SPATIAL = [(4, 8), (8, 3), (5, 9), (1, 4), (3, 1), (2, 2), (1, 1)]
THIN_SPATIAL = [(1, 7), (6, 1), (1, 1), (1, 1, 4), (1, 5, 1), (3, 1, 1), (1, 1, 1)]
EXACT_VOLUMES = [(4, 2, 8), (3, 5, 9), (1, 4, 1), (2, 1, 3)]


def stored_modes(key):
    return [(*mode[:2], mode[2] == "True") for mode in map(tuple, VECTORS[key].tolist())]


def names(kind):
    found = {"_".join(key.split("_")[:2]) for key in VECTORS if key.startswith(f"{kind}_")}
    return sorted(found - {"volume_modes"}, key=lambda name: int(name.split("_")[1]))


def cases_and_modes(images, volumes):
    """Return every stored case of two kinds with every mode stored for it."""
    return [
        pytest.param(name, mode, id=f"{name}-{mode_id(mode)}")
        for kind, modes in ((images, MODES), (volumes, VOLUME_MODES))
        for name in names(kind)
        for mode in modes
    ]


def stored(name, quantity, mode):
    modes = VOLUME_MODES if name.startswith("volume") else MODES
    return VECTORS[f"{name}_{quantity}"][modes.index(mode)]


def exactness(mode, tolerances):
    """Return what an exact case may be off by: the weights of cubics are rounded, and 16."""
    return tolerances.sample if mode[0] == "bicubic" else tolerances.exact


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
    assert stored_modes("modes") == MODES
    assert stored_modes("volume_modes") == VOLUME_MODES
    provenance = json.loads(str(VECTORS["provenance"]))
    assert provenance["torch"].startswith("2.13.")
    assert isinstance(provenance["seed"], int)
    sides = {VECTORS[f"{name}_image"].shape[1:3] for name in names("smooth")}
    assert any(height == 1 < width for height, width in sides)
    assert any(width == 1 < height for height, width in sides)
    assert (1, 1) in sides
    assert {VECTORS[f"{name}_image"].shape[3] for name in names("smooth")} == {1, 3, 4}
    assert min(np.abs(VECTORS[f"{name}_grid"]).max() for name in names("exact")) >= 999
    assert min(np.abs(VECTORS[f"{name}_grid"]).max() for name in names("volumeexact")) >= 64
    volumes = [VECTORS[f"{name}_image"].shape[1:4] for name in names("volume")]
    assert (1, 1, 1) in volumes
    assert any(len(set(sides)) == 3 for sides in volumes)


@pytest.mark.parametrize(("name", "mode"), cases_and_modes("smooth", "volume"))
def test_values_and_gradients_equal_the_stored_ones(name, mode, assert_close, tolerances):
    case = {key: VECTORS[f"{name}_{key}"] for key in ("image", "grid", "upstream")}
    values, grad_image, grad_grid = values_and_gradients(**case, mode=mode)
    assert_close(values, stored(name, "values", mode), tolerances.sample)
    assert_close(grad_image, stored(name, "grad_image", mode), tolerances.gradient)
    assert_close(grad_grid, stored(name, "grad_grid", mode), tolerances.gradient)


@pytest.mark.parametrize(("name", "mode"), cases_and_modes("exact", "volumeexact"))
def test_values_on_ties_and_borders_equal_the_stored_ones(name, mode, assert_close, tolerances):
    received = grid_sample(VECTORS[f"{name}_image"], VECTORS[f"{name}_grid"], *mode).numpy()
    assert_close(received, stored(name, "values", mode), exactness(mode, tolerances))


FORMS = {"trained": (None, 4), "compiled": (True, 4), "compiled, rows": (True, 0)}
"""In training: whether XLA compiles, and up to how many channels are few there."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for kind in ("smooth", "exact")
        for name in names(kind)
        for mode in MODES
        if mode[0] == "bilinear" and mode[1] != "reflection"  # which have further forms
    ],
    ids=lambda value: value if isinstance(value, str) else mode_id(value),
)
def test_forms_of_training_equal_the_stored_ones(
    form, name, mode, assert_close, tolerances, monkeypatch
):
    jit, few = FORMS[form]
    monkeypatch.setattr("stnkit.models.sampling.compiled_blending.FEW_CHANNELS", few)
    sampler = GridSampler(*mode)
    image, grid = (tf.constant(VECTORS[f"{name}_{key}"]) for key in ("image", "grid"))

    def sample(image, grid):
        return sampler([image, grid], training=True)

    def gradients(image, grid):
        with tf.GradientTape() as tape:
            tape.watch([image, grid])
            total = tf.reduce_sum(sample(image, grid) * VECTORS[f"{name}_upstream"])
        return tape.gradient(total, [image, grid])

    values = tf.function(sample, jit_compile=jit, autograph=False)(image, grid).numpy()
    if name.startswith("exact"):
        assert_close(values, stored(name, "values", mode), tolerances.exact)
        return
    assert_close(values, stored(name, "values", mode), tolerances.sample)
    found = tf.function(gradients, jit_compile=jit, autograph=False)(image, grid)
    for key, gradient in zip(("grad_image", "grad_grid"), found, strict=True):
        assert_close(gradient.numpy(), stored(name, key, mode), tolerances.gradient)


@functools.cache
def grid_sample_session(opset, axes, interpolation, padding_mode, align_corners):
    """Return ONNX Runtime's own kernel for one node, on NCHW, from the operator's first version."""
    renamed = {"bilinear": "linear", "bicubic": "cubic"} if opset >= 20 else {}
    node = onnx.helper.make_node(
        "GridSample",
        ["image", "grid"],
        ["sampled"],
        mode=renamed.get(interpolation, interpolation),
        padding_mode=padding_mode,
        align_corners=int(align_corners),
    )
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    whole, read = (["D", "H", "W"][-axes:], ["d", "h", "w"][-axes:])
    graph = onnx.helper.make_graph(
        [node],
        "grid_sample",
        [tensor("image", kind, ["n", "c", *whole]), tensor("grid", kind, ["n", *read, axes])],
        [tensor("sampled", kind, ["n", "c", *read])],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=9 if opset >= 20 else 8,
    )
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the images are tiny: threads would only wait
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_runtime_sample(opset, image, grid, mode):
    session = grid_sample_session(opset, grid.shape[-1], *mode)
    (sampled,) = session.run(None, {"image": np.moveaxis(image, -1, 1), "grid": grid})
    return np.moveaxis(sampled, 1, -1)


# The operator takes volumes from opset 20 on.
OPSETS = {2: (16, 20), 3: (20,)}
every_mode = pytest.mark.parametrize(
    ("axes", "mode"),
    [
        pytest.param(axes, mode, id=f"{axes}d-{mode_id(mode)}")
        for axes, modes in ((2, MODES), (3, VOLUME_MODES))
        for mode in modes
    ],
)


@every_mode
@pytest.mark.parametrize("seed", range(4))
def test_equals_onnx_runtime_on_random_shapes(
    seed, axes, mode, sampling_cases, assert_close, tolerances
):
    case = sampling_cases.draw_smooth_of_random_shape(np.random.default_rng([16, seed]), axes)
    received = grid_sample(case.image, case.grid, *mode).numpy()
    for opset in OPSETS[axes]:
        expected = onnx_runtime_sample(opset, case.image, case.grid, mode)
        assert_close(received, expected, tolerances.sample)


@pytest.mark.parametrize(
    ("spatial", "mode"),
    [
        pytest.param(spatial, mode, id=f"{spatial}-{mode_id(mode)}")
        for spatial in THIN_SPATIAL
        for mode in (MODES if len(spatial) == 2 else VOLUME_MODES)
    ],
)
def test_equals_onnx_runtime_where_a_side_is_one_pixel(
    spatial, mode, sampling_cases, assert_close, tolerances
):
    axes = len(spatial)
    rng = np.random.default_rng([17, *spatial])
    case = sampling_cases.draw_smooth(rng, 2, spatial, 3, (5, 6, 4)[:axes])
    received = grid_sample(case.image, case.grid, *mode).numpy()
    for opset in OPSETS[axes]:
        expected = onnx_runtime_sample(opset, case.image, case.grid, mode)
        assert_close(received, expected, tolerances.sample)


FAR_OUT = [-1e6, -12345.678, -55.5, 3.25, 777.7, 1e6]


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode[1] != "reflection"], ids=mode_id)
@pytest.mark.parametrize("spatial", [(4, 5), (1, 6), (1, 1)], ids=str)
def test_equals_onnx_runtime_far_out_of_the_frame(spatial, mode, assert_close, tolerances):
    """One coordinate far out or both. Reflected so far, float32 cannot say on which pixel."""
    image = np.random.default_rng(spatial).random((1, *spatial, 3), np.float32)
    x, y = np.meshgrid([*FAR_OUT, 0.1, -0.3], [*FAR_OUT, 0.15, -0.35])
    grid = np.stack([x, y], -1)[None].astype(np.float32)
    received = grid_sample(image, grid, *mode).numpy()
    for opset in OPSETS[2]:
        expected = onnx_runtime_sample(opset, image, grid, mode)
        assert_close(received, expected, tolerances.sample)


@pytest.mark.parametrize(
    ("spatial", "mode"),
    [
        pytest.param(spatial, mode, id=f"{spatial}-{mode_id(mode)}")
        for spatials, modes in ((EXACT_SPATIAL, MODES), (EXACT_VOLUMES, VOLUME_MODES))
        for spatial in spatials
        for mode in modes
    ],
)
def test_equals_onnx_runtime_on_ties_and_borders(
    spatial, mode, sampling_cases, assert_close, tolerances
):
    axes = len(spatial)
    rng = np.random.default_rng([20, *spatial])
    case = sampling_cases.draw_exact(rng, spatial, channels=3, output=(9, 11, 5)[:axes])
    received = grid_sample(case.image, case.grid, *mode).numpy()
    comparable = np.ones(received.shape[:-1], np.bool_)
    if mode == ("nearest", "reflection", False):
        # The two references part here, and here alone: on a tie outside the frame ONNX rounds
        # first and reflects the rounded pixel, PyTorch reflects first. stnkit does as PyTorch.
        for axis, size in enumerate(reversed(spatial)):
            pixel = sampling_cases.pixel_coordinate(case.grid[..., axis], size, False)
            outside = (pixel < -0.5) | (pixel > size - 0.5)
            comparable &= ~(outside & (pixel % 1 == 0.5))
        assert comparable.mean() > (0.3 if axes == 2 else 0.2), "too little is left to compare"
    for opset in OPSETS[axes]:
        expected = onnx_runtime_sample(opset, case.image, case.grid, mode)
        assert_close(received[comparable], expected[comparable], exactness(mode, tolerances))


@every_mode
@pytest.mark.parametrize("seed", range(4))
def test_equals_live_torch(
    seed, axes, mode, sampling_cases, torch_oracle, assert_close, tolerances
):
    case = sampling_cases.draw_smooth_of_random_shape(np.random.default_rng([2, seed]), axes)
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
        if key not in ("provenance", "modes", "volume_modes"):
            assert_close(array, VECTORS[key], tolerances.exact)
