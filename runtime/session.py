"""Load a bundle's artifact and run it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stnkit.runtime.array_check import InputCheck, OutCheck, ResultCheck, Spec
from stnkit.runtime.backends.cuda_options import cuda_options
from stnkit.runtime.backends.parallel import ParallelRunner
from stnkit.runtime.backends.registry import CudaSettings, Runner, open_runner
from stnkit.runtime.buckets import DEFAULT_BUCKETS, Buckets, bucket_problem, checked_buckets
from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.choice import Choice, choose, on_cpu
from stnkit.runtime.errors import BackendError, DeviceError, InputError, StnkitError
from stnkit.runtime.explanation import Explanation
from stnkit.runtime.images import Images, Prediction, predict, warp
from stnkit.runtime.manifest import Manifest
from stnkit.runtime.manifest_records import Artifact
from stnkit.runtime.purposes import RunSettings, settings_for
from stnkit.runtime.signature import BATCH, Signature
from stnkit.runtime.warm_up import open_sizes, zero_inputs

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Session", "load"]


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    device: str = "auto",
    backend: str = "auto",
    artifact: str | None = None,
    threads: int | None = None,
    purpose: str = "shared",
    batch_buckets: Sequence[int] | None = None,
    provider_options: Mapping[str, bool | int | str] | None = None,
) -> Session:
    """Load an artifact of a bundle.

    `Session.explain` says what was taken and why.

    Args:
        bundle: the bundle's folder, or a bundle that is open already.
        device: `"cpu"`, `"cuda"` or `"cuda:N"`; `"auto"` is the first GPU where one can be used,
            else the CPU.
        backend: `"litert"`, `"onnxruntime"`, or `"auto"`: the one that runs the artifact.
        artifact: file name or format of the artifact; None takes the first one, in the
            manifest's order, that the device can run; on the CPU the fastest one where the
            manifest has times of this machine.
        threads: number of threads that share one run; None leaves it to the purpose.
        purpose: `"shared"`, a machine with other work; `"latency"`, one request at a time;
            `"throughput"`, many at once.
        batch_buckets: sizes that batches are filled up to; None is 1, 2, 4, 8, 16 and 32 on a GPU,
            and no filling on the CPU.
        provider_options: options of ONNX Runtime's CUDA provider; see
            `stnkit.runtime.backends.cuda_options`.

    Returns:
        The session.

    Raises:
        InputError: no such bundle, artifact, backend, device, purpose or option.
        BundleError: a damaged bundle.
        BackendMissingError: the backend is not installed.
        BackendError: the backend refuses the artifact.
        DeviceError: the GPU that was asked for cannot be used.
    """
    settings = settings_for(purpose, threads)
    options = None if provider_options is None else cuda_options(provider_options)
    sizes = None if batch_buckets is None else checked_buckets(batch_buckets)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    choice = choose(opened, device, backend, artifact)
    if provider_options and choice.device.kind == "cpu" and choice.asked:
        raise InputError("provider_options are for a GPU: leave them out with device cpu")
    try:
        return Session(opened, choice, settings, sizes, options)
    except (BackendError, DeviceError) as exc:
        if choice.device.kind == "cpu" or choice.asked:
            raise
        reason = f"the GPU was tried and failed: {exc}"
        choice = on_cpu(opened, backend, artifact, reason)
        return Session(opened, choice, settings, sizes, options)


class Session:
    """One artifact, ready to run; several threads may use it at once. `load` makes one.

    Args:
        bundle: the opened bundle.
        choice: device, artifact and backend.
        settings: how the processor is used.
        batch_buckets: sizes that batches are filled up to; None for those of the device.
        cuda: options of the CUDA provider, checked; None for the defaults.
    """

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        settings: RunSettings,
        batch_buckets: tuple[int, ...] | None = None,
        cuda: Mapping[str, str] | None = None,
    ) -> None:
        self._bundle = bundle
        self._choice = choice
        self._artifact = choice.artifact
        self._settings = settings
        self._notes: list[str] = []
        self._buckets = self._fill_up(batch_buckets)
        self._cuda: CudaSettings | None = None
        if choice.device.kind == "cuda":
            where = (choice.device.index, cuda_options(None) if cuda is None else cuda)
            buckets = self._buckets
            self._cuda = buckets.cuda_settings(*where) if buckets else CudaSettings(*where)
        elif cuda is not None:
            self._notes.append("provider_options were not used: they are for a GPU")
        self._lock = threading.Lock()
        self._closed = False
        outputs: tuple[Spec, ...] = bundle.manifest.signature.outputs
        by_taps = {False: outputs, True: (*outputs, *bundle.manifest.taps)}
        self._check_inputs = InputCheck(self.signature, self._artifact.batch)
        self._check_out = {taps: OutCheck(self.signature, it) for taps, it in by_taps.items()}
        self._check_result = {
            taps: ResultCheck(self._artifact.file, it) for taps, it in by_taps.items()
        }
        self._tapped: Runner | None = None
        self._runner = self._open(taps=False)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def signature(self) -> Signature:
        """Inputs and outputs by name."""
        return self._bundle.manifest.signature

    @property
    def artifact(self) -> Artifact:
        """Record of the artifact that runs."""
        return self._artifact

    @property
    def device(self) -> str:
        """Where it runs: `"cpu"` or `"cuda:N"`."""
        return self._choice.device.name

    @property
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._choice.backend.name

    @property
    def backend_version(self) -> str:
        """Version of that backend's package."""
        return self._runner.version

    @property
    def batch_buckets(self) -> tuple[int, ...]:
        """Sizes that batches are filled up to; empty where they run as they come."""
        return self._buckets.sizes if self._buckets else ()

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        taps: bool = False,
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Contiguous inputs are not copied for ONNX Runtime on the CPU, and neither are its outputs.

        Args:
            inputs: signature name -> array, every input, of exactly the dtype of the signature.
            taps: whether theta and the warped image of every transformer come out too.
            out: output name -> array that it is written to, for any of the outputs (and taps): of
                the dtype and shape of the output, C-contiguous, writeable, sharing memory neither
                with an input nor with another. Its content is undefined after an error.

        Returns:
            Signature name -> array, and tap name -> array with `taps`; they belong to the caller.
            Those of `out` are those that were given.

        Raises:
            InputError: a missing or unknown name, another dtype, rank or size, or an array of `out`
                that cannot be written to.
            BackendError: the backend failed, or did not give what the manifest declares.
            StnkitError: the session is closed.
        """
        runner = self._tapped_runner() if taps else self._open_runner()
        checked = self._check_inputs(inputs)
        if out is not None:
            self._check_out[taps](checked, out)
        if self._buckets is None:
            result = runner.run(checked, out)
        else:
            result = self._buckets.run(runner, checked, out)
        self._check_result[taps](result)
        return result

    def warmup(self, batches: Sequence[int] | None = None) -> dict[int, float]:
        """Run once on zeros at every batch size, so that no caller waits for what is done once.

        Dimensions that are open besides the batch have the sizes of the first stored probe.

        Args:
            batches: batch sizes, each >= 1; None takes the batch buckets, without any the size that
                the artifact was converted for, else 1.

        Returns:
            Batch size -> time of that run in ms.

        Raises:
            InputError: a batch size that the artifact cannot take, or no more than one where
                nothing counts items.
            BackendError: the backend failed.
            StnkitError: the session is closed.
        """
        shapes = [spec.shape for spec in self.signature.inputs]
        fixed = self._artifact.batch
        if batches is None:
            batches = self.batch_buckets or ((1,) if fixed == "dynamic" else (fixed,))
        named = {dim for shape in shapes for dim in shape if isinstance(dim, str)} - {BATCH}
        sizes = open_sizes(self.signature, self._bundle.golden()) if named else {}
        times = {}
        for batch in batches:
            inputs = zero_inputs(self.signature, batch, sizes)
            start = time.perf_counter()
            self.run(inputs)
            times[batch] = (time.perf_counter() - start) * 1000
        return times

    def explain(self) -> Explanation:
        """Return what runs on what, why, and what was not taken; `str` of it is a few lines."""
        facts, settings = self._runner.facts, self._settings
        on_gpu = self._cuda is not None
        litert = self.backend == "litert"
        return Explanation(
            bundle=self.manifest.name,
            device=self.device,
            device_reason=self._choice.device_reason,
            artifact=self._artifact.file,
            artifact_reason=self._choice.artifact_reason,
            rejected=self._choice.rejected,
            backend=self.backend,
            backend_version=self.backend_version,
            purpose=settings.purpose,
            threads=settings.threads,
            spinning=settings.spinning and not on_gpu and not litert,
            parallel_runs=1 if facts.cuda_graph else settings.instances if litert else None,
            batch_buckets=self.batch_buckets,
            cuda_graph=facts.cuda_graph,
            notes=(*self._notes, *facts.notes),
        )

    def predict(self, images: Images, *, batch_size: int = 32) -> list[Prediction]:
        """Classify images with the bundle's own preprocessing and labels.

        Args:
            images: paths of image files; or arrays `[height, width]` or
                `[height, width, channels]`: uint8 in 0..255 as in a file, or float32 of the
                model's own size and range.
            batch_size: how many images run at once, >= 1; an artifact for one batch size uses
                its own.

        Returns:
            One prediction an image, in order.

        Raises:
            InputError: an image that cannot be used, or a bundle without preprocessing or labels.
            BackendError: the backend failed.
            StnkitError: the session is closed.
        """
        return predict(self, images, batch_size=batch_size)

    def warp(
        self, images: Images, *, transformer: str | None = None, batch_size: int = 32
    ) -> list[npt.NDArray[Any]]:
        """Return what a spatial transformer looked at.

        Args:
            images: as for `predict`.
            transformer: name of the transformer; None for the first one.
            batch_size: as for `predict`.

        Returns:
            One array `[height, width, channels]` an image, in order, in the model's range.

        Raises:
            InputError: an image that cannot be used, no such transformer, or a bundle without
                preprocessing.
            BackendError: the backend failed.
            StnkitError: the session is closed.
        """
        return warp(self, images, transformer=transformer, batch_size=batch_size)

    def close(self) -> None:
        """Give the model's memory back; a second call does nothing."""
        with self._lock:
            self._closed = True
            runners = [self._runner, *([self._tapped] if self._tapped else [])]
            self._tapped = None
        for runner in runners:
            runner.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _fill_up(self, sizes: tuple[int, ...] | None) -> Buckets | None:
        """Return the buckets that were asked for, or those of the device where they are possible.

        Raises:
            InputError: some were asked for, and batches of this model cannot be filled up.
        """
        on_gpu = self._choice.device.kind == "cuda"
        if sizes is None and not on_gpu:
            return None
        problem = bucket_problem(self.signature, self.manifest.taps, self._artifact.batch)
        if problem is None:
            return Buckets(self.signature, sizes or DEFAULT_BUCKETS)
        if sizes is not None:
            raise InputError(f"batch_buckets cannot be used: {problem}")
        self._notes.append(f"no batch buckets: {problem}")
        return None

    def _open(self, *, taps: bool) -> Runner:
        def open_one() -> Runner:
            return open_runner(
                self.backend,
                self._bundle.read(self._artifact.file),
                self._artifact,
                want_taps=taps,
                threads=self._settings.threads,
                spinning=self._settings.spinning,
                cuda=self._cuda,
            )

        first = open_one()
        if self.backend != "litert" or self._settings.instances == 1:
            return first
        return ParallelRunner(first, open_one, self._settings.instances)

    def _check_open(self) -> None:
        if self._closed:
            raise StnkitError("the session is closed: load the bundle again")

    def _open_runner(self) -> Runner:
        self._check_open()
        return self._runner

    def _tapped_runner(self) -> Runner:
        with self._lock:
            self._check_open()
            if self._tapped is None:
                self._tapped = self._open(taps=True)
            return self._tapped
