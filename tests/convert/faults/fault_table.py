"""Every fault: the model it is put into, the format, how it is made, and what it should be called.

A fault counts as named where the likeliest finding has one of its causes, or names one of its
layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import fault_models as models
import keras
import numpy as np
import onnx_faults as onnx
import tensorflow as tf
import tflite_faults as tflite
import wrong_steps as steps

layers = keras.layers


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: its name.
        model: of `MODELS`, or "digits".
        format: "onnx" or "tflite".
        causes: slugs that are right.
        layers: layers that are right.
        edit: from the faithful file's content to the faulty one's; None exports `wrong`.
        wrong: makes the model that is exported in place of the right one.
        slow: whether `make test` leaves it out, because one much like it is there.
        sampler: how samplers are written in the file, as in `export_onnx`.
    """

    name: str
    model: str
    format: str
    causes: frozenset[str]
    layers: tuple[str, ...] = ()
    edit: Callable[[bytes], bytes] | None = field(default=None, repr=False)
    wrong: Callable[[], Any] | None = field(default=None, repr=False)
    slow: bool = False
    sampler: str = "gather"


FAULTS: dict[str, Fault] = {}


def file(name, model, format, edit, causes="", layers=(), **options):
    """Add a fault that is put into a file."""
    assert name not in FAULTS
    FAULTS[name] = Fault(
        name, model, format, frozenset(causes.split()), tuple(layers), edit=edit, **options
    )


def op(name, model, causes, edit):
    """Add a fault that is put into a file with GridSample."""
    file(name, model, "onnx", edit, causes, sampler="grid-sample")


def export(name, model, format, causes="", layers=(), **options):
    """Add a fault that is exported."""
    assert name not in FAULTS
    build = models.MODELS[model]
    FAULTS[name] = Fault(
        name,
        model,
        format,
        frozenset(causes.split()),
        tuple(layers),
        wrong=lambda: build(**options),
    )


def step(name, model, format, causes, /, **hooks):
    """Add a step of the transformer that is done wrong."""
    export(name, model, format, causes, hooks=hooks)


# Conventions of the sampler.
export("align_corners_flipped", "classifier", "onnx", "align_corners", align_corners=True)
export("sampler_corners_flipped", "square", "tflite", "align_corners", sampler_corners=True)
export("reflection_for_border", "classifier", "tflite", "padding_mode", padding_mode="reflection")
export("zeros_for_border", "classifier", "onnx", "padding_mode", padding_mode="zeros")
export("border_for_zeros", "square", "tflite", "padding_mode", padding_mode="border")
export("nearest_for_bilinear", "classifier", "tflite", "interpolation", interpolation="nearest")
export("bicubic_for_bilinear", "classifier", "onnx", "interpolation", interpolation="bicubic")
step("half_pixel", "square", "onnx", "half_pixel", planes=steps.shifted_px(0.5, 0.5))
step("half_pixel_in_x", "classifier", "tflite", "half_pixel", planes=steps.shifted_px(-0.5, 0))
step("one_pixel_in_y", "classifier", "onnx", "one_pixel", planes=steps.shifted_px(0, 1))
step("xy_swapped", "square", "tflite", "xy_swapped", planes=steps.swapped)
step("mirrored", "classifier", "onnx", "flipped theta_sign", planes=steps.mirrored)
step("grid_of_256_steps", "classifier", "tflite", "quantised_grid", planes=steps.on_lattice(256))
step(
    "border_short_by_one",
    "classifier",
    "onnx",
    "off_by_one_border",
    planes=steps.short_of_the_border,
)
step("zeros_cut_off", "square", "tflite", "padding_edge", warped=steps.cut_off_at_centres)
step("last_row_lost", "square", "onnx", "last_row_dropped", warped=steps.last_row_lost)
step(
    "last_row_repeated", "classifier", "tflite", "last_row_repeated", warped=steps.last_row_repeated
)
step("warped_transposed", "square", "onnx", "layout theta_xy_swapped", warped=steps.turned)
file("coordinates_in_half", "classifier", "onnx", onnx.coordinates_in_half, "grid_precision")

# The same in GridSample.
op("op_aligns_corners", "square", "align_corners", onnx.replace_attributes(align_corners=1))
op("op_has_border", "square", "padding_mode", onnx.replace_attributes(padding_mode="border"))
op("op_has_zeros", "classifier", "padding_mode", onnx.replace_attributes(padding_mode="zeros"))
op("op_is_nearest", "classifier", "interpolation", onnx.replace_attributes(mode="nearest"))
op("op_reads_y_x", "square", "xy_swapped", onnx.grid_swapped)
op("op_reads_columns", "square", "layout theta_xy_swapped xy_swapped", onnx.image_turned)

