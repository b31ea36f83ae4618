"""The manifest: what the writer writes the reader reads, and nothing else."""

from __future__ import annotations

import copy
import importlib.resources
import json
from typing import Any

import jsonschema
import pytest

from stnkit.runtime.errors import BundleError
from stnkit.runtime.manifest import MANIFEST_BYTES_MAX, Manifest, read_manifest, write_manifest
from stnkit.runtime.manifest_records import FileRecord, MeasuredErrors, Preprocessing, Source
from stnkit.runtime.signature import Signature, TensorSpec

SCHEMA = json.loads(
    importlib.resources.files("stnkit.runtime.schema").joinpath("manifest.schema.json").read_bytes()
)


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def manifest(maker, onnx_model) -> Manifest:
    tflite = maker.artifact(onnx_model, file="other.tflite", format="tflite", opset=None)
    golden = FileRecord("golden.npz", "1" * 64, 10)
    return maker.manifest((maker.artifact(onnx_model), tflite), golden)


@pytest.fixture(scope="module")
def document(manifest) -> dict[str, Any]:
    return json.loads(write_manifest(manifest))


def test_round_trip(manifest, document):
    data = write_manifest(manifest)
    assert read_manifest(data) == manifest
    assert write_manifest(read_manifest(data)) == data
    assert data.endswith(b"}\n")
    assert b'\n  "schema_version": 1' in data


def test_what_is_written_fits_the_schema(document, validator):
    validator.validate(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing": None, "classes": None},
        {"source": Source("f(x)", "function", None)},
        {
            "signature": Signature(
                (TensorSpec("image", "float32", ("batch", 4, "width", 3), "NHWC", (-1, 1)),),
                (
                    TensorSpec("probabilities", "float32", (1, "n")),
                    TensorSpec("features", "int64", ()),
                ),
            ),
            "preprocessing": Preprocessing("image", (4, 9), 3, 1.0, (1, 2, 3), (1, 1.5, 2)),
        },
    ],
)
def test_other_forms_round_trip_and_fit_the_schema(maker, manifest, validator, changes):
    other = maker.manifest(manifest.artifacts, manifest.golden, **changes)
    data = write_manifest(other)
    validator.validate(json.loads(data))
    assert read_manifest(data) == other


def test_a_model_without_transformers(maker, onnx_model, manifest, validator):
    artifact = maker.artifact(onnx_model, taps={}, errors=MeasuredErrors(0.0))
    data = write_manifest(maker.manifest((artifact,), manifest.golden, taps=()))
    validator.validate(json.loads(data))
    assert read_manifest(data).artifacts[0].errors == MeasuredErrors(0.0, None, None)


