"""Weights that no probe reaches are compared as they are stored."""

import numpy as np
import pytest

from stnkit.runtime.equivalence.stored_values import CASE, check_stored_values
from stnkit.runtime.file_constants import Constant
from stnkit.runtime.signature import TensorSpec


class Holder:
    outputs = (TensorSpec("scores", "float32", ("batch", 3)),)

    def __init__(self, **constants):
        self._constants = constants

    def constants(self):
        return [Constant(name, value) for name, value in self._constants.items()]


@pytest.fixture
def kernel():
    return np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)


def test_a_kernel_in_another_layout_is_the_same(kernel):
    turned = np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))
    assert check_stored_values(Holder(a=kernel), Holder(b=turned)) == []


@pytest.mark.parametrize("bit", [30, 31, 23, 22])
def test_one_flipped_bit_is_found(kernel, bit):
    turned = np.ascontiguousarray(kernel.transpose(3, 0, 1, 2))
    flat = turned.reshape(-1).view(np.uint32)
    flat[700] ^= np.uint32(1 << bit)
    (found,) = check_stored_values(Holder(a=kernel, z=kernel[..., :4]), Holder(b=turned))
    assert not found.passed
    assert (found.tensor, found.case) == ("scores", CASE)
    assert "1 of the 1152 values stored in 'b'" in found.reason
    assert "number 700" in found.reason


def test_a_kernel_that_was_folded_is_left_alone(kernel):
    folded = kernel * np.random.default_rng(1).uniform(0.5, 2, 16).astype(np.float32)
    assert check_stored_values(Holder(a=kernel), Holder(b=folded)) == []


def test_products_that_were_rounded_otherwise_are_no_damage(kernel):
    other = kernel.copy().reshape(-1)
    other[::50] = np.nextafter(other[::50], np.float32(9))
    assert check_stored_values(Holder(a=kernel), Holder(b=other)) == []


def test_zeros_of_either_sign_and_denormals_are_equal(kernel):
    ours, theirs = kernel.copy(), kernel.copy()
    ours.reshape(-1)[:3] = 0.0, 1e-40, -1e-42
    theirs.reshape(-1)[:3] = -0.0, 0.0, 0.0
    assert check_stored_values(Holder(a=ours), Holder(b=theirs)) == []


def test_constants_of_few_values_say_nothing():
    ones = np.ones(64, np.float32)
    other = ones.copy()
    other[3] = 2
    assert check_stored_values(Holder(a=ones), Holder(b=other)) == []


def test_a_model_that_shows_no_constants_is_not_judged_by_them(kernel):
    assert check_stored_values(Holder(), Holder(b=kernel)) == []
