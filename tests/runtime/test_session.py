"""Sessions: answers equal the truth, wrong arrays are refused before a backend sees them."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime import BackendError, BackendMissingError, InputError, StnkitError, load
from stnkit.runtime.manifest import Classes, Signature, TensorSpec

FORMATS = ["tflite", "onnx"]


def hide(monkeypatch, *packages):
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in packages else real(name, *a)
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("taps", [False, True])
def test_outputs_and_taps_equal_the_truth_at_every_batch(both_path, toy, format, taps):
    with load(both_path, artifact=format) as session:
        assert session.artifact.format == format
        for count in (1, 5, 2, 5, 1):
            image = toy.images(count, seed=count + 10)
            before = image.copy()
            result = session.run({"image": image}, taps=taps)
            truth = toy.run(image)
            names = {"probabilities", "features"} | ({"st/theta", "st/warped"} if taps else set())
            assert set(result) == names
            for name in names:
                np.testing.assert_allclose(result[name], truth[name], rtol=0, atol=2e-6)
            np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("format", FORMATS)
def test_results_stay_as_they_are_when_the_session_runs_again(both_path, toy, format):
    with load(both_path, artifact=format) as session:
        first = session.run({"image": toy.images(2)}, taps=True)
        kept = {name: value.copy() for name, value in first.items()}
        session.run({"image": toy.images(2, seed=9)}, taps=True)
        for name, value in first.items():
            np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("format", FORMATS)
def test_arrays_that_are_not_contiguous(both_path, toy, format):
    image = toy.images(4)
    view = np.asfortranarray(image)[::-1]
    with load(both_path, artifact=format) as session:
        result = session.run({"image": view})
    np.testing.assert_allclose(
        result["features"], toy.run(image[::-1])["features"], rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("format", FORMATS)
def test_eight_threads_on_one_session(both_path, toy, format):
    wrong: list[str] = []
    with load(both_path, artifact=format, threads=1) as session:
        barrier = threading.Barrier(8)

        def work(seed: int) -> None:
            image = toy.images(1 + seed % 3, seed=seed)
            truth = toy.run(image)
            barrier.wait()
            for turn in range(40):
                result = session.run({"image": image}, taps=turn % 4 == seed % 4)
                for name, value in result.items():
                    if value.shape != truth[name].shape or np.abs(value - truth[name]).max() > 2e-6:
                        wrong.append(f"thread {seed} turn {turn}: {name}")

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ([[0.0]], ["list", "NumPy array", "float32"]),
        (np.zeros((1, 4, 4, 1)), ["float64", "expected float32", ".astype('float32')"]),
        (np.zeros((1, 4, 4, 1), np.uint8), ["uint8", "expected float32"]),
        (np.zeros((1, 4, 4, 1), ">f4"), [">f4", "expected float32"]),
        (np.zeros((4, 4, 1), np.float32), ["[4, 4, 1]", "[batch, 4, 4, 1]", "array[None]"]),
        (np.zeros((1, 4, 5, 1), np.float32), ["[1, 4, 5, 1]", "[batch, 4, 4, 1]"]),
        (np.zeros((0, 4, 4, 1), np.float32), ["[0, 4, 4, 1]", "[batch, 4, 4, 1]"]),
        (np.zeros((), np.float32), ["[]", "[batch, 4, 4, 1]"]),
    ],
)
def test_wrong_arrays_are_refused(bundle_path, value, parts):
    with load(bundle_path) as session, pytest.raises(InputError) as caught:
        session.run({"image": value})
    for part in ['input "image"', *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize("inputs", [{}, {"img": 1}, {"image": 1, "more": 2}])
def test_wrong_names_are_refused(bundle_path, inputs):
    with load(bundle_path) as session, pytest.raises(InputError, match='expected exactly "image"'):
        session.run(inputs)


def test_inputs_that_are_no_dict_are_refused(bundle_path, toy):
    with load(bundle_path) as session, pytest.raises(InputError, match="ndarray: expected a dict"):
        session.run(toy.images(1))


def test_use_after_close(bundle_path, toy):
    session = load(bundle_path)
    session.close()
    session.close()
    for taps in (False, True):
        with pytest.raises(StnkitError, match="session is closed"):
            session.run({"image": toy.images(1)}, taps=taps)
    with pytest.raises(StnkitError, match="session is closed"):
        session.predict([toy.images(1)[0]])


class TestChoice:
    """Which artifact and which backend `load` picks."""

    def test_first_installed_wins(self, both_path, monkeypatch):
        with load(both_path) as session:
            assert (session.backend, session.artifact.format) == ("litert", "tflite")
        hide(monkeypatch, "ai_edge_litert")
        with load(both_path) as session:
            assert (session.backend, session.artifact.format) == ("onnxruntime", "onnx")

    def test_backend_chooses_artifact(self, both_path):
        with load(both_path, backend="onnxruntime") as session:
            assert session.artifact.file == "model.fp32.onnx"

    def test_nothing_installed(self, bundle_path, monkeypatch):
        hide(monkeypatch, "onnxruntime")
        with pytest.raises(BackendMissingError) as caught:
            load(bundle_path)
        assert 'onnxruntime is not installed: pip install "stnkit[cpu]"' in str(caught.value)
        assert caught.value.extra == "cpu"
        assert caught.value.exit_code == 2

    def test_litert_missing_names_its_package(self, both_path, monkeypatch):
        hide(monkeypatch, "ai_edge_litert")
        with pytest.raises(BackendMissingError, match="pip install ai-edge-litert"):
            load(both_path, artifact="tflite")

    def test_unknown_backend(self, bundle_path):
        with pytest.raises(
            InputError, match='no backend "tpu": expected one of auto, litert, onnx'
        ):
            load(bundle_path, backend="tpu")

    def test_backend_for_another_format(self, bundle_path):
        with pytest.raises(InputError, match=r"litert backend runs tflite.*model\.fp32\.onnx"):
            load(bundle_path, backend="litert")

    def test_unknown_artifact(self, bundle_path):
        with pytest.raises(
            InputError, match=r'no artifact "x\.onnx": expected one of "model\.fp32'
        ):
            load(bundle_path, artifact="x.onnx")

    @pytest.mark.parametrize("threads", [0, -1])
    def test_bad_threads(self, bundle_path, threads):
        with pytest.raises(InputError, match=f"threads is {threads}: expected at least 1"):
            load(bundle_path, threads=threads)


def test_output_bound_to_a_tensor_that_is_not_there(maker, onnx_model, tmp_path):
    names = {"probabilities": "out_p", "features": "gone"}
    path = maker.write(tmp_path / "b", [onnx_model], artifact_changes={"outputs": names})
    with pytest.raises(BackendError, match='no tensor "gone" for the output "features"'):
        load(path)


def test_output_of_another_shape_than_declared(maker, onnx_model, tmp_path):
    signature = Signature(
        (TensorSpec("image", "float32", ("batch", 4, 4, 1)),),
        (
            TensorSpec("probabilities", "float32", ("batch", 3)),
            TensorSpec("features", "float32", ("batch", 4)),
        ),
    )
    case = maker.toy.case(1)
    case.outputs["features"] = np.zeros((1, 4), np.float32)
    path = maker.write(tmp_path / "b", [onnx_model], signature=signature, cases=(case,))
    with load(path) as session, pytest.raises(BackendError, match=r"\[2, 3\].*\[batch, 4\]"):
        session.run({"image": maker.toy.images(2)})


def test_a_model_the_backend_refuses(maker, toy, tmp_path):
    model = toy.onnx().replace(b"Softmax", b"Softmux")
    path = maker.write(tmp_path / "b", [model])
    with pytest.raises(BackendError, match="ONNX Runtime refused the model") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


class TestPredict:
    """Classification with the bundle's own pre- and post-processing."""

    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("batch_size", [1, 2, 32])
    def test_files_and_arrays_agree_with_the_truth(
        self, both_path, toy, tmp_path, format, batch_size
    ):
        pixels = np.random.default_rng(3).integers(0, 256, (5, 4, 4), dtype=np.uint8)
        files = []
        for i, image in enumerate(pixels):
            files.append(tmp_path / f"{i}.png")
            Image.fromarray(image).save(files[-1])
        truth = toy.run((pixels / 255).astype(np.float32)[..., None])["probabilities"]
        with load(both_path, artifact=format) as session:
            for images in (
                files,
                [str(file) for file in files],
                list(pixels),
                pixels[..., None],
                list((pixels / 255).astype(np.float32)),
            ):
                found = session.predict(images, batch_size=batch_size)
                scores = np.array([item.scores for item in found])
                np.testing.assert_allclose(scores, truth, rtol=0, atol=2e-6)
                for item, row in zip(found, truth, strict=True):
                    assert item.index == row.argmax()
                    assert item.label == ("cat", "dog", "owl")[row.argmax()]
                    assert item.score == max(item.scores)

    def test_logits_become_probabilities(self, maker, onnx_model, toy, tmp_path):
        classes = Classes("features", ("a", "b", "c"), "logits")
        path = maker.write(tmp_path / "b", [onnx_model], classes=classes)
        with load(path) as session:
            found = session.predict([toy.images(1)[0]])[0]
        logits = np.exp(toy.run(toy.images(1))["features"][0].astype(np.float64))
        np.testing.assert_allclose(found.scores, logits / logits.sum(), atol=1e-6)

    def test_nothing_gives_nothing(self, bundle_path):
        with load(bundle_path) as session:
            assert session.predict([]) == []

    def test_one_path_alone_is_refused(self, bundle_path):
        with load(bundle_path) as session, pytest.raises(InputError, match="expected a list"):
            session.predict("cat.png")

    def test_batch_size_zero(self, bundle_path, toy):
        with load(bundle_path) as session, pytest.raises(InputError, match="batch_size is 0"):
            session.predict([toy.images(1)[0]], batch_size=0)

    @pytest.mark.parametrize(
        ("image", "part"),
        [
            (np.full((4, 4), 255.0, np.float32), "values from 255 to 255: expected finite ones"),
            (np.full((4, 4), np.nan, np.float32), "values from nan to nan"),
            (np.zeros((5, 4), np.float32), "only uint8 images are resized"),
            (np.zeros((4, 4, 3), np.uint8), r"\[4, 4, 3\]: expected \[4, 4, 1\]"),
            (np.zeros((0, 4), np.uint8), r"\[0, 4\]: expected"),
            (np.zeros((4, 4), np.int64), "int64: expected uint8"),
        ],
    )
    def test_arrays_that_are_no_images(self, bundle_path, image, part):
        with load(bundle_path) as session, pytest.raises(InputError, match=f"image 1 .*{part}"):
            session.predict([np.zeros((4, 4), np.uint8), image])

    @pytest.mark.parametrize("field", ["preprocessing", "classes"])
    def test_bundle_without_it_says_run(self, maker, onnx_model, toy, tmp_path, field):
        path = maker.write(tmp_path / "b", [onnx_model], **{field: None})
        with load(path) as session, pytest.raises(InputError, match=r"use run\(\)"):
            session.predict([toy.images(1)[0]])


