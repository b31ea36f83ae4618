"""What both protocols ask for: health, metadata, inference and management of models."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from stnkit.runtime.serving.errors import (
    DeadlineError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    ServingError,
    UnauthenticatedError,
)
from stnkit.runtime.serving.inference import InferRequest, InferResponse
from stnkit.runtime.serving.limits import Limits
from stnkit.runtime.serving.options import BundleSource, ModelOptions
from stnkit.runtime.serving.repository import Repository
from stnkit.runtime.serving.tracing import Tracer
from stnkit.runtime.serving.work import RetiredError, Waiter, Work

if TYPE_CHECKING:
    from stnkit.runtime.serving.served_model import ServedModel

__all__ = ["ServingCore"]

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)


class ServingCore:
    """The models and the rules of a server; what it raises for a client is a `ServingError`.

    Args:
        sources: the bundles.
        options: how they are served.
        limits: what clients may send.
        management_token: opens the repository's routes to who presents it; None keeps them shut.
    """

    def __init__(
        self,
        sources: Sequence[BundleSource],
        options: ModelOptions | None = None,
        limits: Limits | None = None,
        *,
        management_token: str | None = None,
    ) -> None:
        self.options = options or ModelOptions()
        self.limits = limits or Limits()
        self.repository = Repository(self.options)
        self._sources = tuple(sources)
        self._token = management_token
        self._draining = False
        self._open = False
        self.tracer = Tracer()

    def open(self) -> None:
        """Load the models; blocks. A second call does nothing.

        Raises:
            StnkitError: see `Repository.open`.
        """
        if not self._open:
            self.repository.open(self._sources)
            self._draining = False
            self._open = True

    def drain(self) -> None:
        """Be no longer ready, and go on answering."""
        self._draining = True

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what was taken, and give all memory back.

        Args:
            timeout_s: how long to wait for each model's answers.
        """
        self._open = False
        self.repository.close(timeout_s)

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""
        return self._draining

    @property
    def traced(self) -> bool:
        """Whether requests need what names their caller's span."""
        return self.tracer.on

    def live(self) -> bool:
        """Return whether the server runs at all."""
        return True

    def ready(self) -> bool:
        """Return whether requests should be sent here."""
        return self._open and not self._draining

    def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether a model answers.

        Raises:
            NotFoundError: no such model or version.
        """
        try:
            self.repository.get(name, version)
        except NotReadyError:
            return False
        return self.ready()

    def server_metadata(self) -> dict[str, Any]:
        """Return the protocol's metadata of the server."""
        try:
            own = version("stnkit")
        except PackageNotFoundError:  # run from a folder, without being installed
            own = "unknown"
        return {"name": "stnkit", "version": own, "extensions": list(_EXTENSIONS)}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the protocol's metadata of a model.

        Raises:
            NotFoundError: no such model or version.
            NotReadyError: it is not loaded.
        """
        model = self.repository.get(name, version)
        return model.metadata(self.repository.versions(name))

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """Return a model's configuration as Triton's clients read it.

        Raises:
            NotFoundError: no such model or version.
            NotReadyError: it is not loaded.
        """
        return self.repository.get(name, version).config()

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Return the statistics of one model or of all.

        Raises:
            NotFoundError: no such model or version.
            NotReadyError: it is not loaded.
        """
        models = [self.repository.get(name, version)] if name else self.repository.models()
        if name and not version:
            models = [self.repository.get(name, key) for key in self.repository.versions(name)]
        return {
            "model_stats": [model.statistics.to_json(model.name, model.version) for model in models]
        }

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request; cancelling the caller takes it back.

        Raises:
            InvalidRequestError: it does not fit the model.
            NotFoundError: no such model or version.
            NotReadyError: the model is not loaded.
            OverloadedError: too many wait.
            DeadlineError: its time was over.
            InferenceError: the backend failed.
        """
        if self.tracer.on:
            with self.tracer.span(request.model, request.carrier):
                return await self._infer(request)
        return await self._infer(request)

    async def _infer(self, request: InferRequest) -> InferResponse:
        future = asyncio.get_running_loop().create_future()
        model, work = self.enqueue(request, future)
        timer = work.loop.call_later((work.deadline_ns - work.arrived_ns) / 1e9, work.expire)
        try:
            outputs = await future
        except DeadlineError:
            model.give_up(work, "deadline")
            raise
        except asyncio.CancelledError:
            model.give_up(work, "cancelled")
            raise
        finally:
            timer.cancel()
        return model.answer(request, outputs)

    def enqueue(self, request: InferRequest, waiter: Waiter) -> tuple[ServedModel, Work]:
        """Put a request into the queue of its model; to be called on an event loop.

        Whoever calls ends the wait at the deadline, and tells the model of a request for whose
        answer nobody waits any more; `infer` does both.

        Args:
            request: what a client asks.
            waiter: who waits for the outputs.

        Returns:
            The model that answers, and the request in its queue.

        Raises:
            ServingError: see `infer`.
        """
        while True:
            model = self.repository.get(request.model, request.version)
            try:
                work = model.work(request, waiter)
                model.batcher.submit(work)
            except RetiredError:  # a reload put another one in its place meanwhile
                continue
            except OverloadedError:
                model.statistics.add_failure("overloaded")
                raise
            except ServingError:
                model.statistics.add_failure("invalid")
                raise
            return model, work

    def check_management(self, authorization: str | None) -> None:
        """Let only those through who may manage models.

        Args:
            authorization: what the client sent as `Authorization`.

        Raises:
            NotFoundError: management is off.
            UnauthenticatedError: no token, or another one.
        """
        if self._token is None:
            raise NotFoundError(
                "models are not managed over the network here: start the server with "
                "--model-control explicit"
            )
        sent = (authorization or "").encode("utf-8", "replace")
        if not hmac.compare_digest(sent, f"Bearer {self._token}".encode()):
            raise UnauthenticatedError(
                "managing models takes the server's token: send it as `Authorization: Bearer TOKEN`"
            )

    def repository_index(self, ready_only: bool = False) -> list[dict[str, Any]]:
        """Return name, version, state and reason of every version of every model."""
        return self.repository.index(ready_only=ready_only)

    async def load(self, name: str) -> None:
        """Open a model's bundles again and swap them in; see `Repository.load`."""
        await asyncio.to_thread(self.repository.load, name)

    async def unload(self, name: str) -> None:
        """Take a model out of service; see `Repository.unload`."""
        await asyncio.to_thread(self.repository.unload, name)
