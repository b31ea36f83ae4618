"""Options of the CUDA provider: those that are allowed, as text, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from stnkit.runtime import InputError, choice, load
from stnkit.runtime.backends.cuda_options import CUDA_OPTIONS, cuda_options


def test_defaults_keep_float32_as_it_is():
    assert cuda_options(None) == {"use_tf32": "0", "enable_cuda_graph": "1"}


def test_values_become_the_text_that_onnx_runtime_takes():
    given = {
        "use_tf32": True,
        "enable_cuda_graph": False,
        "gpu_mem_limit": 2**31,
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": True,
    }
    assert cuda_options(given) == {
        "use_tf32": "1",
        "enable_cuda_graph": "0",
        "gpu_mem_limit": "2147483648",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "prefer_nhwc": "1",
    }


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"use_tf23": True}, r'no CUDA provider option "use_tf23": expected one of "arena_ext'),
        ({"device_id": 1}, r"\"device_id\" \(load's device sets it\)"),
        ({"user_compute_stream": 140737488355328}, "no CUDA provider option"),
        ({"gpu_external_alloc": 1}, "no CUDA provider option"),
        ({3: True}, 'no CUDA provider option "3"'),
        ({"use_tf32": 1}, "use_tf32 is 1: expected True or False"),
        ({"use_tf32": "0"}, "use_tf32 is '0': expected True or False"),
        ({"gpu_mem_limit": True}, "gpu_mem_limit is True: expected bytes"),
        ({"gpu_mem_limit": 1000}, "gpu_mem_limit is 1000: expected bytes, at least 1048576"),
        ({"gpu_mem_limit": 2**63}, "expected bytes"),
        ({"gpu_mem_limit": 1e9}, "expected bytes"),
        ({"arena_extend_strategy": 1}, 'expected "kNextPowerOfTwo" or "kSameAsRequested"'),
        ({"cudnn_conv_algo_search": "exhaustive"}, 'expected "EXHAUSTIVE", "HEURISTIC"'),
        ({"use_tf32": np.bool_(True)}, "expected True or False"),
        ([("use_tf32", True)], "provider_options is a list: expected a dict"),
    ],
)
def test_anything_else_is_refused(given, part):
    with pytest.raises(InputError, match=part):
        cuda_options(given)


def test_nothing_that_takes_an_address_is_allowed():
    assert not [name for name in CUDA_OPTIONS if name.startswith(("user_", "gpu_external"))]


def test_load_refuses_them_too(bundle_path):
    with pytest.raises(InputError, match="no CUDA provider option"):
        load(bundle_path, provider_options={"nonsense": 1})
    with pytest.raises(InputError, match="provider_options are for a GPU"):
        load(bundle_path, device="cpu", provider_options={"use_tf32": True})


def test_where_auto_takes_the_cpu_it_says_that_they_were_not_used(bundle_path, monkeypatch):
    monkeypatch.setattr(choice, "cuda_problems", lambda index: iter([("gpu", "none is there")]))
    with load(bundle_path, provider_options={"use_tf32": True}) as session:
        assert session.device == "cpu"
        assert session.explain().notes == ("provider_options were not used: they are for a GPU",)
