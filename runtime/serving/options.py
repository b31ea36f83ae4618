"""Say how models are served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stnkit.runtime.errors import InputError, one_line

__all__ = ["BundleSource", "ModelOptions", "parse_source"]

_NAME = r"[A-Za-z0-9._-]{1,128}"
_SOURCE = re.compile(rf"(?P<name>{_NAME})(@(?P<version>[0-9]{{1,9}}))?=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class BundleSource:
    """A bundle that is served.

    Attributes:
        path: its folder.
        name: the name it is served under; None for the one in its manifest.
        version: its version, "1" or larger; None for the next free one of its name.
    """

    path: Path
    name: str | None = None
    version: str | None = None


def parse_source(text: str) -> BundleSource:
    """Read `BUNDLE`, `NAME=BUNDLE` or `NAME@VERSION=BUNDLE`.

    Args:
        text: as a user writes it. A folder whose own name holds `=` is taken as it is.

    Raises:
        InputError: version 0.
    """
    found = _SOURCE.fullmatch(text)
    if found is None or Path(text).is_dir():
        return BundleSource(Path(text))
    version = found["version"]
    if version is not None and int(version) == 0:
        raise InputError(f"{one_line(text)} asks for version 0: expected 1 or a larger number")
    return BundleSource(
        Path(found["path"]), found["name"], None if version is None else str(int(version))
    )


@dataclass(frozen=True)
class ModelOptions:
    """How every model of a server runs.

    Attributes:
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`.
        backend: `"auto"`, `"litert"` or `"onnxruntime"`.
        artifact: file name or format of the artifact; None to choose.
        threads: threads that share one run, >= 1; None for 1, which serves most.
        instances: batches that run at once, >= 1; None for as many as there are cores for them.
        max_batch: most items in one run, >= 1; None for 8 on the CPU and 32 on a GPU.
        max_delay_ms: how long a batch waits for more items; 0 runs what is there.
        queue: requests that may wait, >= 1.
        timeout_ms: time a request may take, from its arrival to its answer.
    """

    device: str = "auto"
    backend: str = "auto"
    artifact: str | None = None
    threads: int | None = None
    instances: int | None = None
    max_batch: int | None = None
    max_delay_ms: float = 0.0
    queue: int = 256
    timeout_ms: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("threads", "instances", "max_batch", "queue"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: expected at least 1")
        if not 0 <= self.max_delay_ms <= 60_000:
            raise InputError(
                f"max_delay_ms is {self.max_delay_ms:g}: expected 0 to 60,000 milliseconds"
            )
        if not 0 < self.timeout_ms <= 86_400_000:
            raise InputError(
                f"timeout_ms is {self.timeout_ms:g}: expected more than 0, at most one day"
            )
