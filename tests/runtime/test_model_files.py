"""Reading model files without their makers' packages, and exposing tensors inside them."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from stnkit.runtime import onnx_file, tflite_file
from stnkit.runtime.backends import open_runner
from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.model_file import FileTensor, LargestConstant, detect_format, summarize
from stnkit.runtime.protobuf_wire import bytes_field


class TestONNXSummary:
    """What is said of an ONNX file."""

    def test_everything(self, onnx_model):
        found = summarize(onnx_model)
        assert found.format == "onnx"
        assert found.bytes == len(onnx_model)
        assert found.inputs == (FileTensor("image_in", "float32", ("batch", 4, 4, 1)),)
        assert found.outputs == (
            FileTensor("out_f", "float32", ("batch", 3)),
            FileTensor("out_p", "float32", ("batch", 3)),
        )
        assert found.ops == {
            **{"Reshape": 4, "MatMul": 2, "Add": 3, "Gather": 2, "Mul": 1},
            **{"Tanh": 1, "Softmax": 1},
        }
        # W 16x6, B 6, V 16x3, offset 16: float32; flat 2, column 4, i0, i2: int64.
        assert found.weights_bytes == 4 * (96 + 6 + 48 + 16) + 8 * 8
        assert found.weight_dtypes == {"float32": 4, "int64": 4}
        assert found.opset == 17
        assert found.producer == "stnkit-tests 1"
        assert found.tap_names == ("loc:0/theta", "sampler/warped")
        assert "W" not in found.tensor_names
        assert found.largest_constant == LargestConstant("W", (16, 6), 384)
        assert found.foreign_ops == ()

    def test_agrees_with_the_onnx_package_on_a_harder_model(self):
        from onnx import TensorProto, helper, numpy_helper

        big = np.zeros((3, 100), np.float16)
        constant = helper.make_node("Constant", [], ["big"], value=numpy_helper.from_array(big))
        inner = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["r"])],
            "inner",
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        )
        branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        strange = helper.make_node("Inverse", ["x"], ["z"], domain="com.microsoft")
        graph = helper.make_graph(
            [constant, branch, strange],
            "g",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", None, 3]),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                # Before IR version 4 an initializer was an input as well.
                helper.make_tensor_value_info("w", TensorProto.INT64, [2]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [helper.make_tensor("w", TensorProto.INT64, [2], [1, -1])],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 18)],
        )
        found = summarize(model.SerializeToString())
        assert [tensor.name for tensor in found.inputs] == ["x", "c"]
        assert found.inputs[0].shape == ("n", "?", 3)
        assert found.inputs[1] == FileTensor("c", "bool", ())
        assert found.ops == {"Constant": 1, "If": 1, "Relu": 2, "com.microsoft::Inverse": 1}
        assert found.foreign_ops == ("com.microsoft::Inverse",)
        assert found.opset == 18
        assert found.largest_constant == LargestConstant("big", (3, 100), 600)
        assert found.weights_bytes == 616

    def test_every_truncation_and_flip_is_clean(self, onnx_model):
        for length in range(len(onnx_model)):
            try:
                onnx_file.summary(onnx_model[:length])
                onnx_file.refuse_external_data(onnx_model[:length])
            except InputError as exc:
                assert "\n" not in str(exc)
        for position in range(len(onnx_model)):
            changed = bytearray(onnx_model)
            changed[position] ^= 1 << (position % 8)
            try:
                onnx_file.summary(bytes(changed))
            except InputError as exc:
                assert "\n" not in str(exc)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "holds no graph"),
            (b"\x08\x08", "holds no graph"),
            (b"\x3a\x80", "ends after the end"),
            (b"\x3a\x05ab", "5 bytes has 2 left"),
            (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "has 0 left"),
            (b"\xff" * 11, "longer than 10 bytes"),
            (b"\x3b", "wire type 3"),
            (b"\x02\x00", "number 0"),
            (bytes_field(7, bytes_field(1, bytes_field(4, b"\xff"))), "not UTF-8"),
            (bytes_field(7, bytes_field(1, b"\x20\x01")), "expected a string"),
        ],
    )
    def test_damaged_files(self, data, message):
        with pytest.raises(InputError, match=message):
            onnx_file.summary(data)

    def test_a_depth_bomb(self):
        data = b""
        for _ in range(2000):  # graph in attribute in node in graph …
            data = bytes_field(1, bytes_field(5, bytes_field(6, data)))
        with pytest.raises(InputError, match="nests deeper than 100"):
            onnx_file.summary(bytes_field(7, data))
        with pytest.raises(InputError, match="nests deeper than 100"):
            onnx_file.refuse_external_data(bytes_field(7, data))


class TestTFLiteSummary:
    """What is said of a TFLite file."""

    def test_everything(self, tflite_model):
        found = summarize(tflite_model)
        assert found.format == "tflite"
        assert found.inputs == (FileTensor("image", "float32", ("?", 4, 4, 1)),)
        assert {tensor.shape for tensor in found.outputs} == {("?", 3)}
        assert found.ops["FULLY_CONNECTED"] == 2
        assert found.ops["SOFTMAX"] == found.ops["TANH"] == 1
        assert found.foreign_ops == ()
        assert found.opset is None
        assert found.weight_dtypes["float32"] == 3
        assert found.largest_constant is not None
        assert found.largest_constant.bytes == 384
        assert sorted(found.largest_constant.shape) == [6, 16]
        # The bias is called st/theta in the file as well: a constant is no tap.
        assert len(found.tap_names) == 2

    def test_fixed_batch(self, tflite_fixed_model):
        assert summarize(tflite_fixed_model).inputs[0].shape == (2, 4, 4, 1)

    def test_flex_and_custom_ops_are_seen(self):
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT()
        model.version = 3
        model.buffers = [schema.BufferT()]
        graph = schema.SubGraphT()
        graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], []
        model.operatorCodes = []
        for i, name in enumerate([b"FlexEinsum", b"Mine", None]):
            code = schema.OperatorCodeT()
            code.builtinCode = (
                schema.BuiltinOperator.CUSTOM if name else schema.BuiltinOperator.GELU
            )
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.customCode = name
            model.operatorCodes.append(code)
            for _ in range(i + 1):
                operator = schema.OperatorT()
                operator.opcodeIndex = i
                operator.inputs, operator.outputs = [], []
                graph.operators.append(operator)
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        found = summarize(bytes(builder.Output()))
        assert found.ops == {"GELU": 3, "CUSTOM:Mine": 2, "FLEX:Einsum": 1}
        assert set(found.foreign_ops) == {"CUSTOM:Mine", "FLEX:Einsum"}

    def test_every_truncation_and_flip_is_clean(self, tflite_model):
        for length in range(0, len(tflite_model), 7):
            try:
                tflite_file.summary(tflite_model[:length])
            except InputError as exc:
                assert "\n" not in str(exc)
        with pytest.raises(InputError, match="no TFL3 mark"):
            tflite_file.summary(tflite_model[:7])
        with pytest.raises(InputError, match="damaged"):
            tflite_file.summary(tflite_model[:8])
        for position in range(8, len(tflite_model)):
            changed = bytearray(tflite_model)
            changed[position] ^= 1 << (position % 8)
            try:
                tflite_file.summary(bytes(changed))
            except InputError as exc:
                assert "\n" not in str(exc)


def test_a_file_that_is_neither():
    for data in (b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + bytes(30), b"{}"):
        with pytest.raises(InputError, match="neither TFLite"):
            detect_format(data)


class TestExtraOutputs:
    """Taps become outputs, and the file is otherwise the same."""

    def test_onnx_file_is_a_prefix(self, onnx_model):
        from onnx import ModelProto, checker

        names = ["sampler/warped", "out_p", "loc:0/theta", "loc:0/theta"]
        extended = onnx_file.with_extra_outputs(onnx_model, names)
        assert extended.startswith(onnx_model)
        proto = ModelProto.FromString(extended)
        assert [output.name for output in proto.graph.output] == [
            *("out_f", "out_p", "sampler/warped", "loc:0/theta"),
        ]
        plain = ModelProto.FromString(onnx_model)
        del proto.graph.output[2:]
        assert proto == plain
        checker.check_model(plain)
        assert onnx_file.with_extra_outputs(onnx_model, ["out_p"]) == onnx_model

    def test_onnx_unknown_name(self, onnx_model):
        with pytest.raises(InputError, match='no tensor "a", "b": expected its taps'):
            onnx_file.with_extra_outputs(onnx_model, ["a", "W", "b"])

    def test_tflite_differs_in_one_offset(self, tflite_model):
        names = summarize(tflite_model).tap_names
        extended = tflite_file.with_extra_outputs(tflite_model, [*names, names[0], "Identity"])
        old, new = summarize(tflite_model), summarize(extended)
        assert new.outputs[:2] == old.outputs
        assert [tensor.name for tensor in new.outputs[2:]] == list(names)
        assert new.ops == old.ops
        same = extended[: len(tflite_model)]
        changed = [i for i in range(len(same)) if same[i] != tflite_model[i]]
        assert max(changed) - min(changed) < 4
        # The appended vector: its length and four indices, aligned.
        start = len(extended) - 4 * 5
        assert start % 4 == 0
        assert struct.unpack_from("<I", extended, start) == (4,)
        assert tflite_file.with_extra_outputs(tflite_model, ["Identity"]) == tflite_model

    def test_tflite_unknown_and_ambiguous_names(self, tflite_model):
        with pytest.raises(InputError, match='no tensor "gone"'):
            tflite_file.with_extra_outputs(tflite_model, ["gone"])
        twice = tflite_model.replace(b"Reshape_2\0", b"Reshape_1\0")
        assert summarize(twice).tensor_names.count("Reshape_1") == 2
        with pytest.raises(InputError, match='several tensors "Reshape_1"'):
            tflite_file.with_extra_outputs(twice, ["Reshape_1"])

    @pytest.mark.parametrize("format", ["onnx", "tflite"])
    def test_a_tap_that_is_an_input(self, request, toy, maker, format):
        model = request.getfixturevalue(f"{format}_model")
        artifact = maker.artifact(model)
        names = SimpleNamespace(
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            taps={**artifact.taps, "st/seen": artifact.inputs["image"]},
        )
        backend = {"onnx": "onnxruntime", "tflite": "litert"}[format]
        runner = open_runner(backend, model, names, want_taps=True)
        for count in (1, 4):
            image = toy.images(count)
            result = runner.run({"image": image})
            np.testing.assert_array_equal(result["st/seen"], image)
            np.testing.assert_allclose(result["st/theta"], toy.run(image)["st/theta"], atol=2e-6)
        runner.close()
        with pytest.raises(BackendError, match="runner is closed"):
            runner.run({"image": toy.images(1)})

    def test_tapped_tflite_with_fixed_batch(self, tflite_fixed_model, toy, maker):
        artifact = maker.artifact(tflite_fixed_model, batch=2)
        runner = open_runner("litert", tflite_fixed_model, artifact, want_taps=True)
        image = toy.images(2)
        result = runner.run({"image": image})
        for name, value in toy.run(image).items():
            np.testing.assert_allclose(result[name], value, atol=2e-6)
        # Only an open dimension may change; the runner goes on working after the failure.
        with pytest.raises(BackendError, match="LiteRT failed to run the model") as caught:
            runner.run({"image": toy.images(3)})
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(
            runner.run({"image": image})["st/warped"], result["st/warped"]
        )


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_runner_that_failed_goes_on_working(request, toy, maker, format):
    model = request.getfixturevalue(f"{format}_model")
    backend = {"onnx": "onnxruntime", "tflite": "litert"}[format]
    runner = open_runner(backend, model, maker.artifact(model))
    image = toy.images(3)
    want = runner.run({"image": image})
    for bad in (np.zeros((1, 5, 4, 1), np.float32), np.zeros((3, 4, 4, 1), np.int32)):
        with pytest.raises(BackendError, match="failed to run the model"):
            runner.run({"image": bad})
    again = runner.run({"image": image})
    for name, value in want.items():
        np.testing.assert_array_equal(again[name], value)