class TestWarp:
    """What the transformer looked at."""

    @pytest.mark.parametrize("format", FORMATS)
    def test_equals_the_truth(self, both_path, toy, format):
        images = toy.images(3)
        with load(both_path, artifact=format) as session:
            for name in (None, "st"):
                found = session.warp(list(images), transformer=name, batch_size=2)
                np.testing.assert_allclose(found, toy.run(images)["st/warped"], atol=2e-6)

    def test_unknown_transformer(self, bundle_path, toy):
        with load(bundle_path) as session, pytest.raises(InputError, match=r'"stn".*there is "st"'):
            session.warp([toy.images(1)[0]], transformer="stn")


class TestFixedBatch:
    """An artifact for one batch size."""

    @pytest.fixture(params=FORMATS)
    def path(self, request, maker, toy, tmp_path):
        model = (
            toy.onnx(batch=2)
            if request.param == "onnx"
            else request.getfixturevalue("tflite_fixed_model")
        )
        return maker.write(
            tmp_path / "fixed",
            [model],
            artifact_changes={"batch": 2},
            cases=(toy.case(1), toy.case(2)),
        )

    def test_predict_fills_the_last_batch_and_cuts_the_answer(self, path, toy):
        images = toy.images(5)
        with load(path) as session:
            found = session.predict(list(images), batch_size=32)
            warped = session.warp(list(images))
        assert len(found) == len(warped) == 5
        truth = toy.run(images)
        np.testing.assert_allclose([it.scores for it in found], truth["probabilities"], atol=2e-6)
        np.testing.assert_allclose(warped, truth["st/warped"], atol=2e-6)

    def test_run_takes_that_batch_only(self, path, toy):
        with load(path) as session:
            session.run({"image": toy.images(2)})
            with pytest.raises(InputError, match=r"expected \[2, 4, 4, 1\]; .*exactly 2"):
                session.run({"image": toy.images(3)})
