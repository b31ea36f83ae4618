"""The record of a tuning: what is written is read again, and nothing else is."""

from __future__ import annotations

import copy
import importlib.resources
import json

import jsonschema
import pytest

from stnkit.runtime.autotune_record import Autotune, BatchTime, TriedForm
from stnkit.runtime.errors import BundleError
from stnkit.runtime.manifest import Manifest, read_manifest, write_manifest
from stnkit.runtime.manifest_records import FileRecord

SCHEMA = json.loads(
    importlib.resources.files("stnkit.runtime.schema").joinpath("manifest.schema.json").read_bytes()
)
BATCHES = (BatchTime(1, 0.5, 0.4, 0.5), BatchTime(8, 2.0, 1.5, 2.5))
GATHER, GRID_SAMPLE = TriedForm("gather", BATCHES), TriedForm("grid-sample", BATCHES)
MACHINE = ("onnxruntime", "1.22.0", None, "A Processor (R)", "x86_64", 8, 4)
RECORDS = {
    "timed": Autotune((GRID_SAMPLE, GATHER), *MACHINE),
    "dropped": Autotune((TriedForm("grid-sample", dropped="differs"), GATHER), *MACHINE),
    "threads": Autotune((GATHER, GRID_SAMPLE), "onnxruntime", "1", 2, "cpu", "unknown", 1, 1),
}
WHERE = "artifacts[0].autotune"


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def document_of(maker, onnx_model):
    """Return `document_of(record)`: a manifest as JSON values, its artifact of the form gather."""

    def make(record):
        artifact = maker.artifact(onnx_model, autotune=record)
        manifest = maker.manifest((artifact,), FileRecord("golden.npz", "1" * 64, 10))
        return json.loads(write_manifest(manifest))

    return make


@pytest.mark.parametrize("name", RECORDS)
def test_round_trip(name, document_of, validator):
    document = document_of(RECORDS[name])
    validator.validate(document)
    manifest = read_manifest(json.dumps(document).encode())
    assert manifest.artifacts[0].autotune == RECORDS[name]
    assert manifest.to_json() == document


def test_a_manifest_without_one_stays_valid(document_of, validator):
    document = document_of(None)
    assert "autotune" not in document["artifacts"][0]
    validator.validate(document)
    assert read_manifest(json.dumps(document).encode()).artifacts[0].autotune is None


def test_time_of_an_item():
    assert GATHER.item_ms == 0.5 / 1 + 2.0 / 8
    assert TriedForm("gather", dropped="differs").item_ms == 0


def changed(document, path, value):
    """Return a copy with one value of the record replaced, or removed where it is `...`."""
    result = copy.deepcopy(document)
    place = result["artifacts"][0]
    *parents, last = [int(key) if key.isdigit() else key for key in ["autotune", *path]]
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


# Each of these is wrong by itself: the schema and the reader must both refuse it.
MUTATIONS = [
    ("", None, " is null"),
    ("", [], " is a list of 0"),
    ("", {}, ".forms is missing"),
    ("surprise", 1, ".surprise is unknown"),
    ("forms", [], ".forms is a list of 0"),
    ("forms", [GATHER.to_json()], ".forms is a list of 1"),
    ("forms.0.sampler", "magic", ".forms[0].sampler is"),
    ("forms.0.times", [], ".forms[0].times is a list of 0"),
    ("forms.0.dropped", "differs", ".forms[0].times is a list of 2"),
    ("forms.0.dropped", "a\nb", ".forms[0].dropped is"),
    ("forms.0.dropped", ..., ".forms[0].dropped is missing"),
    ("forms.0.more", 1, ".forms[0].more is unknown"),
    ("forms.1.times.0.batch", 0, ".forms[1].times[0].batch is 0"),
    ("forms.1.times.0.median_ms", 0, ".forms[1].times[0].median_ms is 0"),
    ("forms.1.times.0.median_ms", "1", ".forms[1].times[0].median_ms is"),
    ("forms.1.times.0.q1_ms", -1, ".forms[1].times[0].q1_ms is -1"),
    ("forms.1.times.0.q3_ms", ..., ".forms[1].times[0].q3_ms is missing"),
    ("forms.1.times.0.mean_ms", 1, ".forms[1].times[0].mean_ms is unknown"),
    ("backend", "", ".backend is"),
    ("backend_version", 1.2, ".backend_version is 1.2"),
    ("threads", 0, ".threads is 0"),
    ("threads", ..., ".threads is missing"),
    ("cpu", None, ".cpu is null"),
    ("architecture", "a\x00b", ".architecture is"),
    ("cores", 0, ".cores is 0"),
    ("cores", True, ".cores is true"),
    ("usable_cores", 1.5, ".usable_cores is 1.5"),
]


@pytest.mark.parametrize(("path", "value", "message"), MUTATIONS)
def test_reader_and_schema_refuse_the_same(path, value, message, document_of, maker, validator):
    document = changed(document_of(RECORDS["timed"]), path.split(".") if path else [], value)
    with pytest.raises(BundleError) as caught:
        read_manifest(json.dumps(maker.reseal(document)).encode())
    assert str(caught.value).startswith(f"manifest.json: {WHERE}{message}")
    assert "expected" in str(caught.value)
    assert not validator.is_valid(document)


# What no schema can say.
TOGETHER = [
    (
        "forms",
        [GATHER.to_json(), GATHER.to_json()],
        ".forms is a list of 2: expected no form twice",
    ),
    (
        "forms.1",
        TriedForm("gather", dropped="differs").to_json(),
        ".forms is a list of 2: expected",
    ),
    ("forms.0.times", [BATCHES[0].to_json()], ".forms is a list of 2: expected the same batch"),
    ("forms.1.times", [BATCHES[0].to_json()] * 2, ".forms is a list of 2: expected no batch size"),
    ("forms.0.times.1.q1_ms", 2.25, ".forms[0].times[1].median_ms is 2.0: expected a median"),
    ("forms.0.times.1.q3_ms", 1.75, ".forms[0].times[1].median_ms is 2.0: expected a median"),
]


@pytest.mark.parametrize(("path", "value", "message"), TOGETHER)
def test_fields_that_disagree(path, value, message, document_of, maker):
    document = changed(document_of(RECORDS["timed"]), path.split("."), value)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(maker.reseal(document))
    assert str(caught.value).startswith(f"manifest.json: {WHERE}{message}")
