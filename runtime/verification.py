"""Prove that an artifact computes what its source computes, on the device at hand.

The outputs are measured on the very artifact; theta and the warped image on a copy of which the
taps are outputs too, because agreement of the outputs alone hides a broken warp.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.array_check import case_fits, check_inputs
from stnkit.runtime.backends import CudaSettings, backend_for, open_runner
from stnkit.runtime.backends.cuda_options import cuda_options
from stnkit.runtime.buckets import DEFAULT_BUCKETS, Buckets, bucket_problem
from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.choice import problem_on
from stnkit.runtime.compare import Comparison, Kind, all_passed, compare, worst_of
from stnkit.runtime.devices import named_device
from stnkit.runtime.errors import InputError, MismatchError
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.manifest_records import Artifact, MeasuredErrors
from stnkit.runtime.signature import ContractLike

__all__ = [
    "ArtifactReport",
    "VerificationReport",
    "check_artifact",
    "raise_on_mismatch",
    "verify",
]


@dataclass(frozen=True)
class ArtifactReport:
    """What the proof of one artifact found.

    Attributes:
        file: the artifact's file name.
        backend: the backend that ran it, or would have.
        backend_version: its version; None when it did not run.
        comparisons: one a tensor and case; empty only when it did not run.
        seconds: how long it took.
        skipped_cases: probes that an artifact for one batch size cannot take.
        not_run: why it did not run; None when it did.
        device: where it ran, or would have: `"cpu"` or `"cuda:N"`.

    Raises:
        ValueError: it ran and compared nothing, or did not run and compared something.
    """

    file: str
    backend: str
    backend_version: str | None
    comparisons: tuple[Comparison, ...]
    seconds: float
    skipped_cases: tuple[str, ...] = ()
    not_run: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.not_run is None) != bool(self.comparisons):
            raise ValueError(
                f"{self.file}: {len(self.comparisons)} comparisons and not_run={self.not_run!r}: "
                "expected comparisons, or a reason for having none"
            )

    @property
    def passed(self) -> bool:
        """Whether it ran and every comparison passed."""
        return self.not_run is None and all_passed(self.comparisons)

    @property
    def failures(self) -> tuple[Comparison, ...]:
        """The comparisons that failed, the worst one first."""
        failed = [item for item in self.comparisons if not item.passed]
        worst = worst_of(self.comparisons)
        return tuple(sorted(failed, key=lambda item: item is not worst))

    def worst(self, kind: Kind | None = None) -> Comparison | None:
        """Return the worst comparison of a kind: failures first, unmeasured ones before all.

        Args:
            kind: `"output"`, `"theta"`, `"warped"`, or None for all.

        Returns:
            The comparison, or None where there is none of that kind.
        """
        return worst_of(self.comparisons, kind)

    def largest_error(self, kind: Kind) -> float | None:
        """Return the largest absolute difference of a kind.

        Args:
            kind: `"output"`, `"theta"` or `"warped"`.

        Returns:
            The difference, or None where nothing of that kind was measured.
        """
        errors = [
            it.max_abs for it in self.comparisons if it.kind == kind and it.max_abs is not None
        ]
        return max(errors, default=None)

    def measured_errors(self) -> MeasuredErrors:
        """Return the largest errors for the manifest.

        Raises:
            ValueError: the outputs were not measured.
        """
        outputs = self.largest_error("output")
        if outputs is None:
            raise ValueError(f"{self.file}: its outputs were not measured: expected a passed check")
        return MeasuredErrors(outputs, self.largest_error("theta"), self.largest_error("warped"))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "file": self.file,
            "backend": self.backend,
            "backend_version": self.backend_version,
            "device": self.device,
            "passed": self.passed,
            "not_run": self.not_run,
            "seconds": round(self.seconds, 6),
            "skipped_cases": list(self.skipped_cases),
            "largest_errors": {
                "output": self.largest_error("output"),
                "theta": self.largest_error("theta"),
                "warped": self.largest_error("warped"),
            },
            "comparisons": [item.to_json() for item in self.comparisons],
        }


@dataclass(frozen=True)
class VerificationReport:
    """What the proof of a bundle found.

    Attributes:
        bundle: name of the bundle.
        artifacts: one report an artifact; at least one ran.

    Raises:
        ValueError: no artifact ran.
    """

    bundle: str
    artifacts: tuple[ArtifactReport, ...]

    def __post_init__(self) -> None:
        if all(report.not_run is not None for report in self.artifacts):
            raise ValueError(f"{self.bundle}: no artifact ran: expected at least one")

    @property
    def passed(self) -> bool:
        """Whether every artifact that ran passed; those that did not run prove nothing."""
        return all(report.passed for report in self.artifacts if report.not_run is None)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values."""
        return {
            "bundle": self.bundle,
            "passed": self.passed,
            "artifacts": [report.to_json() for report in self.artifacts],
        }


