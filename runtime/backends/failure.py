"""Telling a backend that was short of memory from one that failed otherwise."""

from __future__ import annotations

import re

from stnkit.runtime.errors import BackendError, OutOfMemoryError, one_line

__all__ = ["failure"]

# What ONNX Runtime says; at the end of more than one line where the node is inside a loop.
_ALLOCATION = re.compile(r"Failed to allocate memory for requested buffer of size (\d+)|bad_alloc")
_NODE = re.compile(r"while running (\w+) node")
_UNKNOWN_OP = re.compile(r"Could not find an implementation for (\w+)\((\d+)\)")
# LiteRT gives a reason for all that it checks, and none where an allocation fails: the error is
# then empty, or names the loop around the node and no more.
_NO_REASON = re.compile(r"(Node number \d+ \(\w+\) failed to (prepare|invoke)\.\s*)*")


def failure(what: str, error: Exception) -> BackendError:
    """Return the error to raise where a backend raised one of its own.

    Args:
        what: what failed, e.g. `"LiteRT failed to run the model"`.
        error: what the backend raised.

    Returns:
        `OutOfMemoryError` where memory was short, else `BackendError`.
    """
    text = str(error)
    found = _ALLOCATION.search(text)
    if found or isinstance(error, MemoryError):
        node = _NODE.findall(text)
        where = f" for {node[-1]}" if node else ""
        size = f": it asked for {int(found[1]) / 2**20:,.0f} MiB" if found and found[1] else ""
        return OutOfMemoryError(f"{what}: not enough memory{where}{size}")
    if _NO_REASON.fullmatch(text):
        return OutOfMemoryError(f"{what}: it gives no reason, as where there is not enough memory")
    unknown = _UNKNOWN_OP.search(text)
    if unknown and unknown[1] == "DeformConv":
        return BackendError(
            f"{what}: it has no DeformConv, which came with ONNX Runtime 1.25; install a newer "
            "one, or convert with --sampler grid-sample"
        )
    return BackendError(f"{what}: {one_line(error)}")
