"""Tuning: every form is proven, time decides among those that passed, and the manifest says so."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import stnkit.runtime as runtime
from stnkit.convert import ConversionOptions, convert, pipeline, source_from_keras, tuning
from stnkit.convert.frozen import freeze
from stnkit.models import SpatialTransformer
from stnkit.runtime.autotune_record import BatchTime, TriedForm
from stnkit.runtime.errors import ExportError, InputError, MismatchError
from stnkit.runtime.manifest_records import Artifact
from stnkit.runtime.timing import inputs as timing_inputs
from stnkit.runtime.timing.turns import Turns

FORMS = ("deform-conv", "grid-sample", "gather")
OPS = {"DeformConv": "deform-conv", "GridSample": "grid-sample"}
TUNED = ConversionOptions(formats=("onnx",), autotune=True)
FAST, SLOW, SLOWEST = (1.0, 8.0), (2.0, 16.0), (3.0, 24.0)


@pytest.fixture(scope="module")
def source(build):
    return source_from_keras(build("given_theta"))


@pytest.fixture
def take(monkeypatch):
    """Return `take(*ms)`: for each of `FORMS` one time a batch size, in place of a clock."""

    def patch(*forms_ms):
        asked = []

        def turns(functions):
            said = dict(zip(FORMS, forms_ms, strict=True))
            for function in functions.values():
                assert all(np.isfinite(value).all() for value in function().values())
            asked.append(tuple(functions))
            return {
                name: Turns((0.5 * ms, ms, 1.5 * ms), 1, 1.0)
                for name in functions
                for ms in [said[name][len(asked) - 1]]
            }

        monkeypatch.setattr(tuning, "take_turns", turns)
        return asked

    return patch


@pytest.fixture
def spoil(monkeypatch):
    """Return `spoil(*samplers)`: these forms are exported with a wrong constant."""
    honest = pipeline.export_onnx

    def patch(*samplers):
        def export(graph, opset, sampler):
            exported = honest(graph, opset, sampler)
            if exported.sampler not in samplers:
                return exported
            model = onnx.load_from_string(exported.content)
            floats = [it for it in model.graph.initializer if it.data_type == 1]
            largest = max(floats, key=lambda it: np.prod(it.dims))
            wrong = numpy_helper.to_array(largest) + np.float32(0.25)
            largest.CopyFrom(numpy_helper.from_array(wrong, largest.name))
            return replace(exported, content=model.SerializeToString())

        monkeypatch.setattr(pipeline, "export_onnx", export)

    return patch


@pytest.fixture
def no_clock(monkeypatch):
    """Let a test fail that times something."""
    monkeypatch.setattr(tuning, "take_turns", lambda functions: pytest.fail("was timed"))


def form_in(result):
    """Return how the samplers of the file are written, by its ops."""
    ops = runtime.summarize((result.bundle / "model.fp32.onnx").read_bytes()).ops
    return next((form for op, form in OPS.items() if op in ops), "gather")


@pytest.mark.parametrize(
    ("forms_ms", "winner"),
    [
        ((FAST, SLOW, SLOWEST), "deform-conv"),
        ((SLOW, FAST, SLOWEST), "grid-sample"),
        ((SLOWEST, SLOW, FAST), "gather"),
    ],
)
def test_the_fastest_form_is_kept(forms_ms, winner, source, take, tmp_path):
    asked = take(*forms_ms)
    result = convert(source, tmp_path / "m.bundle", replace(TUNED, threads=2))
    assert asked == [FORMS, FORMS]
    assert form_in(result) == winner
    (artifact,) = runtime.open_bundle(result.bundle).manifest.artifacts
    assert artifact == result.manifest.artifacts[0]
    assert artifact.sampler == winner
    assert artifact.autotune.forms == tuple(
        TriedForm(
            name,
            tuple(
                BatchTime(batch, ms, 0.75 * ms, 1.25 * ms)
                for batch, ms in zip((1, 8), times, strict=True)
            ),
        )
        for name, times in zip(FORMS, forms_ms, strict=True)
    )
    assert (artifact.autotune.backend, artifact.autotune.threads) == ("onnxruntime", 2)
    assert artifact.autotune.cores >= artifact.autotune.usable_cores >= 1
    assert artifact.autotune.cpu
    assert runtime.verify(result.bundle).passed


STEPS = (("exporting to ONNX", ""), ("comparing model.fp32.onnx", " with the model"))


def test_on_the_clock(source, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "take_turns", partial(tuning.take_turns, rounds=3))
    stages = []
    options = ConversionOptions(autotune=True)
    result = convert(source, tmp_path / "m.bundle", options, on_stage=stages.append)
    tflite, artifact = result.manifest.artifacts
    assert tflite.autotune is None
    best = min(artifact.autotune.forms, key=lambda form: form.item_ms)
    assert artifact.sampler == best.sampler
    assert all(
        0 < time.q1_ms <= time.median_ms <= time.q3_ms
        for form in artifact.autotune.forms
        for time in form.times
    )
    assert stages[4:-1] == [
        *(f"{what} ({form}){rest}" for form in FORMS for what, rest in STEPS),
        "timing deform-conv, grid-sample and gather at batch 1",
        "timing deform-conv, grid-sample and gather at batch 8",
    ]
    assert not any("autotune" in note for note in result.notes)


def test_a_fixed_batch_is_timed_at_its_own(source, take, tmp_path):
    asked = take((3.0,), (4.0,), (2.0,))
    result = convert(source, tmp_path / "m.bundle", replace(TUNED, batch=3))
    assert asked == [FORMS]
    (artifact,) = result.manifest.artifacts
    assert [[time.batch for time in form.times] for form in artifact.autotune.forms] == [[3]] * 3
    assert artifact.sampler == "gather"


def test_a_batch_that_takes_too_much_memory_is_left_out(source, take, tmp_path, monkeypatch):
    take((2.0,), (3.0,), (1.0,))
    monkeypatch.setattr(timing_inputs, "INPUT_BYTES_MAX", 4 * 16 * 16 * 2)  # one image
    (artifact,) = convert(source, tmp_path / "m.bundle", TUNED).manifest.artifacts
    assert [time.batch for time in artifact.autotune.forms[0].times] == [1]


@pytest.mark.parametrize("wrong", FORMS)
def test_a_form_that_fails_the_proof_is_dropped(wrong, source, take, spoil, tmp_path):
    asked = take(FAST, FAST, FAST)
    spoil(wrong)
    result = convert(source, tmp_path / "m.bundle", TUNED)
    right = tuple(form for form in FORMS if form != wrong)
    assert asked == [right, right]
    (artifact,) = result.manifest.artifacts
    assert artifact.sampler == form_in(result) == right[0]
    assert tuple(form.sampler for form in artifact.autotune.forms) == FORMS
    reasons = {form.sampler: form.dropped for form in artifact.autotune.forms}
    assert {reasons[form] for form in right} == {None}
    assert reasons[wrong].startswith("model.fp32.onnx differs from its source: ")
    (note,) = [note for note in result.notes if "dropped" in note]
    assert note.startswith(f"the {wrong} form of model.fp32.onnx did not pass and was dropped: ")
    assert "largest difference" in note
    assert "\n" not in note
    evidence = json.loads((result.bundle / "equivalence.json").read_text())
    assert note in evidence["notes"]
    assert [part["passed"] for part in evidence["artifacts"]] == [True]
    assert runtime.verify(result.bundle).passed


def test_a_form_that_cannot_be_written_is_dropped(source, take, tmp_path, monkeypatch):
    take(FAST, SLOW, SLOWEST)
    honest = pipeline.export_onnx

    def export(graph, opset, sampler):
        if sampler == "auto":
            raise ExportError("no such op", format="onnx")
        return honest(graph, opset, sampler)

    monkeypatch.setattr(pipeline, "export_onnx", export)
    (artifact,) = convert(source, tmp_path / "m.bundle", TUNED).manifest.artifacts
    assert artifact.sampler == "grid-sample"
    assert artifact.autotune.forms[0] == TriedForm("deform-conv", dropped="no such op")


def test_nothing_is_published_where_no_form_passes(source, spoil, no_clock, tmp_path):
    spoil(*FORMS)
    with pytest.raises(MismatchError, match=r"model\.fp32\.onnx differs from its source"):
        convert(source, tmp_path / "m.bundle", TUNED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "formats", "why"),
    [
        ("given_theta", ("tflite",), "TFLite has one form"),
        ("nearest_border_corners", ("onnx",), "no ONNX op can stand for a sampler"),
    ],
)
def test_nothing_to_choose_from(name, formats, why, build, no_clock, tmp_path):
    options = ConversionOptions(formats=formats, autotune=True)
    result = convert(source_from_keras(build(name)), tmp_path / "m.bundle", options)
    (note,) = [note for note in result.notes if "--autotune" in note]
    assert why in note
    assert all(artifact.autotune is None for artifact in result.manifest.artifacts)


def test_without_tuning_nothing_is_timed_or_recorded(source, no_clock, tmp_path):
    result = convert(source, tmp_path / "m.bundle", replace(TUNED, autotune=False))
    document = json.loads((result.bundle / "manifest.json").read_text())
    assert "autotune" not in document["artifacts"][0]
    assert form_in(result) == "deform-conv"


@pytest.mark.parametrize(
    ("name", "opset", "forms"),
    [
        ("given_theta", 19, ["deform-conv", "grid-sample", "gather"]),
        ("given_theta", 18, ["grid-sample", "gather"]),
        ("bilinear_border_corners", 19, ["deform-conv", "grid-sample", "gather"]),
        ("nearest_border_corners", 19, ["gather"]),
    ],
)
def test_forms_that_a_model_has(name, opset, forms, build):
    graph = freeze(source_from_keras(build(name)), None)
    options = replace(TUNED, opset=opset)
    found = tuning.sampler_forms(graph, "onnx", options)
    assert list(found) == forms
    assert list(found.values()) == ["auto", *forms[1:]]
    assert tuning.sampler_forms(graph, "tflite", options) == {"gather": "auto"}


def test_a_form_that_one_op_alone_cannot_have_is_no_choice():
    image, theta = keras.Input((9, 8, 1)), keras.Input((2, 3))
    near = SpatialTransformer(interpolation="nearest", name="near")([image, theta])
    model = keras.Model([image, theta], SpatialTransformer(name="between")([near, theta]))
    found = tuning.sampler_forms(freeze(source_from_keras(model), None), "onnx", TUNED)
    assert list(found) == ["deform-conv", "gather"]


@pytest.fixture
def choose(monkeypatch):
    """Return `choose(grid-sample's ms, gather's ms)`: the choice alone, of empty forms."""

    def pick(grid_sample_ms, gather_ms):
        said = {"grid-sample": grid_sample_ms, "gather": gather_ms}
        times = {
            name: tuple(
                BatchTime(batch, ms, ms, ms) for batch, ms in zip((1, 8), them, strict=True)
            )
            for name, them in said.items()
        }
        monkeypatch.setattr(tuning, "_times", lambda *arguments: (times, "1.22.0"))
        names = {"image": "image"}
        record = Artifact(
            *("model.fp32.onnx", "onnx", "fp32", "gather", 17, "dynamic", "0" * 64, 1),
            *(names, names, {}),
        )

        def prove(form, label):
            return tuning.ProvenForm(replace(record, sampler=label.strip(" ()")), b"", None)

        inputs = tuning.TuningInputs(None, (), None)
        forms = {"grid-sample": "auto", "gather": "gather"}
        form, notes = tuning.fastest_form(forms, prove, inputs, print)
        return form.record.sampler, notes

    return pick


@pytest.mark.parametrize(
    ("grid_sample_ms", "gather_ms", "winner"),
    [
        (FAST, FAST, "grid-sample"),  # the one that is written without tuning
        ((1.0, 16.0), (1.5, 8.0), "gather"),  # 1 + 2 > 1.5 + 1
        ((1.0, 16.0), (2.5, 8.0), "grid-sample"),  # 1 + 2 < 2.5 + 1
    ],
)
def test_the_sum_of_the_times_of_an_item_decides(grid_sample_ms, gather_ms, winner, choose):
    assert choose(grid_sample_ms, gather_ms)[0] == winner


@pytest.mark.parametrize("load", [9.5, 1.0, None])
def test_a_busy_machine_is_said(load, choose, monkeypatch):
    machine = replace(tuning.this_machine(), cores=4, load_average=load)
    monkeypatch.setattr(tuning, "this_machine", lambda: machine)
    _, notes = choose(FAST, SLOW)
    assert ["load average was 9.5 on 4 cores" in note for note in notes] == [True] * (load == 9.5)


@pytest.mark.parametrize("sampler", FORMS)
def test_a_fixed_form_leaves_nothing_to_tune(sampler):
    with pytest.raises(InputError, match=f"--autotune .* --sampler {sampler}"):
        ConversionOptions(autotune=True, sampler=sampler)
