"""Which tensor of one model is which of another, and in which layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stnkit.runtime.equivalence.subject import Subject
from stnkit.runtime.errors import InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.signature import TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Binding", "Layout", "bind", "same_names", "to_nchw", "to_nhwc"]

Layout = Literal["nhwc", "nchw"]


@dataclass(frozen=True)
class Binding:
    """How a candidate's tensors correspond to the reference's.

    Attributes:
        inputs: reference's name -> candidate's.
        outputs: reference's name -> candidate's.
        taps: reference's name -> candidate's; only those that both have.
        layout: the candidate's; "nchw" swaps axes of every tensor of rank 4 on the way.
        notes: what was decided that the user should know.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    taps: Mapping[str, str]
    layout: Layout
    notes: tuple[str, ...]

    def feed(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return inputs under the candidate's names and in its layout."""
        return {self.inputs[name]: self._there(value) for name, value in values.items()}

    def drive(self, thetas: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return thetas under the candidate's names."""
        return {self.taps[name]: value for name, value in thetas.items()}

    def read(
        self, values: Mapping[str, npt.NDArray[Any]], names: Iterable[str]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the candidate's values under the reference's names and in its layout."""
        there = {**self.outputs, **self.taps}
        # A candidate may show some of the taps and not the others.
        found = {name: there[name] for name in names if name in there}
        return {name: self._here(values[key]) for name, key in found.items() if key in values}

    def _there(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return to_nchw(value) if self.layout == "nchw" else value

    def _here(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return to_nhwc(value) if self.layout == "nchw" else value


def same_names(subject: Subject) -> Binding:
    """Return the binding of a candidate that calls everything as its reference does."""
    return Binding(
        {spec.name: spec.name for spec in subject.inputs},
        {spec.name: spec.name for spec in subject.outputs},
        {tap.name: tap.name for tap in subject.taps},
        "nhwc",
        (),
    )


def to_nchw(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a tensor of rank 4 with its last axis second; others as they are."""
    return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value


def to_nhwc(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a tensor of rank 4 with its second axis last; others as they are."""
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def bind(
    reference: Subject,
    candidate: Subject,
    maps: Mapping[str, str] | None = None,
    layout: Layout = "nhwc",
) -> Binding:
    """Return which tensor of the candidate is which of the reference.

    1. What `maps` says.
    2. Equal names; then names that are equal without what exporters add ("serving_default_", ":0").
    3. One tensor that is left on both sides, or the only ones of a shape and dtype.

    Args:
        reference: what the candidate is compared with.
        candidate: the other model.
        maps: reference's name of an input or output -> candidate's.
        layout: the candidate's layout of images.

    Raises:
        InputError: a tensor of the reference has no partner, a name in `maps` is unknown, or shapes
            do not fit; says when another layout would help.
    """
    pairs = dict(maps or {})
    _check_maps(pairs, reference, candidate)
    notes: list[str] = []
    inputs = _match(reference.inputs, candidate.inputs, pairs, layout, "input", candidate, notes)
    outputs = _match(
        reference.outputs, candidate.outputs, pairs, layout, "output", candidate, notes
    )
    known = {tap.name for tap in candidate.taps}
    taps = {tap.name: tap.name for tap in reference.taps if tap.name in known}
    lost = [tap.name for tap in reference.taps if tap.name not in known]
    if lost:
        notes.append(
            f"{candidate.name} has no tensor {join_names(lost)}: there it was compared at its "
            "outputs alone"
        )
    return Binding(inputs, outputs, taps, layout, tuple(notes))


def _check_maps(pairs: Mapping[str, str], reference: Subject, candidate: Subject) -> None:
    for subject, names in ((reference, list(pairs)), (candidate, list(pairs.values()))):
        there = [spec.name for spec in (*subject.inputs, *subject.outputs)]
        for name in names:
            if name not in there:
                raise InputError(
                    f"--map: {subject.name} has no input or output {name!r}: it has "
                    f"{join_names(there)}"
                )


def _match(
    wanted: Sequence[TensorSpec],
    there: Sequence[TensorSpec],
    pairs: Mapping[str, str],
    layout: Layout,
    what: str,
    candidate: Subject,
    notes: list[str],
) -> dict[str, str]:
    left = {spec.name: spec for spec in there}
    found: dict[str, str] = {}

    def take(spec: TensorSpec, name: str) -> None:
        found[spec.name] = name
        _check_shape(spec, left.pop(name), layout, what, candidate.name)

    for spec in wanted:
        if pairs.get(spec.name) in left:
            take(spec, pairs[spec.name])
    for same in (lambda name: name, _bare):
        for spec in wanted:
            if spec.name not in found:
                equal = [name for name in left if same(name) == same(spec.name)]
                if len(equal) == 1:
                    take(spec, equal[0])
    for spec in wanted:
        if spec.name in found:
            continue
        fitting = [name for name, other in left.items() if _fits(spec, other, layout)]
        rivals = [other.name for other in wanted if other.name not in found and _alike(other, spec)]
        only = len(left) == 1 and len([s for s in wanted if s.name not in found]) == 1
        if only or (len(fitting) == 1 and len(rivals) == 1):
            name = next(iter(left)) if only else fitting[0]
            notes.append(f"{what} {spec.name!r} was taken to be {name!r} of {candidate.name}")
            take(spec, name)
    missing = [spec.name for spec in wanted if spec.name not in found]
    if missing or (what == "input" and left):
        raise InputError(
            f"the {what}s {join_names([spec.name for spec in wanted])} do not match those of "
            f"{candidate.name}, {join_names([spec.name for spec in there])}: say which is which "
            f"with --map {(missing or list(found))[0]}=NAME"
        )
    if left:
        notes.append(f"{candidate.name} has further outputs that were not compared: {[*left]}")
    return found


def _bare(name: str) -> str:
    """Return a name without what exporters put around it."""
    name = re.sub(r":\d+$", "", name)
    return re.sub(r"^(serving_default_|StatefulPartitionedCall[:/]?)", "", name).lower()


def _alike(a: TensorSpec, b: TensorSpec) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape


def _swapped(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _sizes_fit(here: tuple[int | str, ...], there: tuple[int | str, ...]) -> bool:
    return len(here) == len(there) and all(
        isinstance(a, str) or isinstance(b, str) or a == b for a, b in zip(here, there, strict=True)
    )


def _fits(spec: TensorSpec, other: TensorSpec, layout: Layout) -> bool:
    shape = _swapped(spec.shape) if layout == "nchw" else spec.shape
    return spec.dtype == other.dtype and _sizes_fit(shape, other.shape)


def _check_shape(
    spec: TensorSpec, other: TensorSpec, layout: Layout, what: str, candidate: str
) -> None:
    if spec.dtype != other.dtype:
        raise InputError(
            f"{what} {spec.name!r} is {spec.dtype}, {other.name!r} of {candidate} is "
            f"{other.dtype}: expected the same"
        )
    # Many writers leave the shape of an output out.
    if (what == "output" and not other.shape) or _fits(spec, other, layout):
        return
    another: Layout = "nhwc" if layout == "nchw" else "nchw"
    hint = ""
    if _fits(spec, other, another):
        hint = f"; the layout {another.upper()} would fit: --layout B={another}"
    raise InputError(
        f"{what} {spec.name!r} has shape {_show(spec.shape)}, {other.name!r} of {candidate} "
        f"{_show(other.shape)}{' in NCHW' if layout == 'nchw' else ''}: expected the same{hint}"
    )


def _show(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
