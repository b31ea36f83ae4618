"""Fixtures for every test: tolerances, comparison, and the oracle helpers.

With `--import-mode=importlib` test modules cannot import one another, so what they share is
loaded here by path and handed out as fixtures. Nothing here imports TensorFlow: the tests of
the runtime share this file.
"""

from __future__ import annotations

import gc
import importlib.util
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stnkit.runtime.memory import give_back

_MUCH_BYTES = 2 * 2**30
TESTS = Path(__file__).parent


def _load(path: Path) -> ModuleType:
    """Load a module by path, once, under its file's name."""
    name = path.stem
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it is being run
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Free what a module's models left: hundreds of graphs add up to 10 GB in one process."""
    yield
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError):  # another system
        return
    if pages * resource.getpagesize() > _MUCH_BYTES:
        gc.collect()
        give_back()


@pytest.fixture(scope="session")
def tolerances() -> object:
    """Return the float32 row of the tolerance table in `tests/tolerances.py`."""
    return _load(TESTS / "tolerances.py").TOLERANCES["float32"]


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Return `assert_close(received, expected, atol)` of `tests/tolerances.py`."""
    function: Callable[..., None] = _load(TESTS / "tolerances.py").assert_close
    return function


@pytest.fixture(scope="session")
def sampling_cases() -> ModuleType:
    """Return `tests/oracles/sampling_cases.py`: seeded images, grids and thetas."""
    return _load(TESTS / "oracles" / "sampling_cases.py")


@pytest.fixture(scope="session")
def torch_oracle(sampling_cases: ModuleType) -> ModuleType:
    """Return `tests/oracles/make_grid_sample_vectors.py`, or skip where torch is not installed."""
    pytest.importorskip("torch", reason="the stored vectors stand in for torch")
    return _load(TESTS / "oracles" / "make_grid_sample_vectors.py")


@pytest.fixture(scope="session")
def served_round_trip() -> Callable[[Path], None]:
    """Return `served_round_trip(bundle)`: serve it, and ask with Triton's own clients."""
    function: Callable[[Path], None] = _load(TESTS / "served_round_trip.py").served_round_trip
    return function
