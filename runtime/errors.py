"""Define every error that stnkit raises on purpose.

```
StnkitError               exit code 2
├── InputError            wrong or unreadable input: a file, an image, an array, an option
│   └── BundleError       a damaged, hostile or incomplete bundle
├── BackendMissingError   the package that would run an artifact is not installed
├── DeviceError           the GPU that was asked for cannot be used, and what it lacks
├── BackendError          a backend refused a model or failed while running it
│   └── OutOfMemoryError  a model asks for more memory than there is
├── ExportError           an op that cannot be exported
└── MismatchError         exit code 1: artifact and source differ
```

A message is one line: what failed, what was received, what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from stnkit.runtime.compare import Comparison

__all__ = [
    "BackendError",
    "BackendMissingError",
    "BundleError",
    "DeviceError",
    "ExportError",
    "InputError",
    "MismatchError",
    "OutOfMemoryError",
    "StnkitError",
    "one_line",
]

_FOREIGN_TEXT_MAX = 400
"""Longest text of a foreign error that is quoted: some backends append a dump of the graph."""


def one_line(error: BaseException | str) -> str:
    """Return the text of a foreign error on one line, shortened, without control characters.

    Args:
        error: an exception, or a text that came from outside.

    Returns:
        At most 400 characters; the class name for an exception that says nothing.
    """
    text = " ".join(str(error).split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    if not text:
        text = type(error).__name__
    return text if len(text) <= _FOREIGN_TEXT_MAX else text[: _FOREIGN_TEXT_MAX - 1] + "…"


class StnkitError(Exception):
    """Base of every error that stnkit raises on purpose.

    Attributes:
        exit_code: what the command line exits with: 1 the check failed, 2 wrong use or bad input.
    """

    exit_code: ClassVar[int] = 2


class InputError(StnkitError):
    """Wrong or unreadable input: a file, an image, an array or an option."""


class BundleError(InputError):
    """A damaged, hostile or incomplete bundle."""


class BackendMissingError(StnkitError):
    """The package that would run an artifact is not installed.

    Args:
        backend: the backend's name, e.g. `"onnxruntime"`.
        package: the package as the package index knows it.
        extra: the extra of stnkit that brings it, or None where the package is installed by name.

    Attributes:
        backend: as given.
        package: as given.
        extra: as given.
    """

    def __init__(self, backend: str, package: str, extra: str | None) -> None:
        self.backend = backend
        self.package = package
        self.extra = extra
        wanted = f'"stnkit[{extra}]"' if extra else package
        # "cpu" and "gpu" bring the same backend, and only one of the two may be installed.
        also = ' (or "stnkit[gpu]" on a machine with an NVIDIA GPU)' if extra == "cpu" else ""
        super().__init__(f"{package} is not installed: pip install {wanted}{also}")

    def __reduce__(self) -> tuple[type[BackendMissingError], tuple[str, str, str | None]]:
        return type(self), (self.backend, self.package, self.extra)


class DeviceError(StnkitError):
    """The device that was asked for cannot be used.

    Args:
        device: the device, e.g. `"cuda:0"`.
        problems: sentences without a full stop, each with what is missing and what to do; at
            least one.
        missing: what is missing, in the same order: `"package"`, `"driver"`, `"gpu"`,
            `"libraries"` or `"provider"`.

    Attributes:
        device: as given.
        problems: as given, as a tuple.
        missing: as given, as a tuple.
    """

    def __init__(self, device: str, problems: Sequence[str], missing: Sequence[str]) -> None:
        self.device = device
        self.problems = tuple(problems)
        self.missing = tuple(missing)
        super().__init__(f"device {device} cannot be used: {'; '.join(self.problems)}")

    def __reduce__(self) -> tuple[type[DeviceError], tuple[str, tuple[str, ...], tuple[str, ...]]]:
        return type(self), (self.device, self.problems, self.missing)


class BackendError(StnkitError):
    """A backend refused a model, or failed while running it.

    Raised at the boundary to the backend, `from` the foreign error.
    """


class OutOfMemoryError(BackendError):
    """A model asks for more memory than there is, or than it may take."""


class ExportError(StnkitError):
    """A model holds something that cannot be exported.

    Args:
        message: the whole line.
        format: the format that was being written, `"tflite"` or `"onnx"`.
        op: the operation that cannot be exported, where one is known.
        layer: the layer that the operation came from, where one is known.

    Attributes:
        format: as given.
        op: as given.
        layer: as given.
    """

    def __init__(
        self,
        message: str,
        *,
        format: str | None = None,
        op: str | None = None,
        layer: str | None = None,
    ) -> None:
        self.format = format
        self.op = op
        self.layer = layer
        super().__init__(message)


class MismatchError(StnkitError):
    """An artifact and its source differ by more than the tolerance.

    Args:
        artifact: file name of the artifact.
        comparisons: every comparison that failed, the worst one first; at least one.
        causes: sentences on what is likely wrong, the likeliest first.

    Attributes:
        artifact: as given.
        comparisons: as given, as a tuple.
        causes: as given, as a tuple.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, artifact: str, comparisons: Sequence[Comparison], causes: Sequence[str] = ()
    ) -> None:
        if not comparisons:
            raise ValueError("MismatchError needs at least one failing comparison, got none")
        self.artifact = artifact
        self.comparisons = tuple(comparisons)
        self.causes = tuple(causes)
        more = len(self.comparisons) - 1
        tail = f" (and {more} more)" if more else ""
        cause = f"; likely cause: {self.causes[0]}" if self.causes else ""
        super().__init__(
            f"{artifact} differs from its source: {comparisons[0].describe()}{tail}{cause}"
        )

    def __reduce__(self) -> tuple[type[MismatchError], tuple[Any, ...]]:
        return type(self), (self.artifact, self.comparisons, self.causes)
