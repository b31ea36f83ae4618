"""The models of a server by name and version, put in place and replaced as a whole."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.errors import InputError, StnkitError, one_line
from stnkit.runtime.serving.errors import InvalidRequestError, NotFoundError, NotReadyError
from stnkit.runtime.serving.options import BundleSource, ModelOptions
from stnkit.runtime.serving.served_model import ServedModel
from stnkit.runtime.serving.statistics import ModelStatistics

__all__ = ["Repository"]

_LOG = logging.getLogger("stnkit.serving")


@dataclass
class _Entry:
    """One version: where it comes from, and what serves it, if anything does."""

    source: BundleSource
    model: ServedModel | None
    statistics: ModelStatistics
    reason: str = ""


class Repository:
    """What a server serves; reading is safe from any thread, changes happen one at a time.

    Args:
        options: how every model is served.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._entries: dict[str, dict[str, _Entry]] = {}
        self._changes = threading.Lock()

    def open(self, sources: Sequence[BundleSource]) -> None:
        """Load the bundles that a server starts with.

        Bundles of one name are its versions: 1, 2, … in their order, where none is given.

        Raises:
            InputError: no bundle, or one version of a name twice.
            StnkitError: a bundle cannot be served.
        """
        if not sources:
            raise InputError("there is no bundle to serve: name at least one")
        self._entries = {}
        try:
            for source in sources:
                try:
                    self._open_one(source)
                except StnkitError as exc:
                    shown = one_line(str(source.path))
                    if shown in str(exc):
                        raise
                    raise InputError(f"{shown}: {exc}") from exc  # it is one of several, perhaps
        except BaseException:
            self.close()
            raise

    def _open_one(self, source: BundleSource) -> None:
        bundle = open_bundle(source.path)
        name = source.name or bundle.manifest.name
        versions = self._entries.get(name, {})
        version = source.version or str(max((int(it) for it in versions), default=0) + 1)
        if version in versions:
            raise InputError(
                f"version {version} of {name} is given twice: expected a number of its own for "
                f"each, {name}@VERSION=BUNDLE"
            )
        statistics = ModelStatistics()
        model = ServedModel(bundle, name, version, self._options, statistics)
        self._announce(model)
        self._entries.setdefault(name, {})[version] = _Entry(source, model, statistics)

    @staticmethod
    def _announce(model: ServedModel) -> None:
        _LOG.info("%s", model.describe())

    def get(self, name: str, version: str = "") -> ServedModel:
        """Return the model that answers.

        Args:
            name: its name.
            version: its version; "" for the largest that is ready.

        Raises:
            NotFoundError: no such model or version.
            NotReadyError: it is not loaded.
        """
        entries = self._entries.get(name)
        if entries is None:
            raise NotFoundError(f"there is no model {name[:128]!r}")
        if version:
            entry = entries.get(version)
            if entry is None:
                raise NotFoundError(f"the model {name!r} has no version {version[:32]!r}")
            if entry.model is None:
                raise NotReadyError(f"version {version} of the model {name!r} is not loaded")
            return entry.model
        if len(entries) == 1:
            (entry,) = entries.values()
            model = entry.model
        else:
            loaded = [(int(key), it.model) for key, it in entries.items() if it.model is not None]
            model = max(loaded, key=lambda pair: pair[0])[1] if loaded else None
        if model is None:
            raise NotReadyError(f"the model {name!r} is not loaded")
        return model

    def models(self) -> list[ServedModel]:
        """Return every model that answers."""
        return [
            entry.model
            for entries in list(self._entries.values())
            for entry in list(entries.values())
            if entry.model is not None
        ]

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that are ready, ascending.

        Args:
            name: its name.
        """
        found = [key for key, it in self._entries.get(name, {}).items() if it.model is not None]
        return sorted(found, key=int)

    def index(self, *, ready_only: bool = False) -> list[dict[str, Any]]:
        """Return the protocol's index: name, version, state and reason of each version.

        Args:
            ready_only: whether to leave out what is not loaded.
        """
        return [
            {
                "name": name,
                "version": version,
                "state": "READY" if entry.model is not None else "UNAVAILABLE",
                "reason": entry.reason,
            }
            for name, entries in self._entries.items()
            for version, entry in entries.items()
            if entry.model is not None or not ready_only
        ]

    def load(self, name: str) -> None:
        """Open a model's bundles again, and put them in place once all of them are ready.

        What serves goes on serving until then, and answers what it was given; where a bundle is
        bad, it goes on for good. Blocks: to be called in a thread.

        Args:
            name: a name that the server was started with.

        Raises:
            NotFoundError: no such model.
            InvalidRequestError: a bundle that cannot be served.
        """
        with self._changes:
            entries = self._known(name)
            opened: dict[str, ServedModel] = {}
            try:
                for version, entry in entries.items():
                    bundle = open_bundle(entry.source.path)
                    opened[version] = ServedModel(
                        bundle, name, version, self._options, entry.statistics
                    )
            except Exception as exc:
                for model in opened.values():
                    model.close()
                for other in entries.values():
                    other.reason = "" if other.model is not None else "the last load failed"
                if not isinstance(exc, StnkitError):  # a bug, which is told as one
                    raise
                _LOG.error("%s was not loaded: %s: %s", name, entry.source.path, exc)
                # A path is for the log, not for a client.
                text = one_line(str(exc)).replace(str(entry.source.path), f"the bundle of {name}")
                raise InvalidRequestError(f"{name!r} was not loaded: {text}") from exc
            old = [entry.model for entry in entries.values() if entry.model is not None]
            for version, model in opened.items():
                entries[version].model = model
                entries[version].reason = ""
                self._announce(model)
            for model in old:
                model.close()

    def unload(self, name: str) -> None:
        """Take a model out of service; it answers what it was given. Blocks.

        Args:
            name: a name that the server was started with.

        Raises:
            NotFoundError: no such model.
        """
        with self._changes:
            for entry in self._known(name).values():
                model, entry.model = entry.model, None
                entry.reason = "unloaded"
                if model is not None:
                    model.close()
            _LOG.info("%s is unloaded", name)

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what was taken, and give all memory back.

        Args:
            timeout_s: how long to wait for each model's answers.
        """
        with self._changes:
            for entries in self._entries.values():
                for entry in entries.values():
                    # Out of reach first: who asks meanwhile is told that it is not loaded.
                    model, entry.model = entry.model, None
                    if model is not None:
                        model.close(timeout_s)

    def _known(self, name: str) -> dict[str, _Entry]:
        try:
            return self._entries[name]
        except KeyError:
            raise NotFoundError(f"there is no model {name[:128]!r}") from None
