"""Causes that are recognised on small models written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime.equivalence.diagnosis import diagnose, hypotheses
from stnkit.runtime.equivalence.engine import compare_subjects
from stnkit.runtime.equivalence.options import CompareOptions
from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.errors import BackendError
from stnkit.runtime.signature import TensorSpec

WEIGHTS = np.random.default_rng(4).normal(0, 0.2, (6 * 5 * 3, 4))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logits(photo):
    return photo.reshape(len(photo), -1).astype(np.float64) @ WEIGHTS


class Plain(Subject):
    """A model that is one function from a photo to scores."""

    def __init__(self, function, name="candidate", size=(6, 5, 3)):
        self.name, self.format, self.function = name, "function", function
        self.backend, self.backend_version = "numpy", np.__version__
        self.inputs = (TensorSpec("photo", "float32", ("batch", *size)),)
        self.outputs = (TensorSpec("scores", "float32", ("batch", 4)),)
        self.taps = ()

    def run(self, inputs, *, taps=False, drives=None):
        return {"scores": self.function(inputs["photo"]).astype(np.float32)}

    def rounding_length(self):
        return 90.0


def findings(candidate, reference=lambda x: softmax(logits(x))):
    found = compare_subjects(
        Plain(reference, "reference"), [Plain(candidate)], CompareOptions()
    ).candidates[0]
    assert not found.passed
    return found.findings


def normalised(photo):
    """Batch normalisation with the statistics of the batch."""
    x = logits(photo)
    return softmax((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3))


def noisy(photo):
    return softmax(logits(photo) + np.random.default_rng().normal(0, 0.1, (len(photo), 4)))


def as_if_nchw(photo):
    return photo.reshape(-1, 3, 6, 5).transpose(0, 2, 3, 1)


CAUSES = {
    "dropout": noisy,
    "batch_norm_training": normalised,
    "batch_mixed": lambda x: softmax(np.roll(logits(x), 1, axis=0)),
    "batch_size": lambda x: softmax(logits(x) / (1 if len(x) == 1 else 2)),
    "preprocessing": lambda x: softmax(logits(x / 255)),
    "channels": lambda x: softmax(logits(x[..., ::-1])),
    "layout": lambda x: softmax(logits(as_if_nchw(x))),
    "flipped": lambda x: softmax(logits(x[:, :, ::-1])),
    "activation": logits,
    "softmax_axis": lambda x: softmax(logits(x).T).T,
    "classes_permuted": lambda x: softmax(logits(x))[:, [2, 0, 3, 1]],
    "output_scaled": lambda x: 1.02 * softmax(logits(x)),
    "output_temperature": lambda x: softmax(0.7 * logits(x)),
    "weights_missing": lambda x: softmax(0 * logits(x)),
    "quantised": lambda x: np.round(softmax(logits(x)) * 8) / 8,
    "reduced_precision": lambda x: softmax(logits(x)).astype(np.float16),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_comes_first(cause):
    found = findings(CAUSES[cause])
    assert [item.cause for item in found][:1] == [cause]
    assert found[0].sentence.count(":") or ";" in found[0].sentence, "it says what to do"
    assert any(digit in found[0].evidence for digit in "0123456789"), "it has a number"


def test_an_activation_that_was_added():
    found = findings(lambda x: np.tanh(logits(x)), logits)
    assert found[0].cause == "activation"
    assert "tanh once more" in found[0].sentence


def test_outputs_that_only_resemble_each_other_are_not_explained():
    found = findings(lambda x: softmax(logits(x) + np.sin(40 * logits(x))))
    assert [item.cause for item in found] == ["unknown"]


def test_what_is_equal_needs_no_reason():
    model = Plain(lambda x: softmax(logits(x)))
    report = compare_subjects(model, [model], CompareOptions()).candidates[0]
    assert report.passed
    assert report.findings == ()


class Once(Plain):
    """A model that fails on everything but the probes themselves."""

    def __init__(self):
        super().__init__(lambda x: 2 * softmax(logits(x)))
        self.runs = 0

    def run(self, inputs, **options):
        self.runs += 1
        if self.runs > 3:
            raise BackendError("no more")
        return super().run(inputs, **options)


def test_a_model_that_refuses_questions_is_explained_as_far_as_it_goes():
    reference = Plain(lambda x: softmax(logits(x)), "reference")
    report = compare_subjects(reference, [Once()], CompareOptions()).candidates[0]
    assert report.findings[0].cause == "output_scaled"


def test_no_hypothesis_is_begun_after_its_time(monkeypatch):
    monkeypatch.setattr(hypotheses, "_SECONDS_MAX", 0.0)
    assert [item.cause for item in findings(CAUSES["output_scaled"])] == ["unknown"]


def test_nothing_is_said_of_nothing():
    model = Plain(logits)
    assert diagnose(model, model, None, [], [], None) == ()
