"""`stnkit bench`: the tables, the JSON, and what is refused."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

NUMBER = {"type": "number", "exclusiveMinimum": 0}


def record(**members):
    """Return the schema of an object that has exactly these members."""
    return {
        "type": "object",
        "properties": members,
        "required": list(members),
        "additionalProperties": False,
    }


QUARTILES = record(median=NUMBER, q1=NUMBER, q3=NUMBER)
COUNT = {"type": "integer", "minimum": 1}
TEXT = {"type": "string", "minLength": 1}
MAYBE_TEXT = {"type": ["string", "null"]}


def maybe(schema):
    return {"anyOf": [schema, {"type": "null"}]}


SCHEMA = record(
    bundle=TEXT,
    device={"const": "cpu"},
    threads=maybe(COUNT),
    machine=record(
        cpu=TEXT,
        architecture=TEXT,
        cores=COUNT,
        usable_cores=COUNT,
        load_average={"type": ["number", "null"], "minimum": 0},
        busy={"type": "boolean"},
    ),
    artifacts={
        "type": "array",
        "minItems": 1,
        "items": record(
            file=TEXT,
            format={"enum": ["tflite", "onnx"]},
            precision=TEXT,
            sampler=TEXT,
            bytes=COUNT,
            backend={"enum": ["litert", "onnxruntime"]},
            backend_version=MAYBE_TEXT,
            not_run=MAYBE_TEXT,
            load_ms=maybe(QUARTILES),
            batches={
                "type": "array",
                "items": record(
                    batch=COUNT,
                    inputs=TEXT,
                    sizes={"type": "object", "additionalProperties": COUNT},
                    first_run_ms=QUARTILES,
                    run_ms=QUARTILES,
                    item_ms=NUMBER,
                    items_per_s=NUMBER,
                    ratio=maybe(QUARTILES),
                    cores_busy={"type": "number", "minimum": 0},
                    runs_per_round=COUNT,
                    rounds_ms={"type": "array", "minItems": 1, "items": NUMBER},
                ),
            },
        ),
    },
)


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def test_tables(digits_bundle, stnkit):
    result = stnkit("bench", digits_bundle, "--rounds", 2)
    assert result.stdout.isascii()
    files, times, starts = result.stdout.split("\n\n")
    assert cells(files.splitlines()[0]) == [
        *("artifact", "format", "ran on", "sampler", "precision", "size"),
    ]
    for line, format, backend in zip(
        files.splitlines()[1:], ("tflite", "onnx"), ("litert", "onnxruntime"), strict=True
    ):
        found = cells(line)
        assert found[:2] == [f"model.fp32.{format}", format]
        assert re.fullmatch(rf"{backend} [\d.]+", found[2])
        assert re.fullmatch(r"[\d.]+ [KM]B", found[5])
    assert cells(times.splitlines()[0]) == [
        *("batch", "artifact", "ms a run, quartiles", "ms an item", "items/s"),
        "/ fastest, quartiles",
    ]
    rows = [cells(line) for line in times.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        [batch, f"model.fp32.{format}"] for batch in ("1", "8") for format in ("tflite", "onnx")
    ]
    for row in rows:
        assert re.fullmatch(r"[\d.]+ [\d.]+-[\d.]+", row[2])
        assert re.fullmatch(r"fastest|[\d.]+ [\d.]+-[\d.]+", row[5])
    for pair in (rows[:2], rows[2:]):
        assert [row[5] for row in pair].count("fastest") == 1
    *table, machine = starts.splitlines()
    assert cells(table[0]) == [
        *("artifact", "load ms, quartiles", "first run at batch 1, ms", "first run at batch 8, ms"),
    ]
    assert [cells(line)[0] for line in table[1:]] == ["model.fp32.tflite", "model.fp32.onnx"]
    assert re.match(r"Measured on .+ \([\d of]+ cores, \w+\), threads: each backend's own", machine)
    assert result.stderr.splitlines() == [
        f"timing model.fp32.tflite, model.fp32.onnx at batch {batch}" for batch in (1, 8)
    ]


def test_json(digits_bundle, stnkit):
    result = stnkit("bench", digits_bundle, "--json", "--rounds", 2, "--batch", 4, "--threads", 1)
    assert result.stderr == ""
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["threads"] == 1
    for artifact in document["artifacts"]:
        (timing,) = artifact["batches"]
        assert timing["batch"] == 4
        assert timing["item_ms"] == pytest.approx(timing["run_ms"]["median"] / 4)
        assert timing["items_per_s"] == pytest.approx(1000 / timing["item_ms"])
        for spread in (timing["run_ms"], timing["first_run_ms"], artifact["load_ms"]):
            assert spread["q1"] <= spread["median"] <= spread["q3"]


def test_one_artifact_has_no_other_to_be_compared_with(digits_bundle, stnkit):
    result = stnkit(
        *("bench", digits_bundle, "--artifact", "onnx", "--batch", 1, "--rounds", 1),
        *("--threads", 2),
    )
    (row,) = result.stdout.split("\n\n")[1].splitlines()[1:]
    assert cells(row)[1] == "model.fp32.onnx"
    assert cells(row)[-1] == "-"
    assert "threads: 2." in result.stdout


@pytest.mark.parametrize(("load", "busy"), [(9.25, True), (0.5, False)])
def test_other_work_on_the_machine_is_told(load, busy, digits_bundle, stnkit, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 9)
    quick = ["--artifact", "tflite", "--rounds", 1, "--batch", 1]
    out = stnkit("bench", digits_bundle, *quick).stdout
    said = "The load average was 9.2 at the start: other work is running: figures are too high."
    assert (said in out) is busy


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--device cuda:7", ["device cuda:7 cannot be used"]),
        ("--device npu", ['"npu"', "expected cpu"]),
        ("--artifact nothing", ['"nothing"', "model.fp32.tflite", "model.fp32.onnx"]),
        ("--threads 0", ["--threads"]),
        ("--batch 0", ["--batch"]),
        ("--batch 1 --batch many", ["--batch", "many"]),
        ("--rounds 0", ["--rounds"]),
    ],
)
def test_wrong_use_is_one_line(arguments, says, bundle, refused):
    refused("bench", bundle, *arguments.split(), says=says)


def test_no_bundle(digit, refused):
    refused("bench", "nowhere.bundle", says=["nowhere.bundle", "does not exist"])
    refused("bench", digit, says=["digit.png", "not a folder"])


@pytest.mark.parametrize("file", ["manifest.json", "model.fp32.onnx", "golden.npz"])
def test_a_damaged_bundle(file, bundle, refused):
    (bundle / file).write_bytes((bundle / file).read_bytes()[:-5])
    refused("bench", bundle, says=[file])


def test_without_a_backend(bundle, process, refused_process):
    quick = ["--batch", 1, "--rounds", 1]
    result = process("bench", bundle, *quick, missing="onnxruntime,tensorflow,keras,onnx")
    assert result.returncode == 0
    assert "model.fp32.onnx: not run: onnxruntime is not installed: pip install" in result.stdout
    assert "model.fp32.onnx    onnx    not run" in result.stdout
    refused_process("bench", bundle, missing="onnxruntime,ai_edge_litert", says=["pip install"])
    refused_process(
        *("bench", bundle, "--artifact", "onnx"), missing="onnxruntime", says=["onnxruntime is not"]
    )


def test_served_next_to_bare(digits_bundle, stnkit, monkeypatch):
    from stnkit.runtime.timing import serving

    monkeypatch.setattr(serving, "_TURN_S", 0.2)
    monkeypatch.setattr(serving, "_WARM_UP_S", 0.05)
    arguments = ["--serve", "--rounds", 1, "--connections", 2, "--artifact", "tflite"]
    lines = stnkit("bench", digits_bundle, *arguments).stdout.splitlines()
    assert lines[0].startswith("model.fp32.tflite on cpu with litert ")
    assert lines[0].endswith(", 1 item a request")
    rows = [re.split(r"\s{2,}", line) for line in lines if re.match(r"(bare|served) ", line)]
    assert [row[:2] for row in rows if row[0] == "served"] == [["served", "1"], ["served", "2"]]
    assert any(row[:2] == ["bare session", "1"] for row in rows)
    assert any(line.startswith("The server adds ") for line in lines)
    document = json.loads(stnkit("bench", digits_bundle, *arguments, "--json").stdout)
    assert [it["callers"] for it in document["served"]] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--connections", "2"], ["--serve"]),
        (["--serve", "--batch", "1", "--batch", "2"], ["--batch"]),
    ],
)
def test_wrong_use_of_serve(arguments, says, bundle, refused):
    refused("bench", bundle, *arguments, says=says)
