"""Outputs written to arrays that are there already: which, where, and which are refused."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from stnkit.runtime import BackendError, InputError, load
from stnkit.runtime.manifest import Signature, TensorSpec

FORMATS = ["tflite", "onnx"]


def arrays(count, *names):
    shapes = {
        "probabilities": (count, 3),
        "features": (count, 3),
        "st/theta": (count, 6),
        "st/warped": (count, 4, 4, 1),
    }
    return {name: np.full(shapes[name], np.nan, np.float32) for name in names or shapes}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("taps", [False, True])
def test_written_in_place_and_equal_to_what_comes_without(both_path, toy, format, taps):
    names = ("probabilities", "features", *(("st/theta", "st/warped") if taps else ()))
    with load(both_path, artifact=format) as session:
        for count in (1, 3, 3, 1):
            image = toy.images(count, seed=count)
            out = arrays(count, *names)
            given = dict(out)
            result = session.run({"image": image}, taps=taps, out=out)
            plain = session.run({"image": image}, taps=taps)
            truth = toy.run(image)
            assert set(result) == set(names)
            for name in names:
                assert result[name] is given[name] is out[name]
                np.testing.assert_array_equal(out[name], plain[name])
                np.testing.assert_allclose(out[name], truth[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_of_them_and_none(both_path, toy, format):
    image = toy.images(2)
    with load(both_path, artifact=format) as session:
        plain = session.run({"image": image})
        out = arrays(2, "features")
        result = session.run({"image": image}, out=out)
        assert result["features"] is out["features"]
        assert set(out) == {"features"}
        for name, value in session.run({"image": image}, out={}).items():
            np.testing.assert_array_equal(value, plain[name])
            np.testing.assert_array_equal(value, result[name])


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_a_larger_array(both_path, toy, format):
    images = toy.images(6)
    whole = np.empty((6, 3), np.float32)
    with load(both_path, artifact=format) as session:
        for start in (0, 2, 4):
            rows = {"features": whole[start : start + 2]}
            session.run({"image": images[start : start + 2]}, out=rows)
    np.testing.assert_allclose(whole, toy.run(images)["features"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_nan_goes_in_and_comes_out(both_path, toy, format):
    image = toy.images(2)
    image[0, 0, 0, 0] = np.nan
    out = arrays(2, "probabilities")
    with load(both_path, artifact=format) as session:
        session.run({"image": image}, out=out)
    assert np.isnan(out["probabilities"][0]).all()
    assert np.isfinite(out["probabilities"][1]).all()


@pytest.mark.parametrize("format", FORMATS)
def test_eight_threads_with_arrays_of_their_own(both_path, toy, format):
    wrong: list[str] = []
    with load(both_path, artifact=format, purpose="throughput") as session:
        barrier = threading.Barrier(8)

        def work(seed: int) -> None:
            count = 1 + seed % 3
            image = toy.images(count, seed=seed)
            truth = toy.run(image)
            out = arrays(count, "probabilities", "features")
            barrier.wait()
            for turn in range(40):
                for value in out.values():
                    value.fill(np.nan)
                session.run({"image": image}, out=out)
                for name, value in out.items():
                    if not np.abs(value - truth[name]).max() <= 2e-6:
                        wrong.append(f"thread {seed} turn {turn}: {name}")

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def read_only():
    value = np.zeros((2, 3), np.float32)
    value.flags.writeable = False
    return value


def unaligned():
    return np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([[0.0]], "is a list: expected a NumPy array of float32"),
        (None, "is a NoneType"),
        (np.zeros((2, 3)), "is float64: expected float32, which the model gives"),
        (np.zeros((2, 3), ">f4"), ">f4: expected float32"),
        (np.zeros((3, 3), np.float32), r"shape \[3, 3\]: expected \[2, 3\]"),
        (np.zeros((2, 4), np.float32), r"shape \[2, 4\]: expected \[2, 3\]"),
        (np.zeros(6, np.float32), r"shape \[6\]: expected \[2, 3\]"),
        (np.zeros((3, 2), np.float32).T, "cannot be written to in one piece"),
        (np.zeros((2, 6), np.float32)[:, ::2], "cannot be written to in one piece"),
        (np.zeros((2, 3), np.float32)[::-1], "cannot be written to in one piece"),
        (np.broadcast_to(np.zeros(3, np.float32), (2, 3)), "cannot be written to in one piece"),
        (read_only(), "cannot be written to in one piece"),
        (unaligned(), "cannot be written to in one piece"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_arrays_that_cannot_be_written_to(bundle_path, toy, value, part, again):
    with load(bundle_path) as session:
        if again:  # what was right before makes nothing right that is wrong
            session.run({"image": toy.images(2)}, out=arrays(2, "features"))
        with pytest.raises(InputError, match=f'out "features" .*{part}|out "features" {part}'):
            session.run({"image": toy.images(2)}, out={"features": value})


def test_names_that_are_none(bundle_path, toy):
    inputs = {"image": toy.images(1)}
    with load(bundle_path) as session:
        with pytest.raises(InputError, match='out has "gone": expected any of "probabilities"'):
            session.run(inputs, out={"gone": np.zeros((1, 3), np.float32)})
        with pytest.raises(InputError, match='out has "st/theta"'):  # which only taps=True gives
            session.run(inputs, out=arrays(1, "st/theta"))
        with pytest.raises(InputError, match="out is a ndarray: expected a dict"):
            session.run(inputs, out=np.zeros((1, 3), np.float32))


class TestSharedMemory:
    """What is read and what is written may not be the same bytes."""

    @pytest.fixture
    def session(self, bundle_path):
        with load(bundle_path) as session:
            session.run({"image": np.zeros((2, 4, 4, 1), np.float32)}, out=arrays(2, "features"))
            yield session

    def test_with_an_input(self, session):
        memory = np.zeros(40, np.float32)
        image = memory[:32].reshape(2, 4, 4, 1)
        with pytest.raises(InputError, match='"features" shares memory with input "image"'):
            session.run({"image": image}, out={"features": memory[31:37].reshape(2, 3)})
        session.run({"image": image}, out={"features": memory[32:38].reshape(2, 3)})

    def test_with_another(self, session, toy):
        memory = np.zeros(12, np.float32)
        image = toy.images(2)
        one, other = memory[:6].reshape(2, 3), memory[5:11].reshape(2, 3)
        with pytest.raises(InputError, match='"probabilities" shares memory with out "features"'):
            session.run({"image": image}, out={"features": one, "probabilities": other})
        same = np.zeros((2, 3), np.float32)
        with pytest.raises(InputError, match="shares memory"):
            session.run({"image": image}, out={"features": same, "probabilities": same})

    def test_an_input_that_is_copied_first_may(self, session, toy):
        memory = np.zeros((2, 4, 4, 2), np.float32)
        memory[..., 0] = toy.images(2)[..., 0]
        truth = toy.run(memory[..., :1])["features"]
        target = memory.reshape(-1)[:6].reshape(2, 3)
        result = session.run({"image": memory[..., :1]}, out={"features": target})
        np.testing.assert_allclose(result["features"], truth, rtol=0, atol=2e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_of_another_shape_than_declared(
    maker, onnx_model, tflite_model, tmp_path, format
):
    signature = Signature(
        (TensorSpec("image", "float32", ("batch", 4, 4, 1)),),
        (
            TensorSpec("probabilities", "float32", ("batch", 3)),
            TensorSpec("features", "float32", ("batch", 4)),
        ),
    )
    case = maker.toy.case(1)
    case.outputs["features"] = np.zeros((1, 4), np.float32)
    model = onnx_model if format == "onnx" else tflite_model
    path = maker.write(tmp_path / "b", [model], signature=signature, cases=(case,))
    with load(path) as session, pytest.raises(BackendError) as caught:
        out = {"features": np.zeros((2, 4), np.float32)}
        session.run({"image": maker.toy.images(2)}, out=out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_two_names_of_one_tensor(maker, onnx_model, tflite_model, tmp_path, toy, format):
    model = onnx_model if format == "onnx" else tflite_model
    tensor = "out_f" if format == "onnx" else "Identity"
    names = {"probabilities": tensor, "features": tensor}
    path = maker.write(tmp_path / "b", [model], artifact_changes={"outputs": names})
    truth = toy.run(toy.images(2))["features"]
    with load(path) as session:
        for given in (("features",), ("probabilities",), ("features", "probabilities")):
            out = arrays(2, *given)
            result = session.run({"image": toy.images(2)}, out=out)
            assert not np.shares_memory(result["features"], result["probabilities"])
            for name in ("features", "probabilities"):
                np.testing.assert_allclose(result[name], truth, rtol=0, atol=2e-6)
                assert name not in out or result[name] is out[name]
