"""What the gRPC half asks of the server's core."""

from __future__ import annotations

from typing import Any, Protocol

from stnkit.runtime.serving.inference import InferRequest, InferResponse
from stnkit.runtime.serving.limits import Limits

__all__ = ["Core"]


class Core(Protocol):
    """Health, metadata, inference and management; what it raises for a client is `ServingError`.

    Attributes:
        limits: what clients may send.
    """

    limits: Limits

    @property
    def traced(self) -> bool:
        """Whether requests need what names their caller's span."""

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request; cancelling the caller takes it back."""

    def live(self) -> bool:
        """Return whether the server runs at all."""

    def ready(self) -> bool:
        """Return whether requests should be sent here."""

    def model_ready(self, name: str, version: str = "") -> bool:
        """Return whether a model answers."""

    def server_metadata(self) -> dict[str, Any]:
        """Return the protocol's metadata of the server."""

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the protocol's metadata of a model."""

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """Return a model's configuration."""

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Return the statistics of one model or of all."""

    def check_management(self, authorization: str | None) -> None:
        """Let only those through who may manage models."""

    def repository_index(self, ready_only: bool = False) -> list[dict[str, Any]]:
        """Return name, version, state and reason of every version of every model."""

    async def load(self, name: str) -> None:
        """Open a model's bundles again and swap them in."""

    async def unload(self, name: str) -> None:
        """Take a model out of service."""