# Theta.
step("theta_transposed", "square", "onnx", "theta_transposed", theta=steps.transposed)
step("theta_transposed_unseen", "classifier", "tflite", "theta_transposed", used=steps.transposed)
step("theta_rows_swapped", "classifier", "onnx", "theta_rows_swapped", theta=steps.rows_swapped)
step("theta_inverted", "square", "tflite", "theta_inverse", used=steps.inverted)
step("theta_shift_negated", "classifier", "onnx", "theta_sign", theta=steps.shift_negated)
step(
    "theta_unseen_1e-3",
    "square",
    "onnx",
    "theta_coefficient",
    used=steps.coefficient_off(0, 1, 1e-3),
)


def add_1e_3(index):
    def change(values):
        values = values.copy()
        values[index] += 1e-3
        return values

    return change


file(
    "theta_1e-3_onnx",
    "digits",
    "onnx",
    onnx.constant("theta_1/BiasAdd", change=add_1e_3(2)),
    "theta_coefficient",
    ["theta", "theta_head"],
)
file(
    "theta_1e-3_tflite",
    "digits",
    "tflite",
    tflite.constant("theta_1/BiasAdd", change=add_1e_3(4), rank=1),
    "theta_coefficient",
    ["theta", "theta_head"],
)
file(
    "localisation_zeroed",
    "classifier",
    "onnx",
    onnx.constant("theta_1", change=np.zeros_like, rank=2),
    "theta_constant",
    ["theta", "theta_head"],
)

# The batch, and modes of training.
step("theta_of_other_items", "classifier", "onnx", "batch_mixed", used=steps.reversed_batch)
step("first_image_for_all", "square", "tflite", "batch_mixed", image=steps.first_of_the_batch)
export(
    "outputs_of_other_items",
    "classifier",
    "tflite",
    "batch_mixed",
    after=models.Applied(steps.reversed_batch, name="mixed"),
)
export(
    "batch_norm_in_training",
    "normalised",
    "onnx",
    "batch_norm_training",
    ["norm"],
    norm=models.TrainingNorm(name="norm"),
)
file("dropout_active", "normalised", "onnx", onnx.dropout_active, "dropout")

# What is done to inputs and outputs.
export(
    "prepared_twice",
    "classifier",
    "tflite",
    "preprocessing",
    before=layers.Rescaling(2.0, -1.0, name="prepare"),
)
file(
    "divided_by_255_twice",
    "digits",
    "onnx",
    onnx.before_input("image", onnx.one_node("Div", np.float32(255))),
    "preprocessing",
)
file(
    "channels_reversed",
    "classifier",
    "onnx",
    onnx.before_input("photo", onnx.one_node("Gather", np.array([2, 1, 0]), axis=3)),
    "channels",
)
file(
    "height_and_width_swapped",
    "digits",
    "onnx",
    onnx.before_input("image", onnx.one_node("Transpose", perm=[0, 2, 1, 3])),
    "layout",
)
export(
    "memory_read_as_nchw",
    "classifier",
    "tflite",
    "layout",
    before=models.Applied(
        lambda x: tf.transpose(tf.reshape(x, [-1, 3, 14, 12]), [0, 2, 3, 1]), name="layout"
    ),
)
file("outputs_swapped_onnx", "pair", "onnx", onnx.swapped_outputs, "outputs_permuted")
file("outputs_swapped_tflite", "pair", "tflite", tflite.swapped_outputs, "outputs_permuted")
file(
    "softmax_lost",
    "digits",
    "onnx",
    onnx.replace_node("Softmax", "", "Identity", drop=["axis"]),
    "activation",
)
file(
    "softmax_along_the_batch",
    "classifier",
    "onnx",
    onnx.replace_node("Softmax", "", "Softmax", axis=0),
    "softmax_axis",
)
file(
    "softmax_sharpened",
    "digits",
    "tflite",
    tflite.option("SOFTMAX", "", beta=1.5),
    "activation output_temperature",
    ["probabilities"],
)
export(
    "softmax_twice",
    "classifier",
    "tflite",
    "activation",
    after=layers.Softmax(name="again"),
)
file(
    "output_halved",
    "classifier",
    "onnx",
    onnx.after("Softmax", "", onnx.one_node("Mul", np.float32(0.5))),
    "output_scaled",
)


def rolled(values):
    return np.roll(values, 1, axis=-1)


def both(*edits):
    def apply(content):
        for edit in edits:
            content = edit(content)
        return content

    return apply


file(
    "classes_in_another_order",
    "digits",
    "onnx",
    both(
        onnx.constant("probabilities", change=rolled, rank=2),
        onnx.constant("probabilities", "BiasAdd", change=rolled, rank=1),
    ),
    "classes_permuted",
)

