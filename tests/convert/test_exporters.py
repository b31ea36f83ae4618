"""What the exporters make of unusual names, shapes and ops, and what they say of the others."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, load_source, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.layer_names import layer_of
from stnkit.convert.onnx import export_onnx
from stnkit.convert.tflite import export_tflite
from stnkit.convert.tflite.explain import operand_dtypes
from stnkit.convert.unique_names import unique_name
from stnkit.convert.weights import weights_summary
from stnkit.models import SpatialTransformer, localization_cnn
from stnkit.runtime.errors import ExportError

layers = keras.layers


@keras.saving.register_keras_serializable(package="stnkit_tests")
class Applied(keras.layers.Layer):
    """A layer that is one function of TensorFlow's."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, value):
        return self.function(value)


def transformer(name):
    return SpatialTransformer(localization_cnn((2,), units=4), name=name)


def vector_model(*inner):
    value = keras.Input((4,), name="v")
    result = value
    for layer in inner:
        result = layer(result)
    return keras.Model(value, result)


def frozen(model, batch=None):
    return freeze(source_from_keras(model), batch)


def check_both(model, inputs, tmp_path, **options):
    """Convert to both formats and compare every output of each with the model's."""
    source = source_from_keras(model)
    result = convert(source, tmp_path / "m.bundle", ConversionOptions(**options))
    expected = source.run(inputs)
    for artifact in ("tflite", "onnx"):
        with runtime.load(result.bundle, artifact=artifact) as session:
            found = session.run(inputs)
            assert set(found) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
    return result, expected


def photo(batch=2, size=(16, 16, 1)):
    return np.random.default_rng(5).random((batch, *size)).astype("float32")


class TestCompiledFunctions:
    """What XLA would compile is calls of functions, which have to be opened first."""

    @staticmethod
    def scaled(value, factor):
        inner = tf.function(lambda it: tf.nn.relu(it * factor) + 1.0, jit_compile=True)
        # Called within another one, as a layer does that calls a layer.
        return tf.function(lambda it: inner(it) - inner(-it), jit_compile=True)(value)

    def test_inside_layers_next_to_a_transformer(self, tmp_path):
        image = keras.Input((16, 16, 1), name="image")
        warped = transformer("stn")(image)
        model = keras.Model(image, Applied(lambda value: self.scaled(value, 0.5))(warped))
        result, _ = check_both(model, {"image": photo()}, tmp_path)
        assert [tap.name for tap in result.manifest.taps] == ["stn/theta", "stn/warped"]
        assert result.manifest.artifacts[1].sampler == "deform-conv"

    def test_a_saved_model_compiled_as_a_whole(self, tmp_path):
        module = tf.Module()
        module.weights = tf.Variable([[1.0, -2.0], [0.5, 3.0]])
        module.run = tf.function(
            lambda v: {"scores": self.scaled(v @ module.weights, 2.0)},
            input_signature=[tf.TensorSpec([None, 2], name="v")],
            jit_compile=True,
        )
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
        source = load_source(str(tmp_path / "m"))
        result = convert(source, tmp_path / "m.bundle", ConversionOptions())
        v = np.array([[0.25, -1.0], [2.0, 0.125]], np.float32)
        expected = np.asarray(self.scaled(v @ module.weights, 2.0))
        for artifact in ("tflite", "onnx"):
            with runtime.load(result.bundle, artifact=artifact) as session:
                np.testing.assert_allclose(session.run({"v": v})["scores"], expected, rtol=1e-6)


