"""Giving freed memory back to the system."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Return what was freed to the system, where the C library keeps it.

    After a model of many megabytes was opened, glibc holds several times its size in lists of free
    blocks. Does nothing with another C library.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
