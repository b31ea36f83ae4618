"""Load a bundle's artifact and run it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stnkit.runtime.array_check import check_inputs
from stnkit.runtime.backends import available, backend_for, open_runner
from stnkit.runtime.backends.registry import BACKENDS, BackendInfo, Runner
from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.errors import BackendError, BackendMissingError, InputError, StnkitError
from stnkit.runtime.images import Images, Prediction, predict, warp
from stnkit.runtime.manifest import Manifest
from stnkit.runtime.manifest_records import Artifact
from stnkit.runtime.signature import Signature, TapSpec, TensorSpec, shape_problem

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Session", "load"]


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    backend: str = "auto",
    artifact: str | None = None,
    threads: int | None = None,
) -> Session:
    """Load an artifact of a bundle.

    Args:
        bundle: the bundle's folder, or a bundle that is open already.
        backend: `"litert"`, `"onnxruntime"`, or `"auto"`: the one that runs the artifact.
        artifact: file name or format of the artifact; None takes the first one, in the
            manifest's order, whose backend is installed.
        threads: number of threads that share one run; None leaves it to the backend.

    Returns:
        The session.

    Raises:
        InputError: no such bundle, artifact or backend.
        BundleError: a damaged bundle.
        BackendMissingError: the backend is not installed.
        BackendError: the backend refuses the artifact.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    record, info = _choose(opened, backend, artifact)
    return Session(opened, record, info.name, threads=threads)


def _choose(bundle: Bundle, backend: str, artifact: str | None) -> tuple[Artifact, BackendInfo]:
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(["auto", *sorted(BACKENDS)])
        raise InputError(f'there is no backend "{backend}": expected one of {known}')
    candidates = (
        list(bundle.manifest.artifacts) if artifact is None else [bundle.artifact(artifact)]
    )
    pairs = [(record, backend_for(record.format)) for record in candidates]
    fitting = [pair for pair in pairs if backend in ("auto", pair[1].name)]
    if not fitting:
        formats = " or ".join(BACKENDS[backend].formats)
        files = ", ".join(record.file for record in candidates)
        raise InputError(
            f"the {backend} backend runs {formats}: expected such a file, have {files}"
        )
    for record, info in fitting:
        if available(info.name):
            return record, info
    info = fitting[0][1]
    raise BackendMissingError(info.name, info.package, info.extra)


class Session:
    """One artifact, ready to run; several threads may use it at once.

    Args:
        bundle: the opened bundle.
        artifact: the artifact's record.
        backend: name of the backend that runs it.
        threads: number of threads that share one run; None leaves it to the backend.
    """

    def __init__(
        self, bundle: Bundle, artifact: Artifact, backend: str, *, threads: int | None = None
    ) -> None:
        self._bundle = bundle
        self._artifact = artifact
        self._backend = backend
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
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
    def backend(self) -> str:
        """Name of the backend that runs it."""
        return self._backend

    @property
    def backend_version(self) -> str:
        """Version of that backend's package."""
        return self._runner.version

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], *, taps: bool = False
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model.

        Args:
            inputs: signature name -> array, every input, of exactly the dtype of the signature.
            taps: whether theta and the warped image of every transformer come out too.

        Returns:
            Signature name -> array, and tap name -> array with `taps`; they belong to the caller.

        Raises:
            InputError: a missing or unknown name, another dtype, rank or size.
            BackendError: the backend failed, or did not give what the manifest declares.
            StnkitError: the session is closed.
        """
        runner = self._tapped_runner() if taps else self._open_runner()
        result = runner.run(check_inputs(self.signature, self._artifact.batch, inputs))
        specs: list[TensorSpec | TapSpec] = [*self.signature.outputs]
        if taps:
            specs += self.manifest.taps
        for spec in specs:
            value = result[spec.name]
            expected = shape_problem(spec.shape, value.shape)
            if value.dtype != spec.dtype or expected is not None:
                raise BackendError(
                    f'{self._artifact.file} gave "{spec.name}" as {value.dtype} '
                    f"{list(value.shape)}: expected {spec.dtype} {expected or list(spec.shape)}"
                )
        return result

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

    def _open(self, *, taps: bool) -> Runner:
        model = self._bundle.read(self._artifact.file)
        return open_runner(
            self._backend, model, self._artifact, want_taps=taps, threads=self._threads
        )

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
