"""One version of a model as it is served: its sessions, its queue, and what it says of itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stnkit.runtime.array_check import check_inputs
from stnkit.runtime.bundle import Bundle
from stnkit.runtime.errors import InputError
from stnkit.runtime.serving.batching import Batcher
from stnkit.runtime.serving.classification import top_classes
from stnkit.runtime.serving.datatypes import CONFIG_TYPES, DATATYPES
from stnkit.runtime.serving.errors import InvalidRequestError, OverloadedError
from stnkit.runtime.serving.inference import (
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
)
from stnkit.runtime.serving.options import ModelOptions
from stnkit.runtime.serving.statistics import ModelStatistics
from stnkit.runtime.serving.warming import open_warm
from stnkit.runtime.serving.work import Waiter, Work
from stnkit.runtime.signature import BATCH, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ServedModel"]

# Waking a thread, and then the event loop again, was measured to cost a lone request 0.1 ms. A run
# of this length keeps the loop from others for no longer than a few such turns.
_AT_ONCE_NS = 300_000

_LOG = logging.getLogger("stnkit.serving")


class ServedModel:
    """A model that answers; made ready in full before it is put in place.

    Args:
        bundle: the opened bundle.
        name: the name it is served under.
        version: its version.
        options: how it is served.
        statistics: where to count: a model that takes another one's place goes on with its counts.

    Raises:
        StnkitError: the bundle cannot be run; see `open_warm`.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        version: str,
        options: ModelOptions,
        statistics: ModelStatistics,
    ) -> None:
        warm = open_warm(bundle, options)
        self.manifest = bundle.manifest
        self.name = name
        self.version = version
        self.statistics = statistics
        self.plan = warm.plan
        self.batchable = warm.batchable
        self._options = options
        self._warm = warm
        self._sessions = list(dict.fromkeys(warm.sessions))
        self._signature = bundle.manifest.signature
        self._artifact = warm.sessions[0].artifact
        self._outputs = {spec.name: spec for spec in self._signature.outputs}
        self._all_outputs = {
            binary: [RequestedOutput(name, binary=binary) for name in self._outputs]
            for binary in (False, True)
        }
        # Requests of other sizes of images may arrive together: only equal ones share a batch.
        self._open = any(
            isinstance(size, str) for spec in self._signature.inputs for size in spec.shape[1:]
        )
        self._plain = self._plain_input()
        self.batcher = Batcher(
            [session.run for session in warm.sessions],
            warm.plan,
            max_delay_ms=options.max_delay_ms,
            queue=options.queue,
            batchable=warm.batchable,
            statistics=self.statistics,
            name=self.name,
            at_once=self._at_once(),
        )

    @property
    def instances(self) -> int:
        """Batches that run at once."""
        return len(self._warm.sessions)

    @property
    def device(self) -> str:
        """Where it runs, e.g. `"cpu"`."""
        return self._sessions[0].device

    def describe(self) -> str:
        """Return one line on how the model is served."""
        session = self._sessions[0]
        threads = f", {self._warm.threads} thread(s) a run" if self._warm.threads else ""
        sizes = ", ".join(str(size) for size in self.plan.costs_ns)
        batches = f"batches of {sizes}" if self.batchable else "one request at a time"
        return (
            f"{self.name} version {self.version}: {self._artifact.file} on {session.device} with "
            f"{session.backend} {session.backend_version}, {self.instances} instance(s){threads}, "
            f"{batches}"
        )

    def work(self, request: InferRequest, waiter: Waiter | None = None) -> Work:
        """Check a request and make it ready for the queue; to be called on an event loop.

        Args:
            request: what a client asks.
            waiter: who waits for the outputs; None makes a future.

        Raises:
            InvalidRequestError: inputs that do not fit the signature, too many items, or an output
                that there is not.
        """
        for wanted in request.outputs:
            self._check_output(wanted)
        timeout_ms = self._options.timeout_ms
        if request.timeout_ms is not None:
            timeout_ms = min(timeout_ms, request.timeout_ms)
        inputs = request.inputs
        items, key = self._measure(inputs)
        return Work(inputs, items, key, timeout_ms, waiter)

    def give_up(self, work: Work, reason: str) -> None:
        """Take a request back for whose answer nobody waits any more, and count it.

        Args:
            work: the request.
            reason: `"deadline"` or `"cancelled"`.
        """
        self.batcher.withdraw(work)
        ended_ns = min(time.monotonic_ns(), work.deadline_ns)
        self.statistics.add_failure(reason, ended_ns - work.arrived_ns)

    def refuse_when_full(self) -> None:
        """Refuse a request that would wait for too long, before its body is read for nothing.

        Raises:
            OverloadedError: too many wait.
        """
        try:
            self.batcher.refuse_when_full(self._options.timeout_ms)
        except OverloadedError:
            self.statistics.add_failure("overloaded")
            raise

    def answer(
        self, request: InferRequest, outputs: Mapping[str, npt.NDArray[Any]]
    ) -> InferResponse:
        """Return the answer to a request.

        Args:
            request: what was asked.
            outputs: output name -> array, from the model.
        """
        wanted = request.outputs or self._all_outputs[request.binary]
        tensors = []
        for output in wanted:
            value = outputs[output.name]
            if output.classes:
                value = top_classes(value, output.classes, self._labels(output.name))
                tensors.append(OutputTensor(output.name, "BYTES", value, output.binary))
            else:
                datatype = DATATYPES[self._outputs[output.name].dtype]
                tensors.append(OutputTensor(output.name, datatype, value, output.binary))
        return InferResponse(self.name, self.version, request.id, tensors)

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return the protocol's metadata of the model.

        Args:
            versions: every version that is ready.
        """
        return {
            "name": self.name,
            "versions": versions,
            "platform": self._platform,
            "inputs": [self._tensor(spec) for spec in self._signature.inputs],
            "outputs": [self._tensor(spec) for spec in self._signature.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Return the configuration in the form that Triton's clients and load generators read."""
        skip = 1 if self.batchable else 0

        def tensor(spec: TensorSpec) -> dict[str, Any]:
            sizes = [-1 if isinstance(dim, str) else dim for dim in spec.shape[skip:]]
            return {"name": spec.name, "data_type": CONFIG_TYPES[spec.dtype], "dims": sizes}

        config: dict[str, Any] = {
            "name": self.name,
            "platform": self._platform,
            "backend": self._sessions[0].backend,
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": self.plan.largest if self.batchable else 0,
            "input": [tensor(spec) for spec in self._signature.inputs],
            "output": [tensor(spec) for spec in self._signature.outputs],
            "instance_group": [
                {
                    "name": self.name,
                    "kind": "KIND_CPU" if self.device == "cpu" else "KIND_GPU",
                    "count": self.instances,
                }
            ],
            "default_model_filename": self._artifact.file,
        }
        if self.batchable:
            config["dynamic_batching"] = {
                "preferred_batch_size": list(self.plan.costs_ns),
                "max_queue_delay_microseconds": int(self._options.max_delay_ms * 1000),
            }
        return config

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what was taken, then give the memory back.

        Args:
            timeout_s: how long to wait for the answers; None waits for as long as it takes.
        """
        if not self.batcher.retire(timeout_s):
            _LOG.warning("%s still runs a batch, whose answer nobody waits for", self.name)
            return
        for session in self._sessions:
            session.close()

    @property
    def _platform(self) -> str:
        return "onnxruntime_onnx" if self._artifact.format == "onnx" else "tflite"

    def _tensor(self, spec: TensorSpec) -> dict[str, Any]:
        fixed = None if self.batchable else self._artifact.batch
        sizes = [
            (fixed if dim == BATCH and isinstance(fixed, int) else -1)
            if isinstance(dim, str)
            else dim
            for dim in spec.shape
        ]
        return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": sizes}

    def _at_once(self) -> Callable[..., Any] | None:
        """Return what runs a lone request on the event loop; None where a run takes too long."""
        quickest = min(self.plan.costs_ns.values())
        return self._sessions[0].run if self.device == "cpu" and quickest < _AT_ONCE_NS else None

    def _plain_input(self) -> tuple[str, tuple[int, ...], np.dtype[Any]] | None:
        """Return name, shape of an item and dtype of an only input whose items have one size."""
        if len(self._signature.inputs) != 1 or not self.batchable or self._open:
            return None
        spec = self._signature.inputs[0]
        return spec.name, tuple(int(size) for size in spec.shape[1:]), np.dtype(spec.dtype)

    def _measure(self, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[int, Any]:
        """Return how many items the inputs hold, and what they may share a batch with."""
        plain = self._plain
        if plain is not None and len(inputs) == 1:
            value = inputs.get(plain[0])
            if value is not None and value.shape[1:] == plain[1] and value.dtype == plain[2]:
                items = value.shape[0] if value.ndim else 0
                if 1 <= items <= self.plan.largest:
                    return items, ()
        try:
            batch = "dynamic" if self.batchable else self._artifact.batch
            check_inputs(self._signature, batch, inputs)
        except InputError as exc:
            raise InvalidRequestError(str(exc)) from exc
        if not self.batchable:
            return 1, None
        items = int(inputs[self._signature.inputs[0].name].shape[0])
        if items > self.plan.largest:
            raise InvalidRequestError(
                f"the request holds {items} items: expected at most {self.plan.largest} in one "
                "request to this model"
            )
        key = tuple(inputs[spec.name].shape[1:] for spec in self._signature.inputs)
        return items, key if self._open else ()

    def _check_output(self, wanted: RequestedOutput) -> None:
        spec = self._outputs.get(wanted.name)
        if spec is None:
            raise InvalidRequestError(
                f"the request asks for the output {wanted.name!r}: expected one of "
                f"{', '.join(self._outputs)}"
            )
        if wanted.classes and (len(spec.shape) < 2 or spec.shape[-1] == BATCH):
            raise InvalidRequestError(
                f"the request asks for classes of {wanted.name!r}, which has one number an item: "
                "expected an output with a number for each class"
            )

    def _labels(self, output: str) -> tuple[str, ...]:
        classes = self.manifest.classes
        return classes.labels if classes is not None and classes.output == output else ()
