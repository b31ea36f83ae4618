"""Open a bundle's sessions for serving, and find out what each batch size costs.

All that a first request would pay for, memory plans, kernels, pages, is paid here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.backends import available
from stnkit.runtime.bundle import Bundle
from stnkit.runtime.purposes import usable_cores
from stnkit.runtime.serving.buckets import BatchPlan, usual_buckets
from stnkit.runtime.serving.options import ModelOptions
from stnkit.runtime.session import Session, load
from stnkit.runtime.signature import BATCH, Signature

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MAX_BATCH_CPU", "WarmModel", "open_warm"]

MAX_BATCH_CPU = 8
"""Most items of a run on a CPU where nobody asks for another number."""
_MAX_BATCH_GPU = 32
_QUICK_NS = 1_000_000
# A bucket is timed by the fastest of a few runs: what another process adds is not its cost.
_RUNS = 5
_RUNS_S = 0.15


@dataclass(frozen=True)
class WarmModel:
    """Sessions that have run every batch size that they will be asked for.

    Attributes:
        sessions: one an instance; the same one several times where it serves several threads.
        plan: what the batch sizes cost.
        threads: threads that share one run; None where that is not the CPU's affair.
        batchable: whether items of several requests can run together.
    """

    sessions: tuple[Session, ...]
    plan: BatchPlan
    threads: int | None
    batchable: bool


def is_batchable(signature: Signature) -> bool:
    """Return whether the first dimension of all inputs and outputs counts items.

    Args:
        signature: what the model takes and gives.
    """
    return all(
        spec.shape[:1] == (BATCH,) and BATCH not in spec.shape[1:]
        for spec in (*signature.inputs, *signature.outputs)
    )


def open_warm(bundle: Bundle, options: ModelOptions) -> WarmModel:
    """Open the sessions of a model and run every bucket.

    Args:
        bundle: the opened bundle.
        options: how it is to be served.

    Returns:
        The sessions, ready.

    Raises:
        InputError: no such artifact, or options that do not fit it.
        BackendMissingError: nothing that runs it is installed.
        BackendError: the backend refuses it, or a run fails.
    """
    artifact = _artifact(bundle, options)
    cases = bundle.golden()

    def opened(threads: int | None, sizes: Sequence[int] | None = None) -> Session:
        return load(
            bundle,
            device=options.device,
            backend=options.backend,
            artifact=artifact,
            threads=threads,
            batch_buckets=sizes,
        )

    def inputs(batch: int) -> dict[str, npt.NDArray[Any]]:
        from stnkit.runtime.timing.inputs import inputs_for

        return dict(inputs_for(bundle.manifest.signature, cases, batch).arrays)

    first = opened(options.threads or 1)
    on_gpu = first.device.startswith("cuda")
    batchable = is_batchable(bundle.manifest.signature)
    buckets = _buckets(first, options, batchable, on_gpu)
    if on_gpu and first.batch_buckets not in ((), buckets):
        # Buffers and CUDA graphs are made for a session's own buckets: they have to be these.
        first.close()
        first = opened(options.threads, buckets)
    # Under load runs side by side on a thread each serve more than runs that share threads: 190
    # against 118 a second for MobileNetV2 at 224 px on two cores, where alone a run takes 11 and 8
    # ms. `threads` is there for those who have one request at a time.
    threads = None if on_gpu else options.threads or 1
    instances = options.instances or (
        1 if on_gpu else _room(threads or 1, _run_ns(first, inputs(buckets[0])))
    )
    sessions = [first]
    while len(sessions) < instances:
        # LiteRT's interpreter serves one thread at a time, ONNX Runtime's session any number.
        sessions.append(first if first.backend == "onnxruntime" else opened(threads))
    costs: dict[int, int] = {}
    for bucket in buckets:
        arrays = inputs(bucket)
        for session in dict.fromkeys(sessions):
            cost = _run_ns(session, arrays)
            costs[bucket] = min(cost, costs.get(bucket, cost))
    return WarmModel(tuple(sessions), BatchPlan.of(costs), threads, batchable)


def _room(threads: int, run_ns: int) -> int:
    """Return how many runs there are cores for."""
    # Of a quick model there are so many requests that the event loops need a core of their own.
    free = usable_cores() - 1 if run_ns < _QUICK_NS else usable_cores()
    return max(1, free // threads)


def _artifact(bundle: Bundle, options: ModelOptions) -> str | None:
    """Return the artifact to serve; None leaves it to `load`.

    ONNX before TFLite where both can run: one session serves every thread and batch size, where
    each of LiteRT's interpreters holds its own weights and plans its memory anew for another size.
    """
    if options.artifact is not None or options.backend != "auto":
        return options.artifact
    onnx = [it for it in bundle.manifest.artifacts if it.format == "onnx"]
    return onnx[0].file if onnx and available("onnxruntime") else None


def _buckets(
    session: Session, options: ModelOptions, batchable: bool, on_gpu: bool
) -> tuple[int, ...]:
    from stnkit.runtime.errors import InputError

    fixed = session.artifact.batch
    if fixed != "dynamic":
        if options.max_batch not in (None, fixed):
            raise InputError(
                f"{session.artifact.file} runs batches of exactly {fixed}: expected no other "
                f"max_batch, got {options.max_batch}"
            )
        return (fixed,)
    if not batchable:
        return (1,)
    return usual_buckets(options.max_batch or (_MAX_BATCH_GPU if on_gpu else MAX_BATCH_CPU))


def _run_ns(session: Session, inputs: dict[str, Any]) -> int:
    session.run(inputs)  # the first one plans and allocates
    fastest: int | None = None
    started = time.monotonic()
    for _ in range(_RUNS):
        before = time.perf_counter_ns()
        session.run(inputs)
        took = time.perf_counter_ns() - before
        fastest = took if fastest is None else min(fastest, took)
        if time.monotonic() - started > _RUNS_S:
            break
    assert fastest is not None
    return fastest
