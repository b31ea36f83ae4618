"""Choose device, artifact and backend for a bundle, and keep the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stnkit.runtime.autotune_record import Autotune
from stnkit.runtime.backends.registry import BACKENDS, BackendInfo, available, backend_for
from stnkit.runtime.bundle import Bundle
from stnkit.runtime.devices import CPU, Device, cuda_problems, parse_device, require_cuda
from stnkit.runtime.errors import BackendMissingError, InputError, StnkitError, one_line
from stnkit.runtime.explanation import Candidate
from stnkit.runtime.manifest_records import Artifact

__all__ = ["Choice", "choose", "on_cpu", "problem_on"]

_CUDA_BACKEND = "onnxruntime"
_CPU_ALONE = "LiteRT runs on the CPU alone"

Pair = tuple[Artifact, BackendInfo]


@dataclass(frozen=True)
class Choice:
    """What a session is to run.

    Attributes:
        device: where.
        device_reason: why there.
        asked: whether the caller named this device, so that no other will do.
        artifact: the artifact's record.
        artifact_reason: why this one.
        backend: what runs it.
        rejected: the artifacts that were not taken.
    """

    device: Device
    device_reason: str
    asked: bool
    artifact: Artifact
    artifact_reason: str
    backend: BackendInfo
    rejected: tuple[Candidate, ...]


def choose(bundle: Bundle, device: str, backend: str, artifact: str | None) -> Choice:
    """Choose device, artifact and backend.

    Args:
        bundle: the opened bundle.
        device: `"auto"`, `"cpu"` or `"cuda[:N]"`.
        backend: `"auto"`, `"litert"` or `"onnxruntime"`.
        artifact: file name or format of the artifact; None for the best one.

    Raises:
        InputError: no such device, artifact or backend, or none that goes together.
        BackendMissingError: no fitting artifact's backend is installed.
        DeviceError: a GPU that was asked for cannot be used.
    """
    wanted = parse_device(device)
    fitting, rejected = _fitting(bundle, backend, artifact)
    on_cuda = [pair for pair in fitting if pair[1].name == _CUDA_BACKEND]
    if wanted is not None and wanted.kind == "cpu":
        return _on_cpu(fitting, rejected, "asked for", artifact is not None, asked=True)
    if wanted is None:
        reason = _why_not_cuda(on_cuda)
        if reason is not None:
            return _on_cpu(fitting, rejected, reason, artifact is not None, asked=False)
        device_reason, wanted, asked = "a GPU that can be used was found", Device("cuda"), False
    else:
        if backend not in ("auto", _CUDA_BACKEND):
            raise InputError(
                f"device {wanted.name} and backend {backend} do not go together: {_CPU_ALONE}; "
                f"expected the backend {_CUDA_BACKEND}"
            )
        if not on_cuda:
            files = ", ".join(record.file for record, _ in fitting)
            raise InputError(
                f"device {wanted.name} runs ONNX files with ONNX Runtime: expected such a file, "
                f"have {files}; convert the model with --to onnx, or use device cpu"
            )
        require_cuda(wanted)
        device_reason, asked = "asked for", True
    record, info = on_cuda[0]
    for other, other_info in fitting:
        if other is not record:
            why = (
                f"{record.file} stands before it in the manifest"
                if other_info.name == _CUDA_BACKEND
                else _CPU_ALONE
            )
            rejected.append(Candidate(other.file, other_info.name, why))
    reason = "asked for" if artifact else "the first ONNX file, which is what runs on a GPU"
    return Choice(wanted, device_reason, asked, record, reason, info, tuple(rejected))


def on_cpu(bundle: Bundle, backend: str, artifact: str | None, reason: str) -> Choice:
    """Choose again, for the CPU, where a GPU that nobody asked for has failed.

    Args:
        bundle: the opened bundle.
        backend: as for `choose`.
        artifact: as for `choose`.
        reason: why the CPU.

    Raises:
        InputError: as for `choose`.
        BackendMissingError: as for `choose`.
    """
    fitting, rejected = _fitting(bundle, backend, artifact)
    return _on_cpu(fitting, rejected, reason, artifact is not None, asked=False)


def problem_on(device: Device, backend: BackendInfo) -> StnkitError | None:
    """Return why a backend cannot run on a device, or None.

    Args:
        device: where; a GPU has been looked at already.
        backend: what would run there.
    """
    if device.kind == "cuda" and backend.name != _CUDA_BACKEND:
        return InputError(f"{_CPU_ALONE}: a GPU runs ONNX files")
    if not available(backend.name):
        return BackendMissingError(backend.name, backend.package, backend.extra)
    return None


def _fitting(
    bundle: Bundle, backend: str, artifact: str | None
) -> tuple[list[Pair], list[Candidate]]:
    """Return the artifacts that the caller's words allow, and the others with the reason."""
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(["auto", *sorted(BACKENDS)])
        raise InputError(f'there is no backend "{one_line(backend)}": expected one of {known}')
    named = None if artifact is None else bundle.artifact(artifact)
    fitting: list[Pair] = []
    rejected: list[Candidate] = []
    for record in bundle.manifest.artifacts:
        info = backend_for(record.format)
        if named is not None and record is not named:
            rejected.append(Candidate(record.file, info.name, "another artifact was asked for"))
        elif backend not in ("auto", info.name):
            rejected.append(Candidate(record.file, info.name, f"{backend} was asked for"))
        else:
            fitting.append((record, info))
    if not fitting:
        formats = " or ".join(BACKENDS[backend].formats)
        candidates = bundle.manifest.artifacts if named is None else (named,)
        files = ", ".join(record.file for record in candidates)
        raise InputError(
            f"the {backend} backend runs {formats}: expected such a file, have {files}"
        )
    return fitting, rejected


