"""Keeping what TensorFlow's C++ code prints away from the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Must be in the environment before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Send what C++ code writes to stderr into the void, while Python's own stderr stays.

    TensorFlow logs a dozen lines at import and more in every conversion, whatever log level is
    set. An error of ours must not drown in them. STNKIT_NATIVE_LOG=1 shows them again.
    """
    if os.environ.get("STNKIT_NATIVE_LOG"):
        yield
        return
    try:
        native_fd = sys.__stderr__.fileno() if sys.__stderr__ else 2
        kept_fd = os.dup(native_fd)
    except (OSError, ValueError):  # no stderr at all, as under some supervisors
        yield
        return
    python_stderr = sys.stderr
    rebind = python_stderr is sys.__stderr__
    with tempfile.TemporaryFile() as void:
        python_stderr.flush()
        os.dup2(void.fileno(), native_fd)
        if rebind:
            sys.stderr = os.fdopen(os.dup(kept_fd), "w", buffering=1, encoding="utf-8")
        try:
            yield
        finally:
            with suppress(ValueError):
                sys.stderr.flush()
            if rebind:
                sys.stderr.close()
                sys.stderr = python_stderr
            os.dup2(kept_fd, native_fd)
            os.close(kept_fd)
