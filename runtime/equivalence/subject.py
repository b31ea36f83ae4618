"""A model that can be compared with another, whatever it is stored as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.compare import Kind
from stnkit.runtime.file_constants import Constant
from stnkit.runtime.file_precision import Precision
from stnkit.runtime.signature import BATCH, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Node", "Role", "Subject", "Tap"]

Role = Literal["input", "output", "tap"]


@dataclass(frozen=True)
class Tap:
    """A tensor inside a model that belongs to a spatial transformer.

    Attributes:
        name: e.g. `"spatial_transformer/theta"`.
        kind: `"theta"` or `"warped"`.
        transformer: e.g. `"spatial_transformer"`.
    """

    name: str
    kind: Kind
    transformer: str

    @classmethod
    def of_name(cls, name: str) -> Tap:
        """Return the tap that a name stands for; its end says the kind."""
        transformer, _, kind = name.rpartition("/")
        return cls(name, "theta" if kind == "theta" else "warped", transformer)


@dataclass(frozen=True)
class Node:
    """A tensor that a model computes from its inputs.

    Attributes:
        name: the tensor's name, unique in the model.
        op: the operation that computes it, as its format calls it.
        layer: the layer it belongs to; empty where the format does not say.
        inputs: names of the tensors that it is computed from, constants among them.
    """

    name: str
    op: str
    layer: str
    inputs: tuple[str, ...]


class Subject(ABC):
    """A model that can be run on probes.

    Attributes:
        name: the model as the user named it.
        format: `"tflite"`, `"onnx"`, `"keras"`, `"h5"`, `"saved_model"` or `"function"`.
        inputs: the inputs, batch first.
        outputs: the outputs, batch first.
        taps: theta and warped image of every spatial transformer that is found inside.
        backend: what runs it.
        backend_version: its version.
        precision: in which precision it computes.
    """

    name: str
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    taps: tuple[Tap, ...]
    backend: str
    backend_version: str
    precision: Precision = "float32"

    @abstractmethod
    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        taps: bool = False,
        drives: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            inputs: array for every input, by its name in `inputs`.
            taps: whether taps come out instead of outputs; taps that are driven do not.
            drives: theta for taps of that kind, in place of what the model computes.

        Returns:
            Outputs, or taps, by name. With `drives` both.

        Raises:
            InputError: the model cannot run on them.
            BackendError: what runs it failed.
        """

    @abstractmethod
    def rounding_length(self) -> float:
        """Return how many products are added up between input and output, at most.

        Of two computations of one dot product of n terms, the difference grows with sqrt(n).
        """

    def nodes(self) -> tuple[Node, ...]:
        """Return the tensors of the main graph in the order of computation; none if not known."""
        return ()

    def node_of(self, role: Role, name: str) -> str | None:
        """Return what `nodes`, or their inputs, call an input, output or tap; None if not known."""
        return None

    def fetch(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        names: Sequence[str],
        drives: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model and return tensors from inside.

        Args:
            inputs: array for every input.
            names: names of nodes; all of them are held in memory at once.
            drives: theta for taps of that kind, in place of what the model computes.

        Returns:
            Name -> value; what cannot be read is left out.

        Raises:
            InputError: the model cannot run on them.
            BackendError: what runs it failed.
        """
        return {}

    def constants(self) -> Iterable[Constant]:
        """Return the float32 constants that the model holds; none where it does not show them."""
        return ()

    def rest(self) -> None:  # noqa: B027  most hold nothing
        """Give back what can be made again, until the model is run the next time."""

    def close(self) -> None:  # noqa: B027  most hold nothing
        """Give the memory back."""

    @property
    def batch(self) -> int | None:
        """The one batch size that the model takes; None where it takes any."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape}
        fixed = sizes - {BATCH}
        only = next(iter(fixed)) if len(fixed) == 1 else None
        return only if isinstance(only, int) else None

    @property
    def transformers(self) -> tuple[str, ...]:
        """Names of the transformers, in the order of the taps."""
        return tuple(dict.fromkeys(tap.transformer for tap in self.taps))
