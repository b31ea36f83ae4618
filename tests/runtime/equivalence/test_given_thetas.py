"""A theta that is an input of the model is given thetas through it; pictures of what they read."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from stnkit.runtime.equivalence import CompareOptions, compare_models
from stnkit.runtime.equivalence.answers import Answer, answer, driven_probes
from stnkit.runtime.equivalence.diagnosis.sampler import pixel_centres, read, to_pixels
from stnkit.runtime.equivalence.file_subject import FileSubject
from stnkit.runtime.equivalence.probes import Probe, make_probes
from stnkit.runtime.equivalence.subject import Tap
from stnkit.runtime.equivalence.thetas import grid_points
from stnkit.runtime.equivalence.views import views_of

node = helper.make_node


def warper(*between, used="theta", padding="zeros", extra=()):
    """Return a model that only warps: image [n, 8, 10, 1] by theta [n, 2, 3]."""
    nodes = [
        node("Identity", ["theta"], ["st/theta"]),
        *between,
        node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        node("Shape", ["planes"], ["size"]),
        node("AffineGrid", [used, "size"], ["grid"]),
        node("GridSample", ["planes", "grid"], ["read"], mode="linear", padding_mode=padding),
        node("Transpose", ["read"], ["st/warped"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["st/warped", "axes"], ["mean"], keepdims=0),
        *extra,
    ]
    outputs = [("mean", ["n"]), *(("also", ["n", 2, 3]) for _ in extra)]
    constants = {
        "axes": np.array([1, 2, 3]),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    graph = helper.make_graph(
        nodes,
        "warper",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8, 10, 1]),
            helper.make_tensor_value_info("theta", TensorProto.FLOAT, ["n", 2, 3]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def subject(name="a.onnx", **changes):
    return FileSubject(name, warper(**changes))


def given_probes(model):
    answers = [answer(model, probe) for probe in make_probes(model.inputs, None, (0.0, 1.0))]
    return driven_probes(model, answers, 1, None)


def test_thetas_go_in_by_the_input():
    probes = given_probes(subject())
    assert {probe.name.split("_")[0] for probe in probes} == {"usual", "extreme", "huge"}
    for probe in probes:
        assert not probe.drives
        (name,) = probe.given
        assert name == "st/theta"
        np.testing.assert_array_equal(probe.inputs["theta"], probe.given[name])
        assert probe.thetas == probe.given
        assert set(probe.only) == {"mean", "st/warped"}
    usual = next(probe for probe in probes if probe.name.startswith("usual"))
    assert np.abs(usual.inputs["theta"][:, 0, 0]).max() == 2  # zoomed out: no plain probe does


def test_of_a_theta_that_more_than_the_sampler_reads_the_image_counts():
    model = subject(extra=[node("Identity", ["theta"], ["also"])])
    assert {probe.only for probe in given_probes(model)} == {("st/warped",)}


def test_the_same_model_passes_on_every_theta():
    report = compare_models(subject(), [subject("b.onnx")])
    assert report.passed
    assert not report.candidates[0].proof.skipped_cases
    cases = {item.case for item in report.candidates[0].proof.comparisons}
    assert {"usual", "extreme", "huge"} <= {case.split("_")[0] for case in cases}


@pytest.mark.parametrize("shown", [True, False], ids=["taps", "no taps"])
def test_a_fault_that_only_such_thetas_show(shown):
    # No theta of a plain probe has a coefficient beyond 1.
    content = warper(node("Clip", ["theta", "low", "high"], ["used"]), used="used")
    if not shown:  # what goes in by an input needs no tap
        content = content.replace(b"st/theta", b"st_theta").replace(b"st/warped", b"st_warped")
    candidate = FileSubject("b.onnx", content)
    report = compare_models(subject(), [candidate], CompareOptions(views=shown, bisect=shown))
    assert not report.passed
    failed = {item.case.split("_")[0] for item in report.candidates[0].proof.failures}
    assert {"usual", "extreme"} <= failed <= {"usual", "extreme", "huge"}


def test_another_padding_shows_far_out_and_is_named():
    report = compare_models(subject(), [subject("b.onnx", padding="border")])
    failed = {item.case.split("_")[0] for item in report.candidates[0].proof.failures}
    assert {"usual", "extreme"} <= failed
    assert "padding" in report.candidates[0].findings[0].sentence


def test_budgets_grow_with_what_is_given():
    report = compare_models(subject(), [subject("b.onnx")])
    allowed = {
        item.case.split("_")[0]: item.tolerance.atol
        for item in report.candidates[0].proof.comparisons
        if item.tensor == "st/warped"
    }
    assert allowed["huge"] > allowed["usual"] > allowed["noise"]


def views_with(corners):
    """Return views of a sampler of a 6 x 12 image, identity among what it did."""
    rng = np.random.default_rng(5)
    image = rng.random((3, 6, 12, 1)).astype(np.float32)
    thetas = np.array([[1, 0, 0, 0, 1, 0], [0.5, 0, 0.1, 0, 0.5, 0], [0.8, 0.3, 0, -0.2, 0.9, 0]])
    rows, columns = (part.ravel() for part in np.indices((6, 12)))
    centres = [pixel_centres(columns, 12, corners), pixel_centres(rows, 6, corners)]
    warped = np.stack(
        [
            read(
                item,
                to_pixels(grid_points(theta, np.stack(centres, axis=1)), (6, 12), corners),
                "bilinear",
                "zeros",
                corners,
            ).reshape(6, 12, 1)
            for item, theta in zip(image, thetas, strict=True)
        ]
    )
    taps = (Tap.of_name("st/theta"), Tap.of_name("st/warped"))
    probe = Probe("usual_b3", {"image": image}, drives={"st/theta": thetas.astype(np.float32)})
    other = warped.copy()
    other[0] += 0.5  # the identity is what differs most, and is shown
    pair = (Answer(probe, {}, {"st/warped": warped}), Answer(probe, {}, {"st/warped": other}))
    (view,) = views_of(SimpleNamespace(taps=taps), [pair])
    return view


def test_the_identity_reads_the_whole_picture():
    outline = views_with(corners=False).outline_reference
    np.testing.assert_allclose(outline.max(axis=0), [1, 1])
    np.testing.assert_allclose(outline.min(axis=0), [-1, -1])


def test_with_corners_aligned_it_goes_through_the_centres_of_the_corner_pixels():
    view = views_with(corners=True)
    for outline in (view.outline_reference, view.outline_candidate):
        np.testing.assert_allclose(outline.max(axis=0), [11 / 12, 5 / 6], rtol=1e-6)
        np.testing.assert_allclose(outline[0], [-11 / 12, -5 / 6], rtol=1e-6)
