"""Makes faulty files, compares them, and keeps what came out for every test that asks."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

import numpy as np
from fault_models import MODELS
from fault_table import FAULTS

from stnkit.convert import load_source, source_from_keras
from stnkit.convert.frozen import freeze
from stnkit.convert.keras_subject import KerasSubject
from stnkit.convert.onnx import export_onnx
from stnkit.convert.tflite import export_tflite
from stnkit.models.pretrained.catalogue import samples
from stnkit.runtime.equivalence.engine import compare_subjects
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.options import CompareOptions

_ITEMS = 6  # of random images on which a fault must show
_WAIT_S = 120  # for another worker


def real_digits():
    return (samples("digits").images[:40] / 255).astype(np.float32)


@functools.cache
def reference(name):
    """Return a model as a subject."""
    source = load_source("digits") if name == "digits" else source_from_keras(MODELS[name]())
    return KerasSubject(name, source)


def exported(graph, format, sampler="gather"):
    return (export_onnx(graph, 17, sampler) if format == "onnx" else export_tflite(graph)).content


@functools.cache
def faithful(name, format, sampler="gather"):
    """Return the content of a model's right file."""
    return exported(reference(name).graph, format, sampler)


def faulty(fault):
    """Return the content of the wrong file."""
    if fault.edit is not None:
        return fault.edit(faithful(fault.model, fault.format, fault.sampler))
    return exported(freeze(source_from_keras(fault.wrong()), None), fault.format)


def compared(name, content, format, taps=True, **options):
    """Return the report on a file, or on one that hides theta and warped image."""
    candidate = FileSubject(f"candidate.{format}", content)
    if not taps:
        names = {
            role: {spec.name: spec.name for spec in specs}
            for role, specs in (("inputs", candidate.inputs), ("outputs", candidate.outputs))
        }
        candidate = FileSubject(f"candidate.{format}", content, Names(**names, taps={}))
    try:
        report = compare_subjects(reference(name), [candidate], CompareOptions(**options))
    finally:
        candidate.close()
    return report


def change_of_function(fault, content):
    """Return how far the faulty file is from the right one on random images, relative."""
    rng = np.random.default_rng(3)
    sizes = [spec.shape[1:] for spec in reference(fault.model).inputs]
    names = [spec.name for spec in reference(fault.model).inputs]
    inputs = {
        name: rng.random((_ITEMS, *size)).astype(np.float32)
        for name, size in zip(names, sizes, strict=True)
    }
    if fault.model == "digits":
        inputs["image"] = np.concatenate([inputs["image"], real_digits()])
    right = FileSubject("right", faithful(fault.model, fault.format, fault.sampler))
    wrong = FileSubject("wrong", content)
    largest = 0.0
    expected, got = right.run(inputs), wrong.run(inputs)
    for name, value in expected.items():
        # The only output may have taken the name of a layer that was put behind it.
        other = got[name] if name in got else next(iter(got.values()))
        largest = max(largest, float(np.abs(value - other).max() / np.abs(value).max()))
    right.close()
    wrong.close()
    return largest


class Bench:
    """Evaluates each fault once.

    Args:
        folder: where the results are kept: every worker of pytest-xdist shares it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result(self, name):
        """Return what a comparison made of a fault, as a dict of JSON values."""
        path = self.folder / f"{name}.json"
        if not path.exists() and self._mine(name):
            own = path.with_suffix(".part")
            own.write_text(json.dumps(self._evaluate(FAULTS[name])))
            own.rename(path)
        until = time.monotonic() + _WAIT_S
        while not path.exists():
            assert time.monotonic() < until, f"another worker gave up on {name}"
            time.sleep(0.05)
        return json.loads(path.read_text())

    def _mine(self, name):
        """Return whether nobody else has begun with a fault."""
        try:
            (self.folder / f"{name}.begun").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _evaluate(self, fault):
        content = faulty(fault)
        candidate = compared(fault.model, content, fault.format, bisect=True).candidates[0]
        first = candidate.bisection.first if candidate.bisection else None
        return {
            "passed": candidate.passed,
            "changed": change_of_function(fault, content),
            "failures": [item.describe() for item in candidate.proof.failures][:6],
            "findings": [item.to_json() for item in candidate.findings],
            "layer": "" if first is None else first.layer,
            "op": "" if first is None else first.op,
        }


def named_right(fault, result):
    """Return whether the likeliest finding has a right cause or names a right layer.

    To name a part of the model, "after the transformer" for one, is not enough.
    """
    if not result["findings"]:
        return False
    finding = result["findings"][0]
    if finding["cause"] in fault.causes:
        return True
    if finding["cause"] in ("after_transformer", "localization", "sampler", "unknown"):
        return False
    return any(repr(layer) in finding["sentence"] for layer in fault.layers)