class TestDimensions:
    """Equal names are equal sizes: every tensor names its own."""

    def test_onnx_inputs_that_are_not_equally_long(self):
        image = keras.Input((None, None, 3), name="image")
        seq = keras.Input((None, 4), name="my seq")
        pooled = [layers.GlobalMaxPooling2D()(image), layers.GlobalMaxPooling1D()(seq)]
        graph = frozen(keras.Model([image, seq], [layers.Concatenate()(pooled), seq]))
        model = onnx.load_from_string(export_onnx(graph, 17).content)
        dims = [
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*model.graph.input, *model.graph.output]
        ]
        assert dims[:3] == [
            ["batch", "image_dim_1", "image_dim_2", 3],
            ["batch", "my_seq_dim_1", 4],
            ["batch", 7],
        ]

    def test_taps_of_different_sizes(self):
        image = keras.Input((None, None, 1), name="image")
        half = layers.AveragePooling2D(2)(image)
        net = [keras.Sequential([layers.GlobalAveragePooling2D()]) for _ in range(2)]
        stn = [SpatialTransformer(net[i], name=f"stn_{'ab'[i]}") for i in range(2)]
        graph = frozen(keras.Model(image, [stn[0](image), stn[1](half)]))
        shapes = {tap.spec.name: tap.spec.shape for tap in graph.taps}
        assert shapes["stn_a/theta"] == ("batch", 2, 3)
        named = [
            dim
            for name in ("stn_a/warped", "stn_b/warped")
            for dim in shapes[name]
            if isinstance(dim, str) and dim != "batch"
        ]
        assert len(named) == len(set(named)) == 4

    def test_the_batch_that_the_model_fixes(self):
        image = keras.Input(batch_shape=(3, 16, 16, 1), name="image")
        source = source_from_keras(keras.Model(image, layers.Flatten()(transformer("stn")(image))))
        # As a source says it, whatever Keras made of it.
        fixed = tuple(replace(spec, shape=(3, *spec.shape[1:])) for spec in source.inputs)
        graph = freeze(replace(source, inputs=fixed), None)
        assert graph.batch == 3
        assert graph.shapes[graph.inputs["image"]] == (3, 16, 16, 1)
        model = onnx.load_from_string(export_onnx(graph, 17).content)
        assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 3


class TestNames:
    """A signature has two spaces of names, a file has one."""

    def test_unique_name(self):
        assert unique_name("a", {"b"}) == "a"
        assert unique_name("a", {"a", "a:1"}) == "a:2"

    def test_an_output_with_the_name_of_an_input(self, tmp_path):
        image = keras.Input((16, 16, 1), name="image")
        warped = transformer("stn")(image)
        model = keras.Model({"image": image}, {"image": layers.Rescaling(2.0)(warped)})
        result, _ = check_both(model, {"image": photo()}, tmp_path)
        onnx_file = next(a for a in result.manifest.artifacts if a.format == "onnx")
        assert dict(onnx_file.inputs) == {"image": "image"}
        assert dict(onnx_file.outputs) == {"image": "image:1"}

    @pytest.mark.parametrize("batch", [None, 2])
    def test_an_output_that_is_an_input(self, batch, tmp_path):
        image = keras.Input((16, 16, 1), name="image")
        model = keras.Model(image, [image, transformer("stn")(image)])
        _, expected = check_both(model, {"image": photo()}, tmp_path, batch=batch)
        np.testing.assert_array_equal(expected["image"], photo())

    def test_outputs_with_the_names_of_taps(self, tmp_path):
        image = keras.Input((16, 16, 1), name="image")
        warped = transformer("stn")(image)
        outputs = {
            "stn/warped": layers.Rescaling(-1.0)(warped),
            "stn/theta": layers.Dense(6)(layers.Flatten()(image)),
        }
        result, _ = check_both(keras.Model(image, outputs), {"image": photo()}, tmp_path)
        taps = {tap.name: tap.transformer for tap in result.manifest.taps}
        assert taps == {"stn:1/theta": "stn", "stn:1/warped": "stn"}

    @pytest.mark.parametrize(
        "names",
        [("my_stn",), ("stn_2",), ("stn", "stn_1"), ("stn_1", "stn"), ("coarse", "fine")],
        ids=" ".join,
    )
    def test_taps_have_the_names_of_their_layers(self, names, tmp_path):
        """From Keras and from a SavedModel, where layers' names are numbered by tracing."""
        image = keras.Input((16, 16, 1), name="image")
        result = image
        for name in names:
            result = transformer(name)(result)
        model = keras.Model(image, layers.Flatten()(result))
        wanted = [f"{name}/{kind}" for name in names for kind in ("theta", "warped")]
        assert [tap.spec.name for tap in frozen(model).taps] == wanted
        model.export(tmp_path / "m", verbose=False)
        found = freeze(load_source(tmp_path / "m"), None).taps
        assert [tap.spec.name for tap in found] == wanted

    def test_transformers_of_equal_names_in_two_models(self, tmp_path):
        model = keras.Sequential(
            [
                keras.Input((16, 16, 1), name="image"),
                transformer("stn"),
                keras.Sequential([transformer("stn")], name="inner"),
            ],
            name="outer",
        )
        wanted = {"outer/stn", "inner/stn"}
        assert {tap.spec.transformer for tap in frozen(model).taps} == wanted
        model.export(tmp_path / "m", verbose=False)
        found = freeze(load_source(tmp_path / "m"), None).taps
        assert {tap.spec.transformer for tap in found} == wanted

    def test_a_saved_model_whose_numbers_tell_transformers_apart(self, tmp_path):
        """Of one layer called twice only the numbers are left: they stay."""
        left, right = (keras.Input((16, 16, 1), name=name) for name in ("left", "right"))
        shared = transformer("stn")
        model = keras.Model([left, right], layers.Subtract()([shared(left), shared(right)]))
        model.export(tmp_path / "m", verbose=False)
        found = {tap.spec.transformer for tap in freeze(load_source(tmp_path / "m"), None).taps}
        assert len(found) == 2
        assert {name.split("_")[0].split("@")[0] for name in found} == {"stn"}

    @pytest.mark.parametrize(
        ("node", "known", "layer"),
        [
            ("PartitionedCall/PartitionedCall/mul@__inference_pruned_5964", set(), "mul"),
            ("StatefulPartitionedCall/m_1/stn_1/Floor:0", set(), "stn_1"),
            ("StatefulPartitionedCall/m_1/stn_1/Floor:0", {"stn"}, "stn"),
            ("m_1/conv_1/Relu", {"conv", "conv_1"}, "conv"),
            ("m_1/conv_1_2/Relu", {"conv", "conv_1"}, "conv_1"),
            ("m_1/conv_2/Relu", {"conv_2"}, "conv_2"),
            ("mul", set(), "mul"),
        ],
    )
    def test_layer_of_a_node(self, node, known, layer):
        assert layer_of(node, frozenset(known)) == layer


