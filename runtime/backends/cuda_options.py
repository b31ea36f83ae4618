"""Allow the options of ONNX Runtime's CUDA provider that make sense here, by name, type and range.

An unknown option is an error of this module's, because it need not be one of ONNX Runtime's. What
is left out takes addresses in memory (`user_compute_stream`, `gpu_external_alloc` and its like), or
is set by other means (`device_id`).

Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.json_reader import join_names

__all__ = ["CUDA_OPTIONS", "cuda_options"]

_MEMORY_LEAST_BYTES = 2**20
_MEMORY_MOST_BYTES = 2**63 - 1

Value = bool | int | str


def _flag(value: Any) -> str | None:
    return str(int(value)) if isinstance(value, bool) else None


def _bytes(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole and _MEMORY_LEAST_BYTES <= value <= _MEMORY_MOST_BYTES else None


def _one_of(*names: str) -> Callable[[Any], str | None]:
    return lambda value: value if isinstance(value, str) and value in names else None


_FLAG = (_flag, "True or False")

CUDA_OPTIONS: Mapping[str, tuple[Callable[[Any], str | None], str]] = {
    "arena_extend_strategy": (
        _one_of("kNextPowerOfTwo", "kSameAsRequested"),
        '"kNextPowerOfTwo" or "kSameAsRequested"',
    ),
    "cudnn_conv1d_pad_to_nc1d": _FLAG,
    "cudnn_conv_algo_search": (
        _one_of("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        '"EXHAUSTIVE", "HEURISTIC" or "DEFAULT"',
    ),
    "cudnn_conv_use_max_workspace": _FLAG,
    "do_copy_in_default_stream": _FLAG,
    "enable_cuda_graph": _FLAG,
    "fuse_conv_bias": _FLAG,
    "gpu_mem_limit": (_bytes, f"bytes, at least {_MEMORY_LEAST_BYTES}"),
    "prefer_nhwc": _FLAG,
    "use_ep_level_unified_stream": _FLAG,
    "use_tf32": _FLAG,
}
"""Option -> how its value becomes ONNX Runtime's text (None if it is wrong), and what is right."""

_DEFAULTS: Mapping[str, Value] = {
    # TF32 rounds what goes into a product to ten bits of mantissa, and ONNX Runtime has it on: the
    # answers would differ from the source's by a thousandth, which the proof rightly refuses.
    "use_tf32": False,
    # Where it is possible; see stnkit.runtime.backends.cuda.
    "enable_cuda_graph": True,
}


def cuda_options(given: Mapping[str, Value] | None) -> dict[str, str]:
    """Return the options of the CUDA provider as ONNX Runtime takes them.

    Args:
        given: option -> value, of those in `CUDA_OPTIONS`; True and False for switches.

    Raises:
        InputError: an unknown option, or a value that it cannot have.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(
            f"provider_options is a {type(given).__name__}: expected a dict, e.g. "
            '{"gpu_mem_limit": 2**31}'
        )
    wanted = {**_DEFAULTS, **(given or {})}
    found = {}
    for name, value in wanted.items():
        if name not in CUDA_OPTIONS:
            why = " (load's device sets it)" if name == "device_id" else ""
            raise InputError(
                f'there is no CUDA provider option "{one_line(str(name))}"{why}: expected one of '
                f"{join_names(sorted(CUDA_OPTIONS))}"
            )
        convert, right = CUDA_OPTIONS[name]
        text = convert(value)
        if text is None:
            raise InputError(
                f"CUDA provider option {name} is {one_line(repr(value))}: expected {right}"
            )
        found[name] = text
    return found