# Weights.
LAYERS_OF_DIGITS = {
    "conv2d_2": ("convolution", 4),
    "conv2d_3": ("convolution", 4),
    "dense_1": ("MatMul", 2),
    "block1_conv": ("convolution", 4),
    "block2_conv": ("convolution", 4),
    "block3_conv": ("convolution", 4),
    "block4_conv": ("convolution", 4),
    "probabilities": ("MatMul", 2),
}
for layer, (word, rank) in LAYERS_OF_DIGITS.items():
    file(
        f"exponent_bit_in_{layer}_onnx",
        "digits",
        "onnx",
        onnx.constant(f"/{layer}_1/", change=onnx.flip_bit(), rank=rank),
        layers=[layer, layer.replace("_conv", "_norm")],
        slow=layer in ("block2_conv", "block3_conv"),
    )
    file(
        f"exponent_bit_in_{layer}_tflite",
        "digits",
        "tflite",
        tflite.constant(f"/{layer}_1/{word}", change=onnx.flip_bit(), rank=rank),
        layers=[layer, layer.replace("_conv", "_norm")],
        slow=layer not in ("conv2d_3", "block1_conv", "probabilities"),
    )
file(
    "bias_zeroed",
    "classifier",
    "tflite",
    tflite.constant("conv_b", change=np.zeros_like, rank=1),
    layers=["conv_b"],
)
file(
    "kernel_transposed",
    "classifier",
    "onnx",
    onnx.constant("conv_b", change=lambda v: v.transpose(0, 1, 3, 2), rank=4),
    layers=["conv_b"],
)
file(
    "kernel_zeroed",
    "classifier",
    "tflite",
    tflite.constant("scores", change=np.zeros_like, rank=2),
    "weights_missing",
    ["scores"],
)
export("stale_weights", "classifier", "onnx", "weights", ["look"], seed=8)
file("int8_kernel", "classifier", "onnx", onnx.int8_weights("conv_a"), layers=["conv_a"])
file("half_weights_onnx", "digits", "onnx", onnx.half_weights, "reduced_precision")
file("half_weights_tflite", "classifier", "tflite", tflite.half_weights, "reduced_precision")
export("gamma_and_beta_swapped", "normalised", "tflite", "", ["norm", "conv"], gamma_for_beta=True)
export(
    "batch_norm_epsilon",
    "normalised",
    "onnx",
    layers=["norm", "conv"],
    norm=layers.BatchNormalization(epsilon=1e-2, name="norm"),
)

# Layers that are others.
file(
    "relu_lost",
    "classifier",
    "tflite",
    tflite.option("CONV_2D", "conv_b", fusedActivationFunction=0),
    layers=["conv_b"],
)
file(
    "relu6_for_relu",
    "digits",
    "onnx",
    onnx.replace_node("Relu", "block4", "Clip", extra=[0, 6]),
    layers=["block4_relu"],
)
file(
    "average_for_max_onnx",
    "classifier",
    "onnx",
    onnx.replace_node("MaxPool", "pool_1/", "AveragePool", drop=["storage_order", "dilations"]),
    layers=["pool", "look_pool"],
)
file(
    "average_for_max_tflite",
    "digits",
    "tflite",
    tflite.replace_operator("MAX_POOL_2D", "pool1", "AVERAGE_POOL_2D"),
    layers=["pool1"],
)
file(
    "addition_for_subtraction",
    "square",
    "tflite",
    tflite.replace_operator("SUB", "stn_1/sub", "ADD"),
    "one_pixel",  # it is (x + 1) * size + 1 in place of - 1
    ["stn"],
)
export(
    "padding_valid",
    "classifier",
    "tflite",
    layers=["conv_a"],
    changes={"conv_a": layers.Conv2D(6, 3, activation="relu", name="conv_a")},
)
export(
    "stride_of_two",
    "classifier",
    "onnx",
    layers=["conv_b", "average"],
    changes={"conv_b": layers.Conv2D(8, 3, strides=2, activation="relu", name="conv_b")},
)
export(
    "flattened_as_nchw",
    "pair",
    "onnx",
    "layout shape",
    ["flat", "left", "right"],
    flatten=layers.Permute((3, 1, 2), name="permute"),
)

# Each is much like another one that is not left out.
for name in (
    "sampler_corners_flipped",
    "border_for_zeros",
    "half_pixel_in_x",
    "one_pixel_in_y",
    "theta_inverted",
    "theta_rows_swapped",
    "softmax_twice",
    "last_row_repeated",
    "stride_of_two",
    "zeros_for_border",
    "memory_read_as_nchw",
    "outputs_of_other_items",
    "first_image_for_all",
    "theta_shift_negated",
    "mirrored",
    "stale_weights",
):
    FAULTS[name] = replace(FAULTS[name], slow=True)