def check_artifact(
    model: bytes,
    artifact: Artifact,
    manifest_like: ContractLike,
    cases: Sequence[GoldenCase],
    threads: int | None = None,
    cuda: int | None = None,
) -> ArtifactReport:
    """Run an artifact on every probe and compare it with the source's answers.

    Args:
        model: the artifact's content.
        artifact: its record; its hash, size and errors are not looked at.
        manifest_like: signature, taps and tolerances: a `Manifest` or a `Contract`.
        cases: probes with the source's answers; an artifact for one batch size skips the others.
        threads: number of threads that share one run; None leaves it to the backend.
        cuda: number of the GPU that it runs on, as a `Session` runs it; None for the CPU.

    Returns:
        The report; a mismatch is in it, not raised (see `raise_on_mismatch`).

    Raises:
        InputError: no probe that the artifact can take, or a probe that does not fit the signature.
        BackendMissingError: the backend is not installed.
        BackendError: the backend refuses the artifact or fails.
        DeviceError: the GPU cannot be used.
    """
    start = time.perf_counter()
    backend = backend_for(artifact.format).name
    signature, batch = manifest_like.signature, artifact.batch
    # A dynamic artifact takes every case: one that does not fit is an error, never a skip.
    runnable: list[GoldenCase] = []
    skipped: list[str] = []
    for case in cases:
        if batch == "dynamic" or case_fits(signature, batch, case.inputs):
            runnable.append(case)
        else:
            skipped.append(case.name)
    if not runnable:
        raise InputError(
            f"{artifact.file} cannot run any of the {len(cases)} golden cases: expected at least "
            f"one with batch {batch}"
        )
    comparisons: list[Comparison] = []
    version = ""
    buckets, settings = None, None
    if cuda is not None:
        # What is proven is what runs: batches are filled up, and graphs replayed.
        if bucket_problem(signature, manifest_like.taps, batch) is None:
            buckets = Buckets(signature, DEFAULT_BUCKETS)
        where = (cuda, cuda_options(None))
        settings = buckets.cuda_settings(*where) if buckets else CudaSettings(*where)
    for want_taps in (False, True) if manifest_like.taps else (False,):
        runner = open_runner(
            *(backend, model, artifact),
            want_taps=want_taps,
            threads=threads,
            pool=False,
            cuda=settings,
        )
        try:
            version = runner.version
            for case in runnable:
                inputs = check_inputs(signature, batch, case.inputs)
                result = buckets.run(runner, inputs) if buckets else runner.run(inputs)
                wanted: list[tuple[str, Kind]]
                if want_taps:
                    wanted = [(tap.name, tap.kind) for tap in manifest_like.taps]
                    references = case.taps
                else:
                    wanted = [(spec.name, "output") for spec in signature.outputs]
                    references = case.outputs
                for name, kind in wanted:
                    if name not in references:
                        raise InputError(
                            f'case "{case.name}" has no reference for {kind} "{name}": expected one'
                        )
                    comparisons.append(
                        compare(
                            name,
                            kind,
                            case.name,
                            references[name],
                            result[name],
                            manifest_like.tolerances.of(kind),
                        )
                    )
        finally:
            runner.close()
    return ArtifactReport(
        file=artifact.file,
        backend=backend,
        backend_version=version,
        comparisons=tuple(comparisons),
        seconds=time.perf_counter() - start,
        skipped_cases=tuple(skipped),
        device="cpu" if cuda is None else f"cuda:{cuda}",
    )


def verify(
    bundle: str | os.PathLike[str] | Bundle,
    artifact: str | None = None,
    threads: int | None = None,
    on_artifact: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> VerificationReport:
    """Repeat a bundle's proof from its golden file.

    Args:
        bundle: the bundle's folder, or a bundle that is open already.
        artifact: file name or format of the only artifact to check; None checks all.
        threads: number of threads that share one run; None leaves it to the backend.
        on_artifact: called with the file name before each artifact, to show progress.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`.

    Returns:
        One report an artifact. One whose backend is not installed, or does not run on the device,
        is reported as not run.

    Raises:
        InputError: no such bundle, artifact or device, or no artifact that runs on it.
        BundleError: a damaged bundle.
        BackendMissingError: no artifact's backend is installed.
        BackendError: a backend refuses an artifact or fails.
        DeviceError: the GPU cannot be used.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = opened.manifest.artifacts if artifact is None else (opened.artifact(artifact),)
    where = named_device(device)
    infos = [backend_for(record.format) for record in chosen]
    missing = [problem_on(where, info) for info in infos]
    if missing[0] is not None and all(missing):
        raise missing[0]
    cases = opened.golden()
    reports = []
    for record, info, problem in zip(chosen, infos, missing, strict=True):
        if on_artifact is not None:
            on_artifact(record.file)
        if problem is not None:
            reports.append(
                ArtifactReport(
                    *(record.file, info.name, None, (), 0.0),
                    not_run=str(problem),
                    device=where.name,
                )
            )
            continue
        model = opened.read(record.file)
        cuda = where.index if where.kind == "cuda" else None
        reports.append(check_artifact(model, record, opened.manifest, cases, threads, cuda))
    return VerificationReport(opened.manifest.name, tuple(reports))


def raise_on_mismatch(report: ArtifactReport | VerificationReport) -> None:
    """Raise if an artifact that ran differs from its source.

    Args:
        report: what `check_artifact` or `verify` returned.

    Raises:
        MismatchError: for the first artifact that failed, with all its failing comparisons.
    """
    reports = report.artifacts if isinstance(report, VerificationReport) else (report,)
    for item in reports:
        if item.not_run is None and not item.passed:
            raise MismatchError(item.file, item.failures)