def tflite_error(model):
    graph = frozen(model)
    with pytest.raises(ExportError) as caught:
        export_tflite(graph)
    assert "\n" not in str(caught.value)
    return caught.value


class TestTFLiteReasons:
    """The converter's first diagnostic is not the reason, nor is every op it names unknown."""

    def test_a_loop_over_an_open_batch(self, tmp_path):
        image = keras.Input((6, 5), name="rows")
        model = keras.Model(image, layers.LSTM(4, name="my_lstm")(image))
        error = tflite_error(model)
        assert (error.op, error.layer) == ("TensorListReserve", "my_lstm")
        assert "try --batch 1" in str(error)
        assert "not a builtin" not in str(error)
        check_both(model, {"rows": photo(1, (6, 5))}, tmp_path, batch=1)

    @pytest.mark.parametrize(
        ("op", "dtype", "function"),
        [
            ("Mul", "float64", lambda x: tf.cast(tf.cast(x, tf.float64) * 1.1, tf.float32)),
            ("Greater", "uint8", lambda x: tf.cast(tf.cast(x, tf.uint8) > 3, tf.float32)),
        ],
    )
    def test_a_builtin_op_on_another_dtype(self, op, dtype, function):
        error = tflite_error(vector_model(Applied(function, name="odd")))
        assert (error.op, error.layer) == (op, "odd")
        assert f"builtin TFLite op for {dtype} (its operands are {dtype}, {dtype})" in str(error)

    def test_a_saved_model_without_scopes(self, tmp_path):
        class Doubler(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="v")])
            def run(self, v):
                return {"y": tf.cast(tf.cast(v, tf.float64) * 2, tf.float32)}

        module = Doubler()
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.run)
        graph = freeze(load_source(tmp_path / "m"), None)
        with pytest.raises(ExportError) as caught:
            export_tflite(graph)
        assert caught.value.layer == "mul"
        assert "Partitioned" not in str(caught.value)

    def test_operand_dtypes(self):
        quoted = (
            'see current operation: %8 = "tf.Conv2D"(%7, %6) <{strides = [1, 1]}> {device = ""} : '
            "(tensor<?x16x1xf16>, tensor<*xui8>, tensor<i1>) -> tensor<?x14x4xf32>\nError code: X"
        )
        assert operand_dtypes(quoted) == ("float16", "uint8", "bool")
        assert operand_dtypes("Lowering tensor list ops is failed.") == ()


def test_exact_gelu(tmp_path):
    model = vector_model(layers.Activation("gelu"))
    values = (np.arange(-200, 200, dtype="float32") / 20).reshape(100, 4)
    _, expected = check_both(model, {"v": values}, tmp_path)
    (found,) = expected.values()
    # The normal distribution's Phi(1); the approximation by tanh gives 0.84119.
    np.testing.assert_allclose(found[values == 1.0], [0.8413447], atol=1e-6)


