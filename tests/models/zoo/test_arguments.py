"""The checks that the functions of the zoo share."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.models.zoo.arguments import (
    check_choice,
    check_count,
    check_filters,
    check_input_shape,
)


def test_what_is_right_comes_back_as_python_numbers():
    assert check_input_shape([np.int64(4), 6, 3]) == (4, 6, 3)
    assert check_input_shape((8, 4, 1), channels=1, multiple=4) == (8, 4, 1)
    assert type(check_count(np.int32(3), "classes")) is int
    assert check_filters([1, np.int64(2)], 2) == (1, 2)
    assert check_choice("b", "letter", ("a", "b")) == "b"


@pytest.mark.parametrize(
    "shape",
    [
        *(None, 28, "28", b"\x1c\x1c\x01", {4: 4}, (28, 28), (28, 28, 1, 1)),
        *((0, 4, 1), (4, -4, 1), (4.0, 4, 1), (True, 4, 4), (None, 4, 4), ("4", 4, 4)),
    ],
    ids=repr,
)
def test_input_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match=r"^input_shape is .*: expected \(height, width, channels"):
        check_input_shape(shape)


def test_input_shapes_of_other_channels_and_sides():
    with pytest.raises(ValueError, match=r"input_shape is \(4, 4, 1\): expected 3 channels"):
        check_input_shape((4, 4, 1), channels=3)
    with pytest.raises(ValueError, match=r"\(8, 6, 1\): expected a height and a width .* of 4"):
        check_input_shape((8, 6, 1), multiple=4)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3", [3]], ids=repr)
def test_counts_that_are_none(value):
    with pytest.raises(ValueError, match=r"^crops is .*: expected an integer of at least 1$"):
        check_count(value, "crops")


@pytest.mark.parametrize(
    "value", [None, 16, "16", (), [16], (16, 0), (16, True), (16, 2.0)], ids=repr
)
def test_filters_that_are_none(value):
    with pytest.raises(
        ValueError, match=r"^filters is .*: expected the channels of 2 or more levels"
    ):
        check_filters(value, 2)


@pytest.mark.parametrize("value", ["c", None, 1, "", "a, b"], ids=repr)
def test_choices_that_are_none(value):
    with pytest.raises(ValueError, match=r"^letter is .*: expected one of 'a', 'b'$"):
        check_choice(value, "letter", ("a", "b"))
