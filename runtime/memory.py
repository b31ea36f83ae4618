"""Giving freed memory back to the system."""

from __future__ import annotations

import contextlib
import gc
import sys

__all__ = ["LARGE_BYTES", "give_back", "map_large_blocks"]

LARGE_BYTES = 2**24
"""Weights from which on the time that it takes to free their copies at once is well spent."""

# To map a block takes a system call, and a page fault for each 4 KiB: much for small ones.
_MAPPED_BYTES = 2**22
_M_MMAP_THRESHOLD = -3  # malloc.h


def give_back(*, cycles: bool = False) -> None:
    """Return what was freed to the system, where the C library keeps it.

    After a model of many megabytes was opened, glibc holds several times its size in lists of free
    blocks. Does nothing with another C library.

    Args:
        cycles: whether objects that hold one another are freed first, as graphs of TensorFlow are
            with the weights inside: Python would come to them only after many others.
    """
    if cycles:
        gc.collect()
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def map_large_blocks() -> None:
    """Have blocks of 4 MiB and more go back to the system whenever they are freed, from now on.

    By itself glibc puts blocks of up to 32 MiB into its heap once one of the size was freed, where
    those that stay keep others from going back. It slows down what allocates and frees such blocks
    all the time, so it is for processes that do one thing. Does nothing with another C library.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