class TestRefusedWhileFreezing:
    """What cannot be compared or is not float32 is found before anything is exported."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x + tf.random.normal(tf.shape(x)),
            lambda x: x + tf.random.stateless_uniform(tf.shape(x), seed=[1, 2]),
            lambda x: x + tf.cast(tf.random.categorical(x, 4), tf.float32),
            lambda x: tf.random.shuffle(x),
            lambda x: x + tf.map_fn(lambda row: row * tf.random.uniform([]), x),
        ],
        ids=["normal", "stateless", "multinomial", "shuffle", "in a loop"],
    )
    def test_random_numbers(self, function):
        with pytest.raises(ExportError, match="draws random numbers while it infers") as caught:
            frozen(vector_model(Applied(function, name="noise")))
        assert "noise" in str(caught.value)

    def test_random_numbers_of_keras_are_no_state(self):
        """Keras counts its draws in a variable, which is not what the user wrote."""
        seed = keras.random.SeedGenerator(3)
        noise = Applied(lambda x: x + keras.random.normal((4,), seed=seed), name="noise")
        with pytest.raises(ExportError, match="'noise' draws random numbers") as caught:
            frozen(vector_model(noise))
        assert "Get" not in caught.value.op

    def test_draws_that_nobody_reads(self):
        def unread(value):
            tf.random.normal(tf.shape(value))
            return value * 2

        assert frozen(vector_model(Applied(unread, name="quiet"))).taps == ()

    def test_regularizers_draw_only_in_training(self):
        frozen(vector_model(layers.Dropout(0.5), layers.GaussianNoise(0.1)))

    def test_lookup_tables(self):
        value = keras.Input((1,), dtype="int64", name="v")
        table = layers.IntegerLookup(vocabulary=[1, 2, 3], name="words")(value)
        with pytest.raises(ExportError, match="'words' looks values up in a table") as caught:
            frozen(keras.Model(value, layers.Flatten()(layers.Embedding(5, 2)(table))))
        assert "weight" not in str(caught.value)

    @pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
    def test_sixteen_bits(self, policy):
        model = vector_model(
            layers.Dense(3, dtype=policy, name="narrow"), layers.Dense(2, dtype="float32")
        )
        dtype = policy.removeprefix("mixed_")
        with pytest.raises(ExportError, match=rf"'narrow' computes in {dtype} \(\w+\)") as caught:
            frozen(model)
        assert caught.value.op == "MatMul"
        assert "float32 policy" in str(caught.value)


@pytest.mark.parametrize("transform", ["affine", "thin_plate_spline"])
def test_a_model_that_only_warps(transform, tmp_path):
    """Its output is the warped image itself; its theta comes from outside, as wild as can be."""
    from ai_edge_litert.interpreter import Interpreter

    layer = SpatialTransformer(transform=transform, name="st")
    image = keras.Input((96, 96, 3), name="image")
    theta = keras.Input(layer.transform.theta_shape, name="theta")
    model = keras.Model([image, theta], layer([image, theta]))
    bundle = tmp_path / "warp.bundle"
    convert(source_from_keras(model), bundle, ConversionOptions(batch=1))
    interpreter = Interpreter(str(bundle / "model.fp32.tflite"))
    assert len(interpreter.get_output_details()) == 1


def test_weights_are_no_shapes():
    rows = np.arange(400, dtype="int32").reshape(100, 4)

    def row(value):
        found = tf.gather(tf.constant(rows), tf.cast(value[:, 0], tf.int32))
        return value + tf.cast(found, tf.float32)

    model = vector_model(Applied(row), layers.Dense(4), layers.Reshape((2, 2)))
    found = weights_summary(frozen(model))
    assert found.weight_dtypes == {"float32": 2, "int32": 1}  # kernel, bias; the table of rows
    assert found.weights_bytes == 4 * (16 + 4 + 400)
    assert found.weights_bytes < found.constants_bytes < found.weights_bytes + 100


def test_a_frozen_graph_runs_with_inputs_that_are_unused_or_outputs_too():
    first, second = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([first, second], {"y": layers.Dense(2)(first), "same": first})
    inputs = {"a": np.ones((2, 3), np.float32), "b": np.zeros((2, 2), np.float32)}
    outputs, taps = frozen(model).runner().run(inputs)
    expected = source_from_keras(model).run(inputs)
    assert not taps
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-6)
