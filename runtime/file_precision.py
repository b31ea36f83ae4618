"""In which precision a model file computes, and the grids on which it keeps integers.

Source: TFLite's quantisation specification (real = scale * (integer - zero_point)); ONNX operators
QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from stnkit.runtime.model_file import FileSummary

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PRECISIONS", "Grid", "Precision", "grids_of", "precision_of"]

Precision = Literal["float32", "float16_weights", "float16", "int8_weights", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_INTEGERS = ("int4", "int8", "uint4", "uint8", "int2")
_STORED_HALVES = ("float16", "bfloat16")
_QUANTISING = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")
_DYNAMIC = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "DequantizeLinear")


@dataclass(frozen=True)
class Grid:
    """The numbers that an integer tensor stands for: `scale * (integer - zero_point)`.

    Attributes:
        scale: distance of two neighbours.
        zero_point: the integer that stands for 0.
        dtype: NumPy's name of the integers.
    """

    scale: float
    zero_point: int
    dtype: str

    def integers(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the nearest integers for floats; those beyond the grid become its ends."""
        import numpy as np

        limits = np.iinfo(self.dtype)
        with np.errstate(invalid="ignore"):
            steps = np.round(np.asarray(values, np.float64) / self.scale) + self.zero_point
        steps = np.nan_to_num(steps, nan=self.zero_point)
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def floats(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the float32 that integers stand for."""
        import numpy as np

        return ((values.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


def grids_of(content: bytes, format: str) -> Mapping[str, Grid]:
    """Return the grid of every integer tensor of a TFLite file that is computed or fed.

    Args:
        content: the file's bytes.
        format: `"tflite"` or `"onnx"`; what an ONNX file keeps as integers it turns back itself.

    Raises:
        InputError: the file is damaged.
        BackendMissingError: ai-edge-litert is not installed.
    """
    if format != "tflite":
        return {}
    from stnkit.runtime.tflite_file import quantised_tensors

    return {
        name: Grid(scale, zero_point, dtype)
        for name, dtype, scale, zero_point in quantised_tensors(content)
        if scale > 0
    }


def precision_of(summary: FileSummary, grids: Mapping[str, Grid]) -> Precision:
    """Return in which precision a file computes.

    Args:
        summary: what is inside the file.
        grids: its integer tensors.

    Returns:
        `"int8"` where what is computed is kept as integers, `"int8_weights"` where weights alone
        are, `"float16"` and `"float16_weights"` likewise (bfloat16 among them), else `"float32"`.
    """
    dtypes = set(summary.weight_dtypes)
    integers = not dtypes.isdisjoint(_INTEGERS)
    halves = not dtypes.isdisjoint(_STORED_HALVES)
    if summary.format == "tflite":
        if grids:
            return "int8"
        # An integer constant that nothing turns into a float is an index or a table.
        if integers:
            return "int8_weights"
        return "float16_weights" if halves else "float32"
    if any(op in summary.ops for op in _QUANTISING):
        return "int8"
    if integers and any(op in summary.ops for op in _DYNAMIC):
        return "int8_weights"
    return "float16" if halves else "float32"
