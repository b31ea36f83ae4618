"""Which tensor is which: names, what exporters make of them, maps and layouts."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime.equivalence.binding import bind
from stnkit.runtime.equivalence.subject import Subject, Tap
from stnkit.runtime.errors import InputError
from stnkit.runtime.signature import TensorSpec


class Shown(Subject):
    """A subject that only has names and shapes."""

    def __init__(self, inputs, outputs, taps=(), name="b.onnx"):
        self.name, self.format = name, "onnx"
        self.inputs = tuple(TensorSpec(key, *spec) for key, spec in inputs.items())
        self.outputs = tuple(TensorSpec(key, *spec) for key, spec in outputs.items())
        self.taps = tuple(Tap.of_name(tap) for tap in taps)

    def run(self, inputs, *, taps=False, drives=None):
        raise AssertionError

    def rounding_length(self):
        raise AssertionError


IMAGE = ("float32", ("batch", 8, 6, 3))
SCORES = ("float32", ("batch", 4))
NCHW = ("float32", ("batch", 3, 8, 6))


def reference(**more):
    return Shown({"image": IMAGE, **more}, {"scores": SCORES}, ["stn/theta", "stn/warped"], "a")


def test_equal_names_in_any_order():
    found = bind(
        Shown({"image": IMAGE, "mask": IMAGE}, {"scores": SCORES, "box": SCORES}),
        Shown({"mask": IMAGE, "image": IMAGE}, {"box": SCORES, "scores": SCORES}),
    )
    assert found.inputs == {"image": "image", "mask": "mask"}
    assert found.outputs == {"scores": "scores", "box": "box"}
    assert found.notes == ()


@pytest.mark.parametrize("there", ["serving_default_image:0", "image:0", "Image"])
def test_what_exporters_add_is_overlooked(there):
    found = bind(reference(), Shown({there: IMAGE}, {"scores:0": SCORES}))
    assert found.inputs == {"image": there}
    assert found.outputs == {"scores": "scores:0"}


def test_the_only_one_is_it_and_that_is_said():
    found = bind(reference(), Shown({"x": IMAGE}, {"y": SCORES}))
    assert found.inputs == {"image": "x"}
    assert found.outputs == {"scores": "y"}
    assert any("'image' was taken to be 'x'" in note for note in found.notes)


def test_the_only_one_of_a_shape_is_it():
    vector = ("float32", ("batch", 5))
    found = bind(reference(extra=vector), Shown({"p": vector, "q": IMAGE}, {"y": SCORES}))
    assert found.inputs == {"image": "q", "extra": "p"}


def test_two_alike_need_a_map():
    two = Shown({"p": IMAGE, "q": IMAGE}, {"scores": SCORES})
    with pytest.raises(InputError, match=r"do not match .*--map image=NAME"):
        bind(reference(mask=IMAGE), two)
    found = bind(reference(mask=IMAGE), two, {"image": "q", "mask": "p"})
    assert found.inputs == {"image": "q", "mask": "p"}


def test_a_map_to_nowhere():
    with pytest.raises(InputError, match=r"--map: b\.onnx has no input or output 'z'"):
        bind(reference(), Shown({"x": IMAGE}, {"y": SCORES}), {"image": "z"})
    with pytest.raises(InputError, match=r"--map: a has no input or output 'photo'"):
        bind(reference(), Shown({"x": IMAGE}, {"y": SCORES}), {"photo": "x"})


def test_another_layout_is_hinted_at_and_never_guessed():
    candidate = Shown({"image": NCHW}, {"scores": SCORES})
    with pytest.raises(InputError, match=r"the layout NCHW would fit: --layout B=nchw"):
        bind(reference(), candidate)
    found = bind(reference(), candidate, layout="nchw")
    image = np.arange(2 * 8 * 6 * 3, dtype=np.float32).reshape(2, 8, 6, 3)
    fed = found.feed({"image": image})["image"]
    assert fed.shape == (2, 3, 8, 6)
    assert fed[1, 2, 3, 4] == image[1, 3, 4, 2]


def test_other_shapes_and_dtypes():
    with pytest.raises(InputError, match=r"\[batch, 8, 6, 3\], 'image' of b\.onnx \[batch, 9, 6"):
        bind(reference(), Shown({"image": ("float32", ("batch", 9, 6, 3))}, {"scores": SCORES}))
    with pytest.raises(InputError, match=r"is float32, 'image' of b\.onnx is uint8"):
        bind(reference(), Shown({"image": ("uint8", IMAGE[1])}, {"scores": SCORES}))


def test_open_sizes_fit_anything():
    free = ("float32", ("batch", "dim_1", "dim_2", 3))
    assert bind(reference(), Shown({"image": free}, {"scores": ("float32", ())})).inputs


def test_taps_that_are_lost_are_said():
    found = bind(reference(), Shown({"image": IMAGE}, {"scores": SCORES}, ["stn/theta"]))
    assert found.taps == {"stn/theta": "stn/theta"}
    assert any("has no tensor 'stn/warped'" in n or '"stn/warped"' in n for n in found.notes)


def test_further_outputs_are_said_and_further_inputs_refused():
    more = Shown({"image": IMAGE}, {"scores": SCORES, "other": SCORES})
    assert any("further outputs" in note for note in bind(reference(), more).notes)
    with pytest.raises(InputError, match="do not match"):
        bind(reference(), Shown({"image": IMAGE, "other": SCORES}, {"scores": SCORES}))
