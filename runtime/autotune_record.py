"""Define the manifest's record of how one form of an artifact was chosen among several by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stnkit.runtime.json_reader import JsonNode, join_names
from stnkit.runtime.signature import NAME_PATTERN

__all__ = ["SAMPLER_FORMS", "Autotune", "BatchTime", "SamplerForm", "TriedForm"]

SamplerForm = Literal["gather", "grid-sample", "deform-conv"]
"""How the samplers of an artifact are written: with gathers, or with one ONNX op."""

SAMPLER_FORMS: tuple[SamplerForm, ...] = get_args(SamplerForm)

_NAME = "a name of 1 to 512 characters, none of them a control character"
_CORES_MAX = 1_000_000
_FORMS_MAX = 16


@dataclass(frozen=True)
class BatchTime:
    """Time of one run at one batch size, over the rounds.

    Attributes:
        batch: number of items in a run, >= 1.
        median_ms: half of the rounds took at most this, > 0.
        q1_ms: a quarter of them took at most this.
        q3_ms: three quarters of them took at most this.
    """

    batch: int
    median_ms: float
    q1_ms: float
    q3_ms: float

    @classmethod
    def from_node(cls, node: JsonNode) -> BatchTime:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("batch", "median_ms", "q1_ms", "q3_ms")
        time = cls(
            batch=fields["batch"].integer(least=1, most=1_000_000),
            median_ms=fields["median_ms"].number(above=0),
            q1_ms=fields["q1_ms"].number(above=0),
            q3_ms=fields["q3_ms"].number(above=0),
        )
        if not time.q1_ms <= time.median_ms <= time.q3_ms:
            fields["median_ms"].fail("a median between the quartiles q1_ms and q3_ms")
        return time

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "batch": self.batch,
            "median_ms": self.median_ms,
            "q1_ms": self.q1_ms,
            "q3_ms": self.q3_ms,
        }


@dataclass(frozen=True)
class TriedForm:
    """One form of an artifact: timed, or dropped before that.

    Attributes:
        sampler: how its samplers are written.
        times: one a batch size; empty where it was dropped.
        dropped: why it was not timed, e.g. where it differs most from the source; None where it
            was.
    """

    sampler: SamplerForm
    times: tuple[BatchTime, ...] = ()
    dropped: str | None = None

    @property
    def item_ms(self) -> float:
        """Median ms an item, summed over the batch sizes: what forms are compared by."""
        return sum(time.median_ms / time.batch for time in self.times)

    @classmethod
    def from_node(cls, node: JsonNode) -> TriedForm:
        """Read it from a manifest; raises `BundleError`."""
        fields = node.fields("sampler", "times", "dropped")
        dropped = fields["dropped"].optional(lambda it: it.text(NAME_PATTERN, _NAME))
        least, most = (1, 16) if dropped is None else (0, 0)
        return cls(
            sampler=fields["sampler"].choice(*SAMPLER_FORMS),
            times=tuple(
                BatchTime.from_node(item) for item in fields["times"].items(least=least, most=most)
            ),
            dropped=dropped,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "sampler": self.sampler,
            "times": [time.to_json() for time in self.times],
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class Autotune:
    """What was tried before one form of an artifact was kept, and where.

    Attributes:
        forms: every form, at least two, each once, the one that is the default first; those that
            were timed have the same batch sizes.
        backend: name of the backend that ran them.
        backend_version: its version.
        threads: number of threads that shared one run; None where the backend chose its own.
        cpu: name of the processor.
        architecture: its instruction set, e.g. `"x86_64"`.
        cores: number of logical cores.
        usable_cores: number of those that the process might use.
    """

    forms: tuple[TriedForm, ...]
    backend: str
    backend_version: str
    threads: int | None
    cpu: str
    architecture: str
    cores: int
    usable_cores: int

    @classmethod
    def from_node(cls, node: JsonNode, sampler: str) -> Autotune:
        """Read it from a manifest.

        Args:
            node: the record.
            sampler: that of the artifact, which has to be that of a form that was timed.

        Raises:
            BundleError: anything else than such a record.
        """
        fields = node.fields(
            *("forms", "backend", "backend_version", "threads"),
            *("cpu", "architecture", "cores", "usable_cores"),
        )
        items = fields["forms"].items(least=2, most=_FORMS_MAX)
        forms = tuple(TriedForm.from_node(item) for item in items)
        _check_forms(fields, forms, sampler)
        cores = fields["cores"].integer(least=1, most=_CORES_MAX)
        return cls(
            forms=forms,
            backend=_name(fields, "backend"),
            backend_version=_name(fields, "backend_version"),
            threads=fields["threads"].optional(lambda it: it.integer(least=1, most=_CORES_MAX)),
            cpu=_name(fields, "cpu"),
            architecture=_name(fields, "architecture"),
            cores=cores,
            usable_cores=fields["usable_cores"].integer(least=1, most=_CORES_MAX),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_node` reads."""
        return {
            "forms": [form.to_json() for form in self.forms],
            "backend": self.backend,
            "backend_version": self.backend_version,
            "threads": self.threads,
            "cpu": self.cpu,
            "architecture": self.architecture,
            "cores": self.cores,
            "usable_cores": self.usable_cores,
        }


def _check_forms(
    fields: Mapping[str, JsonNode], forms: tuple[TriedForm, ...], sampler: str
) -> None:
    """Check what no single form shows."""
    if len({form.sampler for form in forms}) != len(forms):
        fields["forms"].fail("no form twice")
    timed = {form.sampler: form for form in forms if form.dropped is None}
    if sampler not in timed:
        fields["forms"].fail(f"times of the artifact's own form, {join_names([sampler])}")
    batches = [time.batch for time in timed[sampler].times]
    if len(set(batches)) != len(batches):
        fields["forms"].fail("no batch size twice")
    if any([time.batch for time in form.times] != batches for form in timed.values()):
        fields["forms"].fail("the same batch sizes for every form that was timed")


def _name(fields: Mapping[str, JsonNode], key: str) -> str:
    return fields[key].text(NAME_PATTERN, _NAME)
