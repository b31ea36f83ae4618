"""Describe the tensors that go into a model, come out of it, and lie at its transformers.

Convention: a shape is a tuple whose entries are sizes or names; a name (`"batch"`) is a dimension
known only when the model runs. Equal names in one signature are equal sizes in one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stnkit.runtime.compare import Kind, Tolerance
from stnkit.runtime.json_reader import JsonNode

__all__ = [
    "BATCH",
    "DTYPES",
    "Contract",
    "ContractLike",
    "Shape",
    "Signature",
    "TapSpec",
    "TensorSpec",
    "Tolerances",
    "shape_problem",
]

Shape = tuple[int | str, ...]
TapKind = Literal["theta", "warped"]

BATCH = "batch"
"""Name of the dimension that counts the images."""

DTYPES = ("float32", "float16", "int32", "int64", "uint8", "int8", "bool")

_DIM_MAX = 2**31 - 1  # TFLite stores a dimension in 32 signed bits
_RANK_MAX = 8
# No control characters: names are printed on terminals and become names of members of a zip file.
NAME_PATTERN = r"[^\x00-\x1f\x7f]{1,512}"
DIM_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,63}"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: the name in the signature, as Keras has it.
        dtype: NumPy's name of the element type, one of `DTYPES`.
        shape: sizes (>= 0) and named dimensions.
        layout: `"NHWC"` for images, else None.
        range: smallest and largest value the model was made for, else None.
    """

    name: str
    dtype: str
    shape: Shape
    layout: str | None = None
    range: tuple[float, float] | None = None

    @classmethod
    def from_node(cls, node: JsonNode) -> TensorSpec:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("name", "dtype", "shape", "layout", "range")
        return cls(
            name=_name(fields["name"]),
            dtype=fields["dtype"].choice(*DTYPES),
            shape=_shape(fields["shape"]),
            layout=fields["layout"].optional(lambda it: it.choice("NHWC")),
            range=fields["range"].optional(_range),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "layout": self.layout,
            "range": None if self.range is None else [float(v) for v in self.range],
        }


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, by name.

    Attributes:
        inputs: at least one.
        outputs: at least one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def from_node(cls, node: JsonNode) -> Signature:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("inputs", "outputs")
        inputs, outputs = (
            tuple(TensorSpec.from_node(item) for item in fields[key].items(least=1))
            for key in ("inputs", "outputs")
        )
        for key, specs in (("inputs", inputs), ("outputs", outputs)):
            if len({spec.name for spec in specs}) != len(specs):
                fields[key].fail("no name twice")
        return cls(inputs, outputs)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }


@dataclass(frozen=True)
class TapSpec:
    """A tensor inside the model at which artifact and source are compared.

    Attributes:
        name: the tap's name, e.g. `"spatial_transformer/theta"`.
        kind: `"theta"` (the transformation) or `"warped"` (what the sampler returned).
        transformer: the layer it belongs to, e.g. `"spatial_transformer"`.
        shape: sizes and named dimensions.
        dtype: NumPy's name of the element type.
    """

    name: str
    kind: TapKind
    transformer: str
    shape: Shape
    dtype: str = "float32"

    @classmethod
    def from_node(cls, node: JsonNode) -> TapSpec:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("name", "kind", "transformer", "shape", "dtype")
        kind = fields["kind"].choice("theta", "warped")
        return cls(
            name=_name(fields["name"]),
            kind="theta" if kind == "theta" else "warped",
            transformer=_name(fields["transformer"]),
            shape=_shape(fields["shape"]),
            dtype=fields["dtype"].choice(*DTYPES),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "name": self.name,
            "kind": self.kind,
            "transformer": self.transformer,
            "shape": list(self.shape),
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class Tolerances:
    """What an artifact may differ by from its source.

    Attributes:
        outputs: at the outputs.
        theta: at the transformations.
        warped: at the warped images.
    """

    outputs: Tolerance
    theta: Tolerance
    warped: Tolerance

    def of(self, kind: Kind) -> Tolerance:
        """Return the tolerance for a kind of comparison.

        Args:
            kind: `"output"`, `"theta"` or `"warped"`.
        """
        return {"output": self.outputs, "theta": self.theta, "warped": self.warped}[kind]

    @classmethod
    def from_node(cls, node: JsonNode) -> Tolerances:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("outputs", "theta", "warped")
        return cls(**{key: _tolerance(member) for key, member in fields.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "outputs": self.outputs.to_json(),
            "theta": self.theta.to_json(),
            "warped": self.warped.to_json(),
        }


class ContractLike(Protocol):
    """What an artifact is checked against; a `Manifest` is one, and so is a `Contract`."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""

    @property
    def taps(self) -> tuple[TapSpec, ...]:
        """The tensors inside."""

    @property
    def tolerances(self) -> Tolerances:
        """What they may differ by."""


@dataclass(frozen=True)
class Contract:
    """What an artifact is checked against while there is no manifest yet.

    Attributes:
        signature: inputs and outputs.
        taps: the tensors inside.
        tolerances: what they may differ by.
    """

    signature: Signature
    taps: tuple[TapSpec, ...]
    tolerances: Tolerances


def shape_problem(
    spec_shape: Shape, shape: Sequence[int], sizes: Mapping[str, int] | None = None
) -> str | None:
    """Return what is wrong with a shape, or None.

    Args:
        spec_shape: what was declared.
        shape: the actual sizes.
        sizes: sizes of named dimensions that are known already.

    Returns:
        None when it fits, else the expected shape as text, e.g. `[batch, 28, 28, 1]`.
    """
    known = sizes or {}
    wanted = [known.get(dim, dim) if isinstance(dim, str) else dim for dim in spec_shape]
    fits = len(wanted) == len(shape) and all(
        have == want if isinstance(want, int) else have >= 1
        for want, have in zip(wanted, shape, strict=True)
    )
    return None if fits else f"[{', '.join(str(dim) for dim in wanted)}]"


def _name(node: JsonNode) -> str:
    return node.text(
        NAME_PATTERN, "a name of 1 to 512 characters, none of them a control character"
    )


def _dim(node: JsonNode) -> int | str:
    if isinstance(node.value, str):
        return node.text(DIM_PATTERN, "a size or the name of a dimension")
    return node.integer(least=0, most=_DIM_MAX)


def _shape(node: JsonNode) -> Shape:
    return tuple(_dim(item) for item in node.items(most=_RANK_MAX))


def _range(node: JsonNode) -> tuple[float, float]:
    low, high = (item.number() for item in node.items(least=2, most=2))
    if low > high:
        node.fail("[low, high] with low <= high")
    return low, high


def _tolerance(node: JsonNode) -> Tolerance:
    fields = node.fields("atol", "rtol")
    return Tolerance(fields["atol"].number(least=0), fields["rtol"].number(least=0))
