"""Time every artifact of a bundle on the machine at hand, through the sessions that users run."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from stnkit.runtime.backends import BackendInfo, backend_for
from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.choice import problem_on
from stnkit.runtime.devices import Device, named_device
from stnkit.runtime.errors import InputError, StnkitError
from stnkit.runtime.golden import GoldenCase
from stnkit.runtime.manifest_records import Artifact
from stnkit.runtime.session import Session, load
from stnkit.runtime.signature import BATCH, Signature
from stnkit.runtime.timing.inputs import TimingInputs, inputs_for
from stnkit.runtime.timing.machine import this_machine
from stnkit.runtime.timing.results import ArtifactTiming, BatchTiming, Quartiles, TimingReport
from stnkit.runtime.timing.turns import Turns, milliseconds, take_turns

__all__ = ["DEFAULT_BATCHES", "time_bundle", "usual_batches"]

DEFAULT_BATCHES = (1, 8)
"""Batch sizes at which an artifact is timed that takes any."""

_OPENINGS = 5
_OPENINGS_S = 1.0  # no further opening after this long: a large file is opened once or twice


@dataclass
class _Record:
    """What has been measured of one artifact so far."""

    artifact: Artifact
    info: BackendInfo
    batches: tuple[int, ...]
    device: Device
    problem: StnkitError | None
    version: str | None = None
    load_ms: list[float] = field(default_factory=list)
    timings: list[BatchTiming] = field(default_factory=list)


def time_bundle(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    artifact: str | None = None,
    threads: int | None = None,
    batches: Sequence[int] = (),
    device: str = "cpu",
    rounds: int | None = None,
    on_batch: Callable[[int, tuple[str, ...]], None] | None = None,
) -> TimingReport:
    """Time the artifacts of a bundle side by side.

    Those of one batch size have a turn in every round, in an order drawn anew for each. Loading and
    the first run are timed apart: they are paid once.

    Args:
        bundle: the bundle's folder, or a bundle that is open already.
        artifact: file name or format of the only artifact to time; None times all.
        threads: number of threads that share one run, >= 1; None leaves it to each backend.
        batches: batch sizes, >= 1 each; none for 1 and 8, and for an artifact of one batch size
            that one.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`.
        rounds: turns of each artifact and batch size, >= 1; None for 20, and fewer, at least 5,
            where a run takes long.
        on_batch: called with batch size and file names before these are timed, to show progress.

    Returns:
        Times of every artifact; one whose backend is not installed, or does not run on the device,
        is in it as not run.

    Raises:
        InputError: no such bundle, artifact or device, a batch size that an artifact cannot take,
            or threads, rounds or a batch size below 1.
        BundleError: a damaged bundle.
        BackendMissingError: no artifact's backend is installed.
        BackendError: a backend refuses an artifact or fails.
        DeviceError: the GPU cannot be used.
    """
    for name, numbers in (("threads", [threads]), ("rounds", [rounds]), ("batch", batches)):
        for number in numbers:
            if number is not None and number < 1:
                raise InputError(f"{name} is {number}: expected at least 1")
    where = named_device(device)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = opened.manifest.artifacts if artifact is None else (opened.artifact(artifact),)
    records = [_record(opened.manifest.signature, item, batches, where) for item in chosen]
    runnable = [record for record in records if record.problem is None]
    if not runnable:
        assert records[0].problem is not None
        raise records[0].problem
    machine = this_machine()  # before the load is of our making
    cases = opened.golden()
    for batch in sorted({batch for record in runnable for batch in record.batches}):
        group = [record for record in runnable if batch in record.batches]
        if on_batch is not None:
            on_batch(batch, tuple(record.artifact.file for record in group))
        _time_group(opened, group, cases, batch, threads, rounds)
    return TimingReport(
        bundle=opened.manifest.name,
        device=where.name,
        threads=threads,
        machine=machine,
        artifacts=tuple(_result(record) for record in records),
    )


def usual_batches(signature: Signature, artifact: Artifact) -> tuple[int, ...]:
    """Return the batch sizes at which an artifact is timed where nobody names others.

    Args:
        signature: what the model takes.
        artifact: its record.

    Returns:
        `DEFAULT_BATCHES`; a single one is the only one that the artifact takes.
    """
    if artifact.batch != "dynamic":
        return (artifact.batch,)
    if not any(BATCH in spec.shape for spec in signature.inputs):
        return (1,)  # nothing in it counts items: a run is one
    return DEFAULT_BATCHES


def _record(
    signature: Signature, artifact: Artifact, batches: Sequence[int], device: Device
) -> _Record:
    """Return the empty record of an artifact, its batch sizes checked.

    Raises:
        InputError: a batch size that it cannot take.
    """
    info = backend_for(artifact.format)
    usual = usual_batches(signature, artifact)
    wanted = tuple(dict.fromkeys(batches)) or usual
    refused = [batch for batch in wanted if len(usual) == 1 and batch not in usual]
    if refused:
        raise InputError(
            f"{artifact.file} cannot take batches of {refused[0]}: expected "
            f"{usual[0]}, the one it was converted for, or another artifact"
        )
    return _Record(artifact, info, wanted, device, problem_on(device, info))


def _time_group(
    bundle: Bundle,
    group: Sequence[_Record],
    cases: Sequence[GoldenCase],
    batch: int,
    threads: int | None,
    rounds: int | None,
) -> None:
    """Time the artifacts that run at one batch size, and add what is found to their records.

    One batch size at a time: each needs a session of its own, because one that changes between
    sizes allocates anew every time, and the memory of all of them at once would be twice as much.
    """
    inputs = inputs_for(bundle.manifest.signature, cases, batch)
    first_ms: dict[str, list[float]] = {}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for record in group:
            file = record.artifact.file
            session, first_ms[file] = _open(bundle, record, inputs, threads)
            sessions[file] = stack.enter_context(session)
            record.version = session.backend_version
        turns = take_turns(
            {file: _runs(session, inputs) for file, session in sessions.items()}, rounds
        )
    medians = {file: Quartiles.of(found.rounds_ms).median for file, found in turns.items()}
    fastest = turns[min(medians, key=lambda file: medians[file])]
    for record in group:
        file = record.artifact.file
        found = turns[file]
        record.timings.append(
            BatchTiming(
                batch=batch,
                inputs=inputs.name,
                sizes=inputs.sizes,
                first_run_ms=Quartiles.of(first_ms[file]),
                rounds_ms=found.rounds_ms,
                runs_per_round=found.runs_per_round,
                cores_busy=found.cores_busy,
                ratio=_ratio(found, fastest) if len(group) > 1 else None,
            )
        )


def _runs(session: Session, inputs: TimingInputs) -> Callable[[], object]:
    return lambda: session.run(inputs.arrays)


def _ratio(own: Turns, fastest: Turns) -> Quartiles:
    pairs = zip(own.rounds_ms, fastest.rounds_ms, strict=True)
    return Quartiles.of([mine / best for mine, best in pairs])


def _open(
    bundle: Bundle, record: _Record, inputs: TimingInputs, threads: int | None
) -> tuple[Session, list[float]]:
    """Open an artifact a few times and run each once.

    Returns:
        The last session, and the times of the first runs in ms; those of loading go to the record.
    """
    # Importing the backend is not the file's doing; where it fails, opening says so.
    with suppress(ImportError):
        importlib.import_module(record.info.module)
    first_ms: list[float] = []
    started = time.monotonic()
    while True:
        before = time.perf_counter_ns()
        session = load(
            bundle, artifact=record.artifact.file, threads=threads, device=record.device.name
        )
        record.load_ms.append((time.perf_counter_ns() - before) / 1e6)
        try:
            first_ms.append(milliseconds(_runs(session, inputs)))
        except BaseException:
            session.close()
            raise
        if len(first_ms) == _OPENINGS or time.monotonic() - started >= _OPENINGS_S:
            return session, first_ms
        session.close()


def _result(record: _Record) -> ArtifactTiming:
    artifact = record.artifact
    return ArtifactTiming(
        file=artifact.file,
        format=artifact.format,
        precision=artifact.precision,
        sampler=artifact.sampler,
        bytes=artifact.bytes,
        backend=record.info.name,
        backend_version=record.version,
        load_ms=Quartiles.of(record.load_ms) if record.load_ms else None,
        batches=tuple(record.timings),
        not_run=None if record.problem is None else str(record.problem),
    )
