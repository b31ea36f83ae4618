"""What a comparison of models found: the records that every report is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stnkit.runtime.compare import Comparison
from stnkit.runtime.file_precision import Precision
from stnkit.runtime.signature import Tolerances
from stnkit.runtime.statistics import Ranking
from stnkit.runtime.verification import ArtifactReport

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Bisection",
    "CandidateReport",
    "EquivalenceReport",
    "Finding",
    "NodeError",
    "ProbeRecord",
    "TransformerView",
]


@dataclass(frozen=True)
class ProbeRecord:
    """A probe that was run.

    Attributes:
        name: its name, with the batch size at its end.
        batch: number of items.
        seed: seed of what is random in it; None for real data.
        driven: transformers whose theta was given and not computed.
    """

    name: str
    batch: int
    seed: int | None
    driven: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "name": self.name,
            "batch": self.batch,
            "seed": self.seed,
            "driven": list(self.driven),
        }


@dataclass(frozen=True)
class TransformerView:
    """One item at one transformer, for people to look at.

    Attributes:
        transformer: its name.
        case: name of the probe.
        item: number of the item in the batch.
        image: what was warped, `[height, width, channels]` float32; None where it is not known.
        theta_reference: the source's parameters, flat.
        theta_candidate: the candidate's, flat.
        warped_reference: the source's warped image, `[height, width, channels]` float32.
        warped_candidate: the candidate's.
        outline_reference: where the border of the output is read in the input, `[points, 2]`
            (x, y) normalised to [-1, 1]; None where the family of theta is not known.
        outline_candidate: the candidate's.
        theta_error_px: largest distance between the places that the two thetas read, px; None
            where the family is not known.
    """

    transformer: str
    case: str
    item: int
    image: npt.NDArray[np.float32] | None = field(repr=False)
    theta_reference: npt.NDArray[np.float32] = field(repr=False)
    theta_candidate: npt.NDArray[np.float32] = field(repr=False)
    warped_reference: npt.NDArray[np.float32] = field(repr=False)
    warped_candidate: npt.NDArray[np.float32] = field(repr=False)
    outline_reference: npt.NDArray[np.float32] | None = field(repr=False, default=None)
    outline_candidate: npt.NDArray[np.float32] | None = field(repr=False, default=None)
    theta_error_px: float | None = None


@dataclass(frozen=True)
class NodeError:
    """The error of one tensor inside, on the way from input to output.

    Attributes:
        name: the tensor's name in the candidate.
        op: the operation that computes it there.
        layer: the layer of the source it belongs to; empty where not known.
        inputs: names of the tensors that it is computed from.
        max_abs: largest absolute difference from the source; None where it cannot be compared.
        scale: largest absolute value of the source's tensor; None as above.
    """

    name: str
    op: str
    layer: str
    inputs: tuple[str, ...]
    max_abs: float | None
    scale: float | None

    @property
    def relative(self) -> float | None:
        """`max_abs / scale`; None where one is not known or the scale is 0."""
        if self.max_abs is None or not self.scale:
            return None
        return self.max_abs / self.scale

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "name": self.name,
            "op": self.op,
            "layer": self.layer,
            "inputs": list(self.inputs),
            "max_abs": self.max_abs,
            "scale": self.scale,
            "relative": self.relative,
        }


@dataclass(frozen=True)
class Bisection:
    """Where a candidate leaves its source.

    Attributes:
        first: the first tensor that is wrong while everything it is computed from is right; None
            where no output or tap is wrong, or nothing is known of the inside.
        neighbours: compared tensors just before and after it, on the ways that lead through it.
        curve: every tensor that could be compared, in the order of computation.
        runs: how often the candidate was run.
    """

    first: NodeError | None
    neighbours: tuple[NodeError, ...]
    curve: tuple[NodeError, ...]
    runs: int

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "first": None if self.first is None else self.first.to_json(),
            "neighbours": [node.to_json() for node in self.neighbours],
            "curve": [node.to_json() for node in self.curve],
            "runs": self.runs,
        }


@dataclass(frozen=True)
class Finding:
    """A likely cause of a difference.

    Attributes:
        cause: short name, e.g. `"align_corners"`.
        sentence: what is likely wrong, and what to do, for people.
        evidence: the measurement that says so.
    """

    cause: str
    sentence: str
    evidence: str

    def to_json(self) -> dict[str, str]:
        """Return a dict of JSON values."""
        return {"cause": self.cause, "sentence": self.sentence, "evidence": self.evidence}


@dataclass(frozen=True)
class CandidateReport:
    """What the comparison of one candidate with the source found.

    Attributes:
        proof: every comparison; `proof.file` is the candidate as the user named it.
        format: `"tflite"`, `"onnx"`, `"keras"`, `"h5"` or `"saved_model"`.
        rankings: output -> how often the same class came first; outputs of scores only.
        views: pictures, the worst item of each transformer and probe.
        findings: likely causes, the likeliest first; empty where all is equal.
        bisection: where the two part; None where it was not asked for.
        notes: how inputs were bound, layouts reconciled, and other things to know.
        precision: as what it was judged: by the error budget for `"float32"`, else by what is
            stated for the precision.
    """

    proof: ArtifactReport
    format: str
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
    views: tuple[TransformerView, ...] = ()
    findings: tuple[Finding, ...] = ()
    bisection: Bisection | None = None
    notes: tuple[str, ...] = ()
    precision: Precision = "float32"

    @property
    def passed(self) -> bool:
        """Whether it ran and every comparison passed."""
        return self.proof.passed

    @property
    def required(self) -> Mapping[str, float | None]:
        """Kind -> the smallest tolerance with which it would pass; None where not measured."""
        found: dict[str, float | None] = {}
        for item in self.proof.comparisons:
            known = found.setdefault(item.kind, item.required)
            if known is not None:
                found[item.kind] = None if item.required is None else max(known, item.required)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values, without the pictures."""
        return {
            **self.proof.to_json(),
            "format": self.format,
            "precision": self.precision,
            "required_tolerance": dict(self.required),
            "rankings": {name: item.to_json() for name, item in self.rankings.items()},
            "findings": [item.to_json() for item in self.findings],
            "bisection": None if self.bisection is None else self.bisection.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class EquivalenceReport:
    """What the comparison of one or more candidates with a reference found.

    Attributes:
        reference: the reference as the user named it.
        reference_format: as `CandidateReport.format`, or `"bundle"` for stored answers.
        candidates: one report each, at least one.
        tolerances: what was allowed where no override was given.
        reasons: output, `"theta"`, `"warped"` -> why it is that much, for people.
        probes: what was run.
        versions: package -> version of everything that took part.
        seconds: how long it took.
    """

    reference: str
    reference_format: str
    candidates: tuple[CandidateReport, ...]
    tolerances: Tolerances
    reasons: Mapping[str, str]
    probes: tuple[ProbeRecord, ...]
    versions: Mapping[str, str]
    seconds: float

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError(f"{self.reference}: nothing to compare it with: expected a candidate")

    @property
    def passed(self) -> bool:
        """Whether every candidate is equal to the reference."""
        return all(candidate.passed for candidate in self.candidates)

    @property
    def failures(self) -> tuple[Comparison, ...]:
        """All failed comparisons, those of the first candidate first, each's worst in front."""
        return tuple(item for candidate in self.candidates for item in candidate.proof.failures)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values, without the pictures."""
        return {
            "reference": self.reference,
            "reference_format": self.reference_format,
            "passed": self.passed,
            "tolerances": self.tolerances.to_json(),
            "reasons": dict(self.reasons),
            "probes": [probe.to_json() for probe in self.probes],
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 3),
        }
