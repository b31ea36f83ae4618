"""The sampler that hypotheses are tried on, by hand and against ONNX Runtime's GridSample."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest

from stnkit.runtime.equivalence.diagnosis.sampler import pixel_centres, read, to_pixels
from stnkit.runtime.equivalence.diagnosis.warp_changes import changes_of
from stnkit.runtime.equivalence.diagnosis.warping import Change, Convention, Scene, predict

onnx = pytest.importorskip("onnx")

MODES = list(
    itertools.product(
        ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (False, True)
    )
)
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], np.float64)


def grid_sample(image, grid, interpolation, padding_mode, align_corners):
    """Return what ONNX Runtime makes of one image and its grid."""
    helper = onnx.helper
    node = helper.make_node(
        "GridSample",
        ["image", "grid"],
        ["warped"],
        mode=interpolation,
        padding_mode=padding_mode,
        align_corners=int(align_corners),
    )
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4)
        for name in ("image", "grid", "warped")
    ]
    graph = helper.make_graph([node], "oracle", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"image": image.transpose(2, 0, 1)[None], "grid": grid[None, None]}
    return session.run(None, feed)[0][0, :, 0].T


@pytest.mark.parametrize(("interpolation", "padding_mode", "align_corners"), MODES, ids=str)
def test_it_reads_what_onnx_runtime_reads(interpolation, padding_mode, align_corners):
    rng = np.random.default_rng(3)
    image = rng.random((5, 7, 2)).astype(np.float32)
    grid = rng.uniform(-2, 2, (300, 2)).astype(np.float32)
    expected = grid_sample(image, grid, interpolation, padding_mode, align_corners)
    pixels = to_pixels(grid, (5, 7), align_corners)
    found = read(image, pixels, interpolation, padding_mode, align_corners)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_pixel_centres_are_whole_numbers(align_corners):
    centres = pixel_centres(np.arange(6), 6, align_corners)
    grid = np.stack([centres, centres], axis=1)
    pixels = to_pixels(grid, (6, 6), align_corners)
    np.testing.assert_allclose(pixels[:, 0], np.arange(6), atol=1e-12)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("place", [np.nan, np.inf, -np.inf, 1e30])
def test_nothing_is_read_out_of_bounds(interpolation, place):
    pixels = np.array([[place, 1.0], [1.0, place]])
    for padding_mode in ("zeros", "border", "reflection"):
        found = read(np.ones((3, 4, 1)), pixels, interpolation, padding_mode, False)
        assert np.isfinite(found).all()


def scene(theta=IDENTITY, size=(6, 6)):
    rng = np.random.default_rng(1)
    rows, columns = (part.ravel() for part in np.indices(size))
    nothing = np.zeros((len(rows), 1))
    return Scene(rng.random((*size, 1)), theta, rows, columns, size, nothing, nothing)


def test_the_identity_changes_nothing():
    here = scene()
    found = predict(here, Convention("bilinear", "zeros", False, False))
    np.testing.assert_allclose(found, here.image.reshape(-1, 1), atol=1e-12)


def test_a_theta_without_known_meaning_is_not_guessed():
    here = scene(theta=np.zeros((3, 5)))
    assert predict(here, Convention("bilinear", "zeros", False, False)) is None


def test_changes_do_what_they_say():
    """Each is worked out by hand on the identity: what is read, and where."""
    here = scene()
    how = Convention("bilinear", "zeros", False, False)
    image = here.image[..., 0]

    def made(what):
        change = next(change for change in changes_of(how) if change.what.endswith(what))
        return predict(here, how, change).reshape(6, 6)

    lost, repeated = image.copy(), image.copy()
    lost[-1], repeated[-1] = 0, image[-2]
    np.testing.assert_allclose(made("last row of the warped image zero"), lost, atol=1e-12)
    np.testing.assert_allclose(made("last row but one of the warped image"), repeated, atol=1e-12)
    np.testing.assert_allclose(made("swaps x and y of the grid"), image.T, atol=1e-12)
    np.testing.assert_allclose(made("x running the other way"), image[:, ::-1], atol=1e-12)
    np.testing.assert_allclose(made("+1 px beside the right place in x")[:, :-1], image[:, 1:])
    half = made("+0.5 px beside the right place in x")
    np.testing.assert_allclose(half[:, :-1], (image[:, 1:] + image[:, :-1]) / 2, atol=1e-12)
    np.testing.assert_allclose(half[:, -1], image[:, -1] / 2, atol=1e-12)


def test_every_change_can_be_made_and_says_what_to_do():
    here = scene(theta=np.array([[0.8, 0.3, 0.2], [-0.2, 0.9, -0.4]]))
    how = Convention("bilinear", "zeros", False, False)
    changes = list(changes_of(how))
    assert len(changes) > 60
    same = predict(here, how)
    for change in changes:
        assert isinstance(change, Change)
        assert change.what
        assert change.advice
        found = predict(here, how, change)
        assert found.shape == same.shape
        assert np.isfinite(found).all()