def _why_not_cuda(on_cuda: Sequence[Pair]) -> str | None:
    """Return why a GPU that nobody asked for is not used; None where it can be."""
    if not on_cuda:
        return f"no ONNX file may be taken, and {_CPU_ALONE}"
    # The first problem is enough: looking for all would import packages for nothing.
    first = next(cuda_problems(0), None)
    return None if first is None else f"no GPU can be used: {first[1]}"


def _on_cpu(
    fitting: Sequence[Pair],
    rejected: list[Candidate],
    device_reason: str,
    named: bool,
    *,
    asked: bool,
) -> Choice:
    installed = [pair for pair in fitting if available(pair[1].name)]
    if not installed:
        info = fitting[0][1]
        raise BackendMissingError(info.name, info.package, info.extra)
    (record, info), reason = _quickest(installed)
    for other, other_info in fitting:
        if other is record:
            continue
        missing = (other, other_info) not in installed
        why = f"{other_info.package} is not installed" if missing else f"{record.file} is {reason}"
        rejected.append(Candidate(other.file, other_info.name, why))
    reason = "asked for" if named else reason
    return Choice(CPU, device_reason, asked, record, reason, info, tuple(rejected))


def _quickest(installed: Sequence[Pair]) -> tuple[Pair, str]:
    """Return the artifact to take on the CPU, and why.

    Times count where all have them and they were taken on this machine at the same batch sizes;
    elsewhere they say nothing, and the manifest's order holds.
    """
    times = [_item_ms(record) for record, _ in installed]
    measured = [found for found in times if found is not None]
    if len(installed) > 1 and len(measured) == len(installed):
        if len({batches for batches, _ in measured}) == 1:
            best = min(range(len(installed)), key=lambda at: measured[at][1])
            return installed[best], f"the fastest here, {measured[best][1]:.3g} ms an item"
    if len(installed) == 1:
        return installed[0], "the only one that can run"
    return installed[0], "the first in the manifest that can run"


def _item_ms(record: Artifact) -> tuple[tuple[int, ...], float] | None:
    """Return the batch sizes and the ms an item that were measured on this machine, or None."""
    # Not above: the package of this module imports the sessions, which import this one.
    from stnkit.runtime.timing.machine import this_machine

    tuned: Autotune | None = record.autotune
    if tuned is None:
        return None
    here = this_machine()
    there = (tuned.cpu, tuned.architecture, tuned.cores, tuned.usable_cores)
    if there != (here.cpu, here.architecture, here.cores, here.usable_cores):
        return None
    form = next(form for form in tuned.forms if form.sampler == record.sampler)
    batches = tuple(sorted(time.batch for time in form.times))
    return batches, form.item_ms / len(batches)
