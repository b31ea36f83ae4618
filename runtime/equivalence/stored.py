"""The proof of a bundle from its stored answers, as a report like any other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.compare import Kind, Tolerance
from stnkit.runtime.equivalence.answers import Answer
from stnkit.runtime.equivalence.binding import same_names
from stnkit.runtime.equivalence.engine import check_candidate, tool_versions
from stnkit.runtime.equivalence.file_subject import FileSubject, Names
from stnkit.runtime.equivalence.options import CompareOptions
from stnkit.runtime.equivalence.probes import Probe
from stnkit.runtime.equivalence.results import CandidateReport, EquivalenceReport, ProbeRecord
from stnkit.runtime.errors import InputError
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.manifest import Manifest
from stnkit.runtime.signature import Tolerances

__all__ = ["compare_bundle"]


class _StoredAllowance:
    """The tolerances of a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self._tolerances = manifest.tolerances
        self._kinds: dict[str, Kind] = {spec.name: "output" for spec in manifest.signature.outputs}
        self._kinds |= {tap.name: tap.kind for tap in manifest.taps}

    def of(self, name: str, probe: Probe) -> Tolerance:
        """Return what a tensor may differ by."""
        return self._tolerances.of(self._kinds[name])

    def is_given(self, name: str) -> bool:
        """Return True: the manifest's tolerances stand."""
        return True

    def tolerances(self) -> Tolerances:
        """Return the manifest's."""
        return self._tolerances

    def reasons(self) -> Mapping[str, str]:
        """Return that they were stored."""
        return {
            name: f"{self._tolerances.of(kind)}, computed when the bundle was made"
            for name, kind in self._kinds.items()
        }


def compare_bundle(
    bundle: str | os.PathLike[str], options: CompareOptions, artifact: str | None = None
) -> EquivalenceReport:
    """Compare the artifacts of a bundle with the source's answers that are stored in it.

    Args:
        bundle: the bundle's folder.
        options: threads, and whether views are kept; the rest has no effect here.
        artifact: file name or format of the only artifact to compare.

    Raises:
        InputError: there is no such bundle or artifact, or an artifact can take no stored probe.
        BundleError: the bundle is damaged.
        BackendMissingError: a backend is not installed.
        BackendError: a backend refuses an artifact or fails.
    """
    started = time.perf_counter()
    opened = open_bundle(bundle)
    manifest = opened.manifest
    chosen = manifest.artifacts if artifact is None else (opened.artifact(artifact),)
    cases = opened.golden()
    allowance = _StoredAllowance(manifest)
    reports: list[CandidateReport] = []
    for record in chosen:
        names = Names(record.inputs, record.outputs, record.taps)
        subject = FileSubject(
            str(Path(bundle) / record.file), opened.read(record.file), names, options.threads
        )
        try:
            answers = [_answer(case) for case in cases if _takes(record.batch, case)]
            if not answers:
                raise InputError(
                    f"{record.file} cannot run any of the {len(cases)} stored probes: expected at "
                    f"least one with batch {record.batch}"
                )
            same = same_names(subject)
            # Its manifest says what may differ, whatever the precision of the artifact.
            stored = replace(options, precision="float32")
            reports.append(check_candidate(subject, subject, same, answers, allowance, stored))
        finally:
            subject.close()
    return EquivalenceReport(
        reference=f"{manifest.source.file} (answers stored in {bundle})",
        reference_format="bundle",
        candidates=tuple(reports),
        tolerances=allowance.tolerances(),
        reasons=allowance.reasons(),
        probes=tuple(ProbeRecord(case.name, _size(case), None) for case in cases),
        versions=tool_versions(),
        seconds=time.perf_counter() - started,
    )


def _size(case: GoldenCase) -> int:
    return int(next(iter(case.inputs.values())).shape[0])


def _takes(batch: int | str, case: GoldenCase) -> bool:
    return batch == "dynamic" or batch == _size(case)


def _answer(case: GoldenCase) -> Answer:
    return Answer(Probe(case.name, dict(case.inputs)), case.outputs, case.taps)
