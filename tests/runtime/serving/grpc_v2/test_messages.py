"""The protocol's messages against copies that nobody here wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from stnkit.runtime.serving.grpc_v2 import messages
from stnkit.runtime.serving.grpc_v2.proto_file import parse_proto

PACKAGE = Path(messages.__file__).parent
OURS = messages.POOL.FindFileByName("stnkit/inference.proto")


def proto_of(descriptor, kind):
    proto = kind()
    descriptor.CopyToProto(proto)
    return proto


def message_names(message, prefix="inference"):
    yield f"{prefix}.{message.name}"
    for nested in message.nested_type:
        yield from message_names(nested, f"{prefix}.{message.name}")


FILE = proto_of(OURS, descriptor_pb2.FileDescriptorProto)
NAMES = [name for message in FILE.message_type for name in message_names(message)]


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_those_of_the_client(name):
    """Number, type, label and oneof of every field, as tritonclient's generated code has them."""
    pytest.importorskip("tritonclient.grpc")
    theirs = descriptor_pool.Default().FindMessageTypeByName(name)
    kind = descriptor_pb2.DescriptorProto
    ours, other = proto_of(messages.POOL.FindMessageTypeByName(name), kind), proto_of(theirs, kind)
    fields = {field.name: field for field in other.field}
    assert ours.field or not other.field
    for field in ours.field:
        found = fields[field.name]
        assert (field.number, field.type, field.label, field.type_name) == (
            found.number,
            found.type,
            found.label,
            found.type_name,
        )
        assert field.HasField("oneof_index") == found.HasField("oneof_index")
    if not name.startswith("inference.Model") or name.startswith("inference.ModelInfer"):
        assert {field.name for field in ours.field} == set(fields)


def test_enums_and_methods_are_those_of_the_client():
    pytest.importorskip("tritonclient.grpc")
    theirs = descriptor_pool.Default()
    for enum in ("inference.DataType", "inference.ModelInstanceGroup.Kind"):
        ours = messages.POOL.FindEnumTypeByName(enum).values_by_name
        other = theirs.FindEnumTypeByName(enum).values_by_name
        assert {key: value.number for key, value in ours.items()} == {
            key: value.number for key, value in other.items()
        }
    service = theirs.FindServiceByName(messages.INFERENCE_SERVICE)
    expected = {
        method.name: (method.input_type.full_name, method.output_type.full_name)
        for method in service.methods
    }
    left_out = {name for name in expected if "SharedMemory" in name} | {"TraceSetting"}
    left_out |= {"LogSettings"}
    assert messages.METHODS[messages.INFERENCE_SERVICE] == {
        name: pair for name, pair in expected.items() if name not in left_out
    }


@pytest.mark.parametrize("name", ["inference.proto", "health.proto"])
def test_the_files_are_what_protoc_reads(name, tmp_path):
    pytest.importorskip("grpc_tools", reason="tritonclient's messages stand in for protoc")
    target = tmp_path / "set.binpb"
    command = ["-m", "grpc_tools.protoc", f"-I{PACKAGE}", f"--descriptor_set_out={target}", name]
    subprocess.run([sys.executable, *command], cwd=PACKAGE, check=True)
    found = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    kind = descriptor_pb2.FileDescriptorProto
    ours = proto_of(messages.POOL.FindFileByName(f"stnkit/{name}"), kind)
    ours.name = name
    for message in found.message_type:
        _forget_json_names(message)
    for message in ours.message_type:
        _forget_json_names(message)
    assert ours == found


def _forget_json_names(message):
    # protoc writes them out; the pool computes the same ones.
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _forget_json_names(nested)


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_generated_copy_lives_in_the_same_process(ours_first):
    pytest.importorskip("tritonclient.grpc")
    lines = [
        "from stnkit.runtime.serving.grpc_v2 import messages",
        "import tritonclient.grpc",
    ]
    text = "; ".join(lines if ours_first else reversed(lines))
    text += "; assert messages.message_class('inference.InferParameter')(bool_param=True)"
    subprocess.run([sys.executable, "-W", "error", "-c", text], check=True)


def test_the_default_pool_is_left_alone():
    text = (
        "from stnkit.runtime.serving.grpc_v2 import messages\n"
        "from google.protobuf import descriptor_pool\n"
        "try: descriptor_pool.Default().FindMessageTypeByName('inference.ModelInferRequest')\n"
        "except KeyError: pass\n"
        "else: raise SystemExit('registered')\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


def test_json_becomes_a_message():
    fields = {"name": "m", "version": "1", "surplus": [1]}
    message = messages.message_of("inference.ModelReadyRequest", fields)
    assert (message.name, message.version) == ("m", "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("message A { string a = x; }", "expected a number"),
        ("message A { string a = 1 }", "expected ';'"),
        ("message A {", "ends too early"),
        ("import 'x';", "cannot read"),
        ("import x;", "cannot read 'import'"),
        ("service S { option x; }", "cannot read 'option'"),
        ("message A { string a = 1; } %", "cannot read"),
    ],
)
def test_what_is_not_understood_is_an_error(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_proto(text, "x.proto")