def test_unmeasured_artifact_is_not_written(maker, onnx_model, manifest):
    artifact = maker.artifact(onnx_model, errors=None)
    with pytest.raises(ValueError, match="no measured errors"):
        write_manifest(maker.manifest((artifact,), manifest.golden))


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with one value replaced, or removed where the value is `...`."""
    result = copy.deepcopy(document)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place: Any = result
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


# Each of these is wrong by itself: the schema and the reader must both refuse it.
MUTATIONS = [
    ("schema_version", 2, "schema_version is 2"),
    ("schema_version", "1", 'schema_version is "1"'),
    ("schema_version", True, "schema_version is true"),
    ("schema_version", ..., "schema_version is missing"),
    ("name", "a/b", 'name is "a/b"'),
    ("name", "", "name is"),
    ("name", "n" * 129, "name is"),
    ("name", 3, "name is 3"),
    ("surprise", 1, "surprise is unknown"),
    ("created_by", [], "created_by is a list"),
    ("created_by.stnkit", 1, "created_by.stnkit is 1"),
    ("source.file", "/home/me/model.keras", "source.file is"),
    ("source.file", "..", "source.file is"),
    ("source.file", "a\\b", "source.file is"),
    ("source.kind", "torch", 'source.kind is "torch"'),
    ("source.sha256", "A" * 64, "source.sha256 is"),
    ("signature.inputs", [], "signature.inputs is a list of 0"),
    ("signature.inputs.0.name", "a\nb", "signature.inputs[0].name is"),
    ("signature.inputs.0.name", "", "signature.inputs[0].name is"),
    ("signature.inputs.0.dtype", "object", "signature.inputs[0].dtype is"),
    ("signature.inputs.0.dtype", ..., "signature.inputs[0].dtype is missing"),
    ("signature.inputs.0.shape.1", -1, "signature.inputs[0].shape[1] is -1"),
    ("signature.inputs.0.shape.1", 2**31, "signature.inputs[0].shape[1] is"),
    ("signature.inputs.0.shape.1", 1.5, "signature.inputs[0].shape[1] is 1.5"),
    ("signature.inputs.0.shape.1", None, "signature.inputs[0].shape[1] is null"),
    ("signature.inputs.0.shape.0", "a b", "signature.inputs[0].shape[0] is"),
    ("signature.inputs.0.shape", [1] * 9, "signature.inputs[0].shape is"),
    ("signature.inputs.0.layout", "NCHW", "signature.inputs[0].layout is"),
    ("signature.inputs.0.range", [0], "signature.inputs[0].range is"),
    ("taps.0.kind", "grid", "taps[0].kind is"),
    ("taps.0.more", 1, "taps[0].more is unknown"),
    ("taps", {}, "taps is an object"),
    ("preprocessing.size", [0, 4], "preprocessing.size[0] is 0"),
    ("preprocessing.size", [4], "preprocessing.size is"),
    ("preprocessing.channels", 2, "preprocessing.channels is 2"),
    ("preprocessing.scale", 0, "preprocessing.scale is 0"),
    ("preprocessing.scale", False, "preprocessing.scale is false"),
    ("preprocessing.mean", [1, 2], "preprocessing.mean is"),
    ("preprocessing.std", [0], "preprocessing.std[0] is 0"),
    ("classes.labels", [], "classes.labels is"),
    ("classes.scores", "maybe", "classes.scores is"),
    ("artifacts", [], "artifacts is a list of 0"),
    ("artifacts.0.file", "../x", 'artifacts[0].file is "../x": expected a plain file name inside'),
    ("artifacts.0.file", "/etc/passwd", "artifacts[0].file is"),
    ("artifacts.0.file", "..", "artifacts[0].file is"),
    ("artifacts.0.file", ".hidden", "artifacts[0].file is"),
    ("artifacts.0.file", "a/b", "artifacts[0].file is"),
    ("artifacts.0.file", "a\\b", "artifacts[0].file is"),
    ("artifacts.0.file", "C:x", "artifacts[0].file is"),
    ("artifacts.0.file", "", "artifacts[0].file is"),
    ("artifacts.0.file", "a\x00b", "artifacts[0].file is"),
    ("artifacts.0.format", "pb", "artifacts[0].format is"),
    ("artifacts.0.precision", "fp8", "artifacts[0].precision is"),
    ("artifacts.0.sampler", "magic", "artifacts[0].sampler is"),
    ("artifacts.0.opset", None, "artifacts[0].opset is null"),
    ("artifacts.1.opset", 17, "artifacts[1].opset is 17"),
    ("artifacts.0.batch", 0, "artifacts[0].batch is 0"),
    ("artifacts.0.batch", "any", "artifacts[0].batch is"),
    ("artifacts.0.sha256", "0" * 63, "artifacts[0].sha256 is"),
    ("artifacts.0.bytes", 0, "artifacts[0].bytes is 0"),
    ("artifacts.0.bytes", -5, "artifacts[0].bytes is -5"),
    ("artifacts.0.bytes", 2**40, "artifacts[0].bytes is"),
    ("artifacts.0.inputs.image", 1, "artifacts[0].inputs.image is 1"),
    ("artifacts.0.errors.theta", -1, "artifacts[0].errors.theta is -1"),
    ("artifacts.0.errors.outputs", None, "artifacts[0].errors.outputs is null"),
    ("artifacts.0.errors", ..., "artifacts[0].errors is missing"),
    ("golden.file", "x/../y", "golden.file is"),
    ("golden.bytes", "3", "golden.bytes is"),
    ("equivalence", None, "equivalence is null"),
    ("tolerances.theta.atol", -1e-9, "tolerances.theta.atol is"),
    ("tolerances.warped", ..., "tolerances.warped is missing"),
    ("sha256", ..., "sha256 is missing"),
    ("sha256", "f" * 63 + "F", "sha256 is"),
]


@pytest.mark.parametrize(("path", "value", "message"), MUTATIONS)
def test_reader_and_schema_refuse_the_same(document, maker, validator, path, value, message):
    changed = put(document, path, value)
    if not path.startswith("sha256"):
        changed = maker.reseal(changed)
    with pytest.raises(BundleError) as caught:
        read_manifest(json.dumps(changed).encode())
    assert str(caught.value).startswith(f"manifest.json: {message}")
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not validator.is_valid(changed)


# What no schema can say.
TOGETHER = [
    ("taps.1.name", "st/theta", "taps is"),
    ("taps.1.name", "features", "taps is"),
    ("artifacts.1.file", "MODEL.fp32.onnx", "expected no file named twice"),
    ("golden.file", "manifest.json", "expected no file named twice"),
    ("artifacts.0.taps", {}, "artifacts[0].taps is an object: expected exactly the names"),
    ("artifacts.0.inputs", {"img": "x"}, "artifacts[0].inputs is an object: expected exactly the"),
    ("preprocessing.input", "img", 'preprocessing.input is "img": expected an input: "image"'),
    ("preprocessing.size", [4, 5], "preprocessing is"),
    ("classes.output", "probs", 'classes.output is "probs"'),
    ("classes.labels", ["a", "b"], "classes.labels is a list of 2: expected 3 labels"),
    ("signature.inputs.0.range", [1, 0], "signature.inputs[0].range is"),
    ("tolerances.theta.atol", 1e-3, "sha256 is"),
]


@pytest.mark.parametrize(("path", "value", "message"), TOGETHER)
def test_fields_that_disagree(document, maker, path, value, message):
    changed = put(document, path, value)
    if not message.startswith("sha256"):
        changed = maker.reseal(changed)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(changed)
    assert message in str(caught.value)


def test_a_name_twice_in_the_signature(document, maker):
    outputs = document["signature"]["outputs"]
    changed = put(document, "signature.outputs", [outputs[0], outputs[0]])
    with pytest.raises(BundleError, match=r"signature\.outputs is .*expected no name twice"):
        Manifest.from_json(maker.reseal(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not strict UTF-8 JSON"),
        (b"[]", "the document is a list of 0: expected an object"),
        (b"3", "the document is 3"),
        (b"\xff{}", "not strict UTF-8 JSON"),
        ("{}".encode("utf-16"), "not strict UTF-8 JSON"),
        (b"\xef\xbb\xbf{}", "not strict UTF-8 JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b'{"a": 1e999}', "out of the range of a double"),
        (b'{"a": 1, "a": 2}', '"a" stands twice'),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"1" * 10_000, "not strict UTF-8 JSON"),
        (b" " * (MANIFEST_BYTES_MAX + 1), "expected at most 4194304"),
    ],
)
def test_what_is_no_manifest_at_all(data, message):
    with pytest.raises(BundleError) as caught:
        read_manifest(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_deep_nesting_inside_a_field(document):
    deep: Any = 0
    for _ in range(900):
        deep = [deep]
    with pytest.raises(BundleError, match="name is a list of 1"):
        Manifest.from_json(put(document, "name", deep))


def test_every_flipped_bit_is_refused_or_changes_nothing(manifest):
    data = write_manifest(manifest)
    survived = 0
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            try:
                found = read_manifest(bytes(changed))
            except BundleError:
                continue
            assert found == manifest, f"byte {position} bit {bit}"
            survived += 1
    # What survives is the case of the letters in \u escapes and exponents.
    assert survived < 20


def test_truncation_anywhere_is_refused(manifest):
    data = write_manifest(manifest)
    for length in range(len(data) - 1):
        with pytest.raises(BundleError):
            read_manifest(data[:length])
