"""Bundles to serve, and cores that serve them."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stnkit.runtime.serving import BundleSource, Limits, ModelOptions, ServingCore


def _made_once(factory: pytest.TempPathFactory, name: str, *command: Any) -> Path:
    """Return a path that one of the test processes makes, for all.

    Args:
        factory: pytest's.
        name: name of the path.
        command: Python's arguments; the path to write is added. A process of its own: these tests
            go without TensorFlow.
    """
    folder = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    path, draft = folder / name, folder / f"{name}.draft"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            arguments = [sys.executable, *map(str, command), str(draft)]
            made = subprocess.run(arguments, check=False, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            draft.rename(path)
    return path


@pytest.fixture(scope="session")
def digits_served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of the shipped digits model, in both formats; not to be written.

    The tests of the command line make the same one, at the same place.
    """
    command = ["-P", "-m", "stnkit.cli", "convert", "digits", "--name", "digits", "-o"]
    return _made_once(tmp_path_factory, "digits.bundle", *command)


@pytest.fixture(scope="session")
def zoo_served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `pair.bundle`, `any-size.bundle` and `threes.bundle`; not to be written.

    Two inputs and two outputs; images of any size; digits in batches of exactly three.
    """
    script = Path(__file__).with_name("make_bundles.py")
    return _made_once(tmp_path_factory, "zoo_served", "-P", script)


@pytest.fixture
def core_served() -> Iterator[Callable[..., ServingCore]]:
    """Return `core_served(*bundles, limits=…, token=…, **model_options)`: an opened core."""
    opened: list[ServingCore] = []

    def make(
        *bundles: Path | BundleSource,
        limits: Limits | None = None,
        token: str | None = None,
        **options: Any,
    ) -> ServingCore:
        sources = [it if isinstance(it, BundleSource) else BundleSource(it) for it in bundles]
        # One thread and one instance: nothing to try out, and the machine is shared.
        options = {"threads": 1, "instances": 1, **options}
        core = ServingCore(sources, ModelOptions(**options), limits, management_token=token)
        core.open()
        opened.append(core)
        return core

    yield make
    for core in opened:
        core.close(10)


def _load(path: Path) -> ModuleType:
    """Load a helper by its path, once: test modules cannot import one another."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


# Test modules import it by this name: what takes it is made in the middle of their own functions.
_load(Path(__file__).with_name("kept_transport.py"))


@pytest.fixture(scope="session")
def helpers_served() -> ModuleType:
    """Return `served_process.py`."""
    return _load(Path(__file__).with_name("served_process.py"))


@pytest.fixture
def process_served(helpers_served: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return `process_served(*arguments)`: `stnkit serve` as a process, up and with its ports."""
    with helpers_served.processes(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def raw_http() -> ModuleType:
    """Return `raw_http.py`: HTTP as bytes on a socket."""
    return _load(Path(__file__).with_name("raw_http.py"))


@pytest.fixture(scope="session")
def http_mutations(raw_http: ModuleType) -> ModuleType:
    """Return `http_mutations.py`: requests that are not what they should be."""
    return _load(Path(__file__).with_name("http_mutations.py"))


@pytest.fixture(scope="session")
def toy_served(maker: Any, onnx_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of the toy model, ONNX alone; not to be written."""
    return maker.write(tmp_path_factory.mktemp("served") / "toy.bundle", [onnx_model])


@pytest.fixture(scope="module")
def http_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Return `http_process(*bundles, limits=…, …)`: a server of HTTP as a process, for a module."""
    module = _load(Path(__file__).with_name("http_process.py"))
    with contextlib.ExitStack() as stack:
        yield lambda *bundles, **told: stack.enter_context(
            module.serving(tmp_path_factory.mktemp("server"), *bundles, **told)
        )
