"""Models compared without TensorFlow: files of both formats, made here and not by stnkit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stnkit.runtime.backends import open_runner
from stnkit.runtime.equivalence import CompareOptions, compare_models
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.opening import open_subjects
from stnkit.runtime.equivalence.real_data import real_probes
from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.model_file import summarize
from stnkit.runtime.signature import TensorSpec

TAPS = {"st/theta": "loc:0/theta", "st/warped": "sampler/warped"}
ONNX_NAMES = Names({"image": "image_in"}, {"probabilities": "out_p", "features": "out_f"}, TAPS)


def onnx_subject(model, name="b.onnx"):
    return FileSubject(name, model, ONNX_NAMES)


def tflite_subject(model, name="b.tflite"):
    names = summarize(model).tap_names
    taps = {
        f"st/{kind}": next(n for n in names if n.endswith(kind)) for kind in ("theta", "warped")
    }
    # The converter sorts a dict's outputs by key.
    outputs = {"probabilities": "Identity_1", "features": "Identity"}
    return FileSubject(name, model, Names({"image": "image"}, outputs, taps))


def compare(reference, *candidates, **options):
    return compare_models(reference, candidates, CompareOptions(**options))


def required(report, kind):
    return report.candidates[0].required[kind]


def test_one_file_is_itself(onnx_model):
    report = compare(onnx_subject(onnx_model, "a"), onnx_subject(onnx_model, "b"))
    assert report.passed
    assert {item.kind for item in report.candidates[0].proof.comparisons} == {
        "output",
        "theta",
        "warped",
    }
    assert set(report.candidates[0].required.values()) == {0.0}
    names = [probe.name for probe in report.probes]
    assert names[:3] == ["noise_b1", "edges_b2", "patterns_b7"]
    assert all(probe.seed is not None for probe in report.probes)


def test_thetas_are_driven_through_the_file(onnx_model, toy):
    report = compare(onnx_subject(onnx_model, "a"), onnx_subject(onnx_model, "b"))
    driven = [probe for probe in report.probes if probe.driven]
    assert [probe.driven for probe in driven] == [("st",)] * len(driven) != []
    quiet = compare(onnx_subject(onnx_model, "a"), onnx_subject(onnx_model, "b"), drive=False)
    assert not any(probe.driven for probe in quiet.probes)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_driven_theta_takes_the_place_of_the_computed_one(kind, toy, request):
    content = request.getfixturevalue(f"{kind}_model")
    image = toy.images(3)
    subject = onnx_subject(content) if kind == "onnx" else tflite_subject(content)
    computed = subject.run({"image": image}, taps=True)["st/theta"]
    plain = subject.run({"image": image})
    same = subject.run({"image": image}, taps=True, drives={"st/theta": computed})
    for name, value in plain.items():
        np.testing.assert_array_equal(same[name], value)
    theta = np.tile(np.array([2, 0, 0.5, 0, 0, 0], np.float32), (3, 1))
    driven = subject.run({"image": image}, taps=True, drives={"st/theta": theta})
    # warped = image * theta[0] + theta[2], as the toy says.
    np.testing.assert_allclose(driven["st/warped"], 2 * image + 0.5, atol=1e-6)
    assert "st/theta" not in driven
    assert np.abs(driven["features"] - plain["features"]).max() > 1e-3


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_what_is_not_computed_cannot_be_driven(kind, request):
    content = request.getfixturevalue(f"{kind}_model")
    names = Names({"image": "image"}, {}, {"gone/theta": "gone/theta"})
    backend = {"onnx": "onnxruntime", "tflite": "litert"}[kind]
    with pytest.raises(InputError, match="gone/theta"):
        open_runner(backend, content, names, drives=["gone/theta"])


def test_formats_of_one_model_are_equal(onnx_model, tflite_model):
    report = compare(onnx_subject(onnx_model, "a"), tflite_subject(tflite_model))
    assert report.passed, report.failures
    assert 0 < report.candidates[0].proof.largest_error("output") < 1e-6
    assert report.candidates[0].notes == ()


def test_a_file_without_such_taps_is_compared_at_its_outputs_and_that_is_said(onnx_model):
    plain = FileSubject("b", onnx_model, Names(ONNX_NAMES.inputs, ONNX_NAMES.outputs, {}))
    (found,) = compare(onnx_subject(onnx_model, "a"), plain).candidates
    assert {item.kind for item in found.proof.comparisons} == {"output"}
    assert any("has no tensor" in note for note in found.notes)
    assert found.proof.skipped_cases  # those that would drive a theta that it does not show


def test_a_warp_that_the_outputs_hide(toy, onnx_model):
    report = compare(onnx_subject(onnx_model, "a"), onnx_subject(toy.onnx(warp_error=0.01)))
    assert not report.passed
    assert {item.kind for item in report.failures} == {"warped"}
    assert report.failures[0].worst_index[1:] == (3, 3, 0)
    assert required(report, "warped") == pytest.approx(0.01, rel=1e-3)


def test_a_given_tolerance_by_kind_and_by_tensor(toy, onnx_model):
    wrong = onnx_subject(toy.onnx(warp_error=0.01))
    assert compare(onnx_subject(onnx_model, "a"), wrong, atol={"warped": 0.02}).passed
    assert compare(onnx_subject(onnx_model, "a"), wrong, atol={"st/warped": 0.02}).passed
    report = compare(onnx_subject(onnx_model, "a"), wrong, atol={"st/warped": 1e-9})
    assert report.reasons["st/warped"].endswith("as given")
    with pytest.raises(InputError, match=r"--atol photo: there is .*features"):
        compare(onnx_subject(onnx_model, "a"), wrong, atol={"photo": 1})


def edited(content, edit):
    model = onnx.load_from_string(content)
    edit(model.graph)
    return model.SerializeToString()


def test_a_stranger_s_names_and_layout(onnx_model):
    """The same model, fed in NCHW and with names of its own."""

    def transposed(graph):
        old = graph.input[0]
        new = helper.make_tensor_value_info("photo", onnx.TensorProto.FLOAT, ["n", 1, 4, 4])
        graph.input.remove(old)
        graph.input.append(new)
        node = helper.make_node("Transpose", ["photo"], ["image_in"], perm=[0, 2, 3, 1])
        graph.node.insert(0, node)

    subject = FileSubject("foreign.onnx", edited(onnx_model, transposed))
    first = onnx_subject(onnx_model, "a")
    with pytest.raises(InputError, match="--layout B=nchw"):
        compare(first, subject)
    maps = {"probabilities": "out_p", "features": "out_f"}
    report = compare(first, subject, layouts={1: "nchw"}, maps=maps)
    assert report.passed, report.failures
    wrong = {"probabilities": "out_f", "features": "out_p"}
    assert not compare(first, subject, layouts={1: "nchw"}, maps=wrong).passed


def test_batches_that_are_mixed_up(onnx_model):
    def rolled(graph):
        """Answer item i with what belongs to item i + 1."""
        for node in graph.node:
            for index, name in enumerate(node.output):
                if name == "out_p":
                    node.output[index] = "out_p_right"
        graph.initializer.extend(
            numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in (("one", [1]), ("zero", [0]), ("far", [2**31]), ("axis", [0]))
        )
        graph.node.extend(
            [
                helper.make_node("Slice", ["out_p_right", "one", "far", "axis"], ["tail"]),
                helper.make_node("Slice", ["out_p_right", "zero", "one", "axis"], ["head"]),
                helper.make_node("Concat", ["tail", "head"], ["out_p"], axis=0),
            ]
        )

    report = compare(onnx_subject(onnx_model, "a"), onnx_subject(edited(onnx_model, rolled)))
    failed = {item.case for item in report.failures}
    assert "noise_b1" not in failed
    assert {"edges_b2", "patterns_b7"} <= failed


def test_a_fixed_batch_and_two_that_cannot_meet(onnx_model, tflite_fixed_model, toy):
    fixed = tflite_subject(tflite_fixed_model, "fixed.tflite")
    report = compare(onnx_subject(onnx_model, "a"), fixed)
    assert report.passed
    assert {probe.batch for probe in report.probes} == {2}
    with pytest.raises(InputError, match=r"no batch size .*takes 2.*takes 3"):
        compare(fixed, onnx_subject(toy.onnx(batch=3)))


def test_paths_and_bundles(tmp_path, maker, onnx_model, tflite_model):
    folder = maker.write(tmp_path / "toy.bundle", [tflite_model, onnx_model])
    assert [subject.format for subject in open_subjects(folder)] == ["tflite", "onnx"]
    # A bundle alone as the reference: its second artifact is compared with the first.
    report = compare(folder, folder)
    assert report.passed
    assert len(report.candidates) == 3
    loose = tmp_path / "copy.onnx"
    loose.write_bytes(onnx_model)
    assert compare(loose, loose).passed
    with pytest.raises(InputError, match="--map probabilities=NAME"):
        compare(folder, loose)
    maps = {"probabilities": "out_p", "features": "out_f"}
    with pytest.raises(InputError, match="has no input or output 'out_p'"):
        compare(folder, loose, maps=maps)  # the bundle's own second artifact knows no such name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither TFLite"),
        (b"\x08\x07" + bytes(64), "damaged|0 |no graph|holds no graph|number"),
        (b"....TFL3" + b"\xff" * 64, "damaged"),
        (b"<html>not a model</html>", "neither TFLite"),
    ],
)
def test_files_that_are_none(content, message, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_subjects(path)


def test_a_truncated_file(tmp_path, onnx_model, tflite_model):
    for name, content in (("a.onnx", onnx_model), ("a.tflite", tflite_model)):
        for part in (0.3, 0.7, 0.95):
            path = tmp_path / name
            path.write_bytes(content[: int(len(content) * part)])
            with pytest.raises((InputError, BackendError)):
                open_subjects(path)


def test_shapes_that_promise_the_moon(toy):
    def huge(graph):
        for dim in graph.input[0].type.tensor_type.shape.dim[1:3]:
            dim.dim_value = 2**31 - 1

    with pytest.raises((InputError, BackendError), match=r"MiB|refused|failed"):
        subject = onnx_subject(edited(toy.onnx(), huge))
        compare(subject, subject)


def test_a_graph_that_runs_in_a_circle(toy):
    def circle(graph):
        graph.node[1].input[0] = "logits"

    with pytest.raises(BackendError, match="refused"):
        onnx_subject(edited(toy.onnx(), circle))


class TestRealData:
    SPEC = TensorSpec("image", "float32", ("batch", 4, 4, 1))

    def test_a_folder_of_images(self, tmp_path):
        from PIL import Image

        for index, value in enumerate((0, 255)):
            Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / f"{index}.png")
        (probe,) = real_probes(tmp_path, (self.SPEC,), None)
        assert probe.name == "real_b2"
        assert probe.inputs["image"].shape == (2, 4, 4, 1)
        assert probe.inputs["image"][:, 0, 0, 0].tolist() == [0.0, 1.0]
        assert probe.seed is None

    def test_npz_and_npy(self, tmp_path):
        values = np.random.default_rng(0).random((9, 4, 4, 1)).astype(np.float32)
        np.savez(tmp_path / "x.npz", image=values, other=values)
        np.save(tmp_path / "x.npy", np.round(values * 255).astype(np.uint8))
        (probe,) = real_probes(tmp_path / "x.npz", (self.SPEC,), None)
        np.testing.assert_array_equal(probe.inputs["image"], values[:8])
        (probe,) = real_probes(tmp_path / "x.npy", (self.SPEC,), 4)
        np.testing.assert_allclose(probe.inputs["image"], values[:4], atol=0.5 / 255 + 1e-6)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("x.npz", {"photo": np.zeros((2, 4, 4, 1), "f4"), "b": np.zeros(2)}, "'image'"),
            ("x.npy", np.zeros((2, 5, 4, 1), np.float32), r"expected \[batch, 4, 4, 1\]"),
            ("x.npy", np.zeros((0, 4, 4, 1), np.float32), "holds 0 items"),
            ("x.npy", np.array([{"a": 1}]), "cannot be read"),
        ],
    )
    def test_data_that_does_not_fit(self, name, value, message, tmp_path):
        path = tmp_path / name
        if name.endswith("z"):
            np.savez(path, **value)
        else:
            np.save(path, value, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            real_probes(path, (self.SPEC,), None)

    def test_no_such_file_and_no_images(self, tmp_path):
        for path in (tmp_path, tmp_path / "x.npz", tmp_path / "x.txt"):
            with pytest.raises(InputError):
                real_probes(path, (self.SPEC,), None)

    def test_they_are_compared_on(self, tmp_path, onnx_model, toy):
        np.save(tmp_path / "x.npy", toy.images(3))
        report = compare(
            onnx_subject(onnx_model, "a"), onnx_subject(onnx_model), data=tmp_path / "x.npy"
        )
        assert "real_b3" in [probe.name for probe in report.probes]

    def test_they_never_narrow_a_budget(self, tmp_path, onnx_model, toy):
        """Eight dark images are more than any made-up batch, and carry errors less far."""
        np.save(tmp_path / "x.npy", toy.images(8) * np.float32(1e-3))
        pair = onnx_subject(onnx_model, "a"), onnx_subject(onnx_model)
        without = compare(*pair).tolerances
        beside = compare(*pair, data=tmp_path / "x.npy").tolerances
        for kind in ("output", "theta", "warped"):
            assert beside.of(kind).atol >= without.of(kind).atol
