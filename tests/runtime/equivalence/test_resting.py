"""One model's weights in memory at a time: who rests while another is run."""

from __future__ import annotations

from stnkit.runtime.equivalence import CompareOptions, compare_models, engine
from stnkit.runtime.equivalence.file_subject import FileSubject, Names

NAMES = Names(
    {"image": "image_in"},
    {"probabilities": "out_p", "features": "out_f"},
    {"st/theta": "loc:0/theta", "st/warped": "sampler/warped"},
)


class Watched(FileSubject):
    """A file that writes down when it is run, and sees which others are open meanwhile."""

    everyone: list[Watched]

    def __init__(self, name, content, everyone, log):
        super().__init__(name, content, NAMES)
        self.everyone, self.log = everyone, log
        everyone.append(self)

    @property
    def is_open(self):
        return bool(self._runners)

    def run(self, inputs, *, taps=False, drives=None):
        found = super().run(inputs, taps=taps, drives=drives)
        self.log.append((self.name, sorted(it.name for it in self.everyone if it.is_open)))
        return found


def test_no_two_models_are_open_while_one_is_run(monkeypatch, onnx_model):
    everyone, log, at_work = [], [], []
    subjects = [Watched(name, onnx_model, everyone, log) for name in ("a", "b", "c")]
    judge = engine._judge
    stored = engine.check_stored_values

    def judging(*given):
        at_work.append("judge")
        return judge(*given)

    def checking(reference, candidate):
        assert not any(item.is_open for item in everyone), "compared beside open models"
        return stored(reference, candidate)

    monkeypatch.setattr(engine, "_judge", judging)
    monkeypatch.setattr(engine, "check_stored_values", checking)
    assert compare_models(subjects[0], subjects[1:], CompareOptions()).passed
    assert {name for name, _ in log} == {"a", "b", "c"}
    for name, open_then in log:
        assert open_then == [name]
    assert at_work == ["judge", "judge"]


def test_a_reference_in_nchw_rests_too(onnx_model):
    everyone, log = [], []
    inner = Watched("a", onnx_model, everyone, log)
    outer = engine._Transposed(inner)
    assert inner.is_open
    outer.rest()
    assert not inner.is_open
