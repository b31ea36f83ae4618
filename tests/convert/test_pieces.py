"""The small decisions of a conversion, each by hand."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from stnkit.convert.agreement import predicted_classes
from stnkit.convert.labelled import read_labelled
from stnkit.convert.layer_names import layer_of, scopes_of
from stnkit.convert.meaning import assumptions, class_labels, image_preprocessing, model_range
from stnkit.convert.onnx.tidy import whole_sizes
from stnkit.convert.options import ConversionOptions
from stnkit.convert.tap_search import find_taps
from stnkit.convert.tflite.rewrite import Names, rewrite
from stnkit.models.taps import mark_theta, mark_warped
from stnkit.runtime.equivalence.probes import make_probes, real_probe
from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import Classes, Preprocessing
from stnkit.runtime.signature import TensorSpec

PHOTO = TensorSpec("photo", "float32", ("batch", 12, 10, 3), "NHWC")
SCORES = TensorSpec("scores", "float32", ("batch", 3))


class TestLayerNames:
    @pytest.mark.parametrize(
        ("node", "layers", "layer"),
        [
            ("model_1/stn_1/localization_1/conv_1/Conv2D", {"stn", "conv"}, "conv"),
            ("model_1/stn_1/mul", {"stn"}, "stn"),
            ("model_1/stn_1/mul", {"stn", "stn_1"}, "stn"),
            ("model_1/stn_1_2/mul", {"stn", "stn_1"}, "stn_1"),
            ("StatefulPartitionedCall/model/odd/Tilt@__inference_serve_12", set(), "odd"),
            ("model/dense/MatMul/ReadVariableOp", set(), "MatMul"),
            ("alone", set(), "alone"),
        ],
    )
    def test_innermost_known_layer(self, node, layers, layer):
        assert layer_of(node, frozenset(layers)) == layer

    def test_scopes_leave_out_what_tensorflow_adds(self):
        assert scopes_of("PartitionedCall/StatefulPartitionedCall_1/a/b/op:0") == ["a", "b"]


class TestTaps:
    @staticmethod
    def graph(*scopes):
        @tf.function(input_signature=[tf.TensorSpec([None, 6])])
        def function(x):
            for scope in scopes:
                with tf.name_scope(scope):
                    x = mark_theta(x)
            return mark_warped(tf.reshape(x, [-1, 2, 3, 1]))

        return function.get_concrete_function().graph

    def names(self, *scopes, layers=()):
        return [tap.spec.name for tap in find_taps(self.graph(*scopes), frozenset(layers))]

    def test_name_and_shape(self):
        theta, warped = find_taps(self.graph("net/stn"), frozenset())
        assert (theta.spec.name, theta.spec.kind) == ("stn/theta", "theta")
        assert theta.spec.shape == ("batch", 6)
        assert (warped.spec.name, warped.spec.kind) == ("transformer/warped", "warped")
        assert warped.spec.shape == ("batch", 2, 3, 1)

    def test_equal_names_get_what_is_around_them(self):
        assert self.names("left/stn", "right/stn")[:2] == ["left/stn/theta", "right/stn/theta"]

    def test_second_call_of_a_layer_is_numbered(self):
        names = self.names("net_1/stn_1", "net_1/stn_2", layers={"net", "stn"})[:2]
        assert names == ["stn/theta", "stn@2/theta"]

    def test_a_number_that_belongs_to_the_layer_stays(self):
        names = self.names("net_1/stn_1", "net_1/stn_1_2", layers={"net", "stn", "stn_1"})[:2]
        assert names == ["stn/theta", "stn_1/theta"]


class TestProbes:
    def test_items_differ_and_batches_share_them(self):
        one, two, seven = make_probes((PHOTO,), None, (0.0, 1.0))
        assert (one.name, two.name, seven.name) == ("noise_b1", "edges_b2", "patterns_b7")
        photos = seven.inputs["photo"]
        assert photos.shape == (7, 12, 10, 3)
        assert photos.dtype == np.float32
        np.testing.assert_array_equal(one.inputs["photo"][0], photos[0])
        np.testing.assert_array_equal(two.inputs["photo"], photos[1:3])
        gaps = [np.abs(a - b).max() for i, a in enumerate(photos) for b in photos[:i]]
        assert min(gaps) > 0.1
        assert photos.min() >= 0
        assert photos.max() <= 1

    def test_fixed_batch_covers_every_pattern(self):
        assert [p.name for p in make_probes((PHOTO,), 2, (0, 1))] == [
            "patterns_a_b2",
            "patterns_b_b2",
            "patterns_c_b2",
            "patterns_d_b2",
        ]
        assert len(make_probes((PHOTO,), 8, (0, 1))) == 1
        assert len(make_probes((PHOTO,), 1, (0, 1))) == 7

    def test_another_seed_gives_other_noise(self):
        first, second = (make_probes((PHOTO,), None, (0, 1), seed)[0] for seed in (1, 2))
        assert np.abs(first.inputs["photo"] - second.inputs["photo"]).max() > 0.5
        assert (first.seed, second.seed) == (1, 2)

    def test_a_shape_that_would_take_all_memory_is_refused(self):
        huge = TensorSpec("photo", "float32", ("batch", 2**20, 2**20, 3))
        with pytest.raises(InputError, match=r"'photo' of shape .* MiB .*expected at most 512"):
            make_probes((huge,), None, (0, 1))

    def test_range_dtypes_and_other_inputs(self):
        specs = (
            PHOTO,
            TensorSpec("theta", "float32", ("batch", 2, 3)),
            TensorSpec("token", "int32", ("batch", "dim_1")),
            TensorSpec("flag", "bool", ("batch",)),
        )
        (_, _, five, wide) = make_probes(specs, None, (-2.0, 3.0))
        photos = five.inputs["photo"]
        assert -2 <= photos.min() < -1.5
        assert 2.5 < photos.max() <= 3
        assert np.abs(five.inputs["theta"]).max() <= 1
        assert five.inputs["token"].dtype == np.int32
        assert five.inputs["token"].shape == (7, 8)
        assert set(np.unique(five.inputs["token"])) <= {0, 1}
        assert five.inputs["flag"].dtype == bool
        assert (wide.name, wide.optional) == ("wide_integers_b7", True)
        assert wide.inputs["token"].min() < 0
        np.testing.assert_array_equal(wide.inputs["photo"], photos)

    def test_pixels_that_are_integers_use_their_whole_range(self):
        spec = TensorSpec("photo", "uint8", ("batch", 12, 10, 3), "NHWC")
        five = make_probes((spec,), None, (0.0, 1.0))[-1]
        assert five.inputs["photo"].dtype == np.uint8
        assert five.inputs["photo"].max() > 200
        assert len(np.unique(five.inputs["photo"])) > 100

    def test_open_sizes_are_not_all_square(self):
        spec = TensorSpec("photo", "float32", ("batch", "photo_dim_1", "photo_dim_2", 1), "NHWC")
        one, two, seven = make_probes((spec,), None, (0.0, 1.0))
        assert one.inputs["photo"].shape == (1, 32, 32, 1)
        assert two.inputs["photo"].shape == (2, 33, 24, 1)
        assert seven.inputs["photo"].shape == (7, 32, 32, 1)

    def test_the_same_everywhere(self):
        code = (
            "from stnkit.runtime.equivalence.probes import make_probes\n"
            "from stnkit.runtime.signature import TensorSpec\n"
            "spec = TensorSpec('photo', 'float32', ('batch', 12, 10, 3), 'NHWC')\n"
            "print(make_probes((spec,), None, (0, 1))[1].inputs['photo'].sum(dtype='float64'))"
        )
        here = make_probes((PHOTO,), None, (0, 1))[1].inputs["photo"].sum(dtype="float64")
        there = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert float(there.stdout) == here

    def test_real_images(self):
        real = np.random.default_rng(0).random((3, 12, 10, 3)).astype("float32")
        probe = real_probe(PHOTO, None, real)
        assert probe.name == "real_b3"
        np.testing.assert_array_equal(probe.inputs["photo"], real)
        assert real_probe(PHOTO, 4, real) is None
        assert real_probe(PHOTO, 2, real).inputs["photo"].shape[0] == 2


class TestMeaning:
    def test_plain_range(self):
        found = image_preprocessing((PHOTO,), (0.0, 1.0))
        assert found == Preprocessing("photo", (12, 10), 3, 1 / 255)
        assert model_range(found) == (0.0, 1.0)

    def test_symmetric_range(self):
        found = image_preprocessing((PHOTO,), (-1.0, 1.0))
        assert found.scale == pytest.approx(2 / 255)
        assert found.mean == (1.0, 1.0, 1.0)
        assert model_range(found) == pytest.approx((-1, 1))

    def test_mean_and_std(self):
        found = image_preprocessing((PHOTO,), (0.0, 1.0), (0.5, 0.4, 0.3), (0.1, 0.2, 0.5))
        white = (255 * found.scale - np.array(found.mean)) / np.array(found.std)
        np.testing.assert_allclose(white, [5, 3, 1.4])
        assert model_range(found) == pytest.approx((-5, 5))

    def test_models_without_one_image(self):
        vector = TensorSpec("v", "float32", ("batch", 7))
        assert image_preprocessing((vector,), (0, 1)) is None
        assert image_preprocessing((PHOTO, vector), (0, 1)) is None
        assert model_range(None) == (0.0, 1.0)
        with pytest.raises(InputError, match="--mean and --std need a model with one"):
            image_preprocessing((vector,), (0, 1), mean=(0.5,))

    @pytest.mark.parametrize(
        ("mean", "std", "message"),
        [((0.5,), None, "--mean has 1 numbers"), (None, (1, 1, 0), "expected positive numbers")],
    )
    def test_numbers_that_do_not_fit(self, mean, std, message):
        with pytest.raises(InputError, match=message):
            image_preprocessing((PHOTO,), (0, 1), mean, std)

    def test_probabilities_are_recognised_and_nothing_else_is(self):
        probabilities = np.array([[0.2, 0.3, 0.5], [1, 0, 0]])
        found = class_labels((SCORES,), None, [{"scores": probabilities}])
        assert found == Classes("scores", ("0", "1", "2"), "probabilities")
        for other in (probabilities * 2, probabilities - 0.5, np.full((2, 3), 0.9)):
            assert class_labels((SCORES,), None, [{"scores": other}]) is None
            # One probe alone may look like probabilities.
            cases = [{"scores": probabilities}, {"scores": other}]
            assert class_labels((SCORES,), None, cases) is None
            labelled = class_labels((SCORES,), ("a", "b", "c"), cases)
            assert labelled == Classes("scores", ("a", "b", "c"), "logits")

    def test_labels(self):
        values = [{"scores": np.eye(3), "embedding": np.eye(8)}]
        embedding = TensorSpec("embedding", "float32", ("batch", 8))
        found = class_labels((embedding, SCORES), ("a", "b", "c"), values)
        assert (found.output, found.labels) == ("scores", ("a", "b", "c"))
        with pytest.raises(InputError, match="--labels has 2 names; the output 'scores' has 3"):
            class_labels((SCORES,), ("a", "b"), values)
        with pytest.raises(InputError, match="no output has the shape"):
            class_labels((PHOTO,), ("a", "b"), [])
        assert class_labels((PHOTO,), None, []) is None

    @pytest.mark.parametrize("labels", [("a", ""), ("a", "b\tc"), ("a", "b", "a")])
    def test_labels_that_are_none(self, labels):
        with pytest.raises(InputError, match="label"):
            ConversionOptions(labels=labels)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"formats": ()},
            {"formats": ("coreml",)},
            {"opset": 13},
            {"batch": 0},
            {"value_range": (1.0, 0.0)},
            {"atol": {"output": 1e-3}},
            {"atol": {"outputs": float("nan")}},
        ],
    )
    def test_options_that_are_none(self, wrong):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ConversionOptions(**wrong)

    def test_what_is_assumed_is_said(self):
        plain = Preprocessing("photo", (12, 10), 3, 1 / 255)
        classes = Classes("scores", ("a", "b"), "probabilities")
        (said,) = assumptions(plain, classes, frozenset({"Conv2D"}))
        assert "from 0 to 1" in said
        (said,) = assumptions(plain, classes, frozenset({"Rescaling"}))
        assert "Rescaling" in said
        wide = Preprocessing("photo", (12, 10), 3, 1.0)
        (said,) = assumptions(wide, classes, frozenset({"Rescaling"}))
        assert "from 0 to 255" in said
        assert "Rescaling" not in said
        assert "--labels" in assumptions(plain, None, frozenset())[1]
        assert assumptions(None, None, frozenset()) == ()


class TestLabelledImages:
    PREPROCESSING = Preprocessing("photo", (4, 4), 1, 1 / 255)
    CLASSES = Classes("scores", ("cat", "dog"), "logits")

    def write(self, folder, rows):
        for index, (name, _) in enumerate(rows):
            Image.new("L", (4, 4), index * 10).save(folder / name)
        with (folder / "labels.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("file", "label"), *rows])

    def test_images_and_classes(self, tmp_path):
        self.write(tmp_path, [("a.png", "dog"), ("b.png", "cat")])
        found = read_labelled(tmp_path, self.PREPROCESSING, self.CLASSES)
        assert found.classes.tolist() == [1, 0]
        assert found.images.shape == (2, 4, 4, 1)
        np.testing.assert_allclose(found.images[1], 10 / 255)

    def test_unknown_label(self, tmp_path):
        self.write(tmp_path, [("a.png", "dog"), ("b.png", "cow")])
        with pytest.raises(InputError, match=r"labels\.csv, line 3: the label 'cow' is not one"):
            read_labelled(tmp_path, self.PREPROCESSING, self.CLASSES)

    @pytest.mark.parametrize("text", ["", "file,label\n", "name,label\na.png,cat\n"])
    def test_table_without_rows_or_columns(self, text, tmp_path):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(InputError, match="expected the columns file and label"):
            read_labelled(tmp_path, self.PREPROCESSING, self.CLASSES)

    def test_no_table_and_no_leaving_the_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"labels\.csv: cannot be read"):
            read_labelled(tmp_path, self.PREPROCESSING, self.CLASSES)
        (tmp_path / "labels.csv").write_text("file,label\n../a.png,cat\n")
        with pytest.raises(InputError, match="is not a plain file name"):
            read_labelled(tmp_path, self.PREPROCESSING, self.CLASSES)

    @pytest.mark.parametrize("batch", [None, 4])
    def test_the_last_batch_is_filled_and_cut(self, batch):
        images = np.arange(6, dtype="float32").reshape(6, 1, 1, 1)
        sizes = []

        def run(inputs):
            values = inputs["photo"].reshape(-1)
            sizes.append(len(values))
            return {"scores": np.stack([values % 2 == 0, values % 2 == 1], axis=1)}

        found = predicted_classes(run, images, self.CLASSES, "photo", batch)
        assert found.tolist() == [0, 1, 0, 1, 0, 1]
        assert sizes == ([6] if batch is None else [4, 4])


def test_rewrite_refuses_a_file_with_another_signature():
    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name="x")])
        def __call__(self, x):
            return {"y": x * 2}

    module = Doubler()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    content = converter.convert()
    with pytest.raises(ValueError, match=r"the signature has \['x', 'y'\]"):
        rewrite(content, Names({"in_0": "x"}, {"out_0": "y"}, {}))
    renamed, tensors = rewrite(content, Names({"x": "left"}, {"y": "right"}, {}))
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=renamed).get_signature_runner()
    found = runner(left=np.array([1, 2], "float32"))
    np.testing.assert_array_equal(found["right"], [2, 4])
    assert tensors.inputs == {"left": "left"}


class TestSizesOfResize:
    """A size that TensorFlow knows, written as a float32 ratio, comes out of any arithmetic."""

    @staticmethod
    def model(*scales):
        sizes = [1, 1, 5, 4]
        graph = helper.make_graph(
            [
                helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear"),
                helper.make_node("Resize", ["y", "", "again"], ["z"], mode="linear"),
            ],
            "resize",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *sizes[1:]])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.array([1, 1, *them], np.float32), name)
                for name, them in (("scales", scales), ("again", (1 / scales[0], 1 / scales[1])))
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def test_every_ratio_of_small_sizes(self):
        for height in range(1, 40):
            model = self.model(np.float32(height) / np.float32(5), np.float32(7.25))
            whole_sizes(model)
            inferred = onnx.shape_inference.infer_shapes(model)
            (resized,) = [it for it in inferred.graph.value_info if it.name == "y"]
            dims = [dim.dim_value for dim in resized.type.tensor_type.shape.dim]
            assert dims[2:] == [height, 29]
            (back,) = [it for it in inferred.graph.output if it.name == "z"]
            assert [dim.dim_value for dim in back.type.tensor_type.shape.dim][2:] == [5, 4]

    def test_what_is_no_whole_size_stays(self):
        model = self.model(np.float32(1.3), np.float32(2.6))
        before = model.SerializeToString()
        del model.graph.node[1]
        whole_sizes(model)
        assert model.graph.initializer[0] == onnx.load_from_string(before).graph.initializer[0]
