"""Do faithful conversions pass? Every network of the zoo, many seeds, every way to run a file.

Run: python benchmarks/false_alarms.py --seeds 20 --output benchmarks/results/false_alarms.json
With --network, only that network is measured again and the others in the output stay.

Each network is converted once, with weights that move its thetas. For each seed of the probes both
files are compared with the Keras model on 1 and 2 threads, with the graph optimisations of ONNX
Runtime and the kernels of XNNPACK, and without: eight comparisons with the same answers. Every
difference found is a false alarm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stnkit.convert import convert, source_from_keras
from stnkit.convert.keras_subject import KerasSubject
from stnkit.models.zoo import make
from stnkit.runtime.equivalence.engine import compare_subjects
from stnkit.runtime.equivalence.opening import open_subjects
from stnkit.runtime.equivalence.options import CompareOptions

NETWORKS: dict[str, Callable[[], Any]] = {
    "tutorial": lambda: make("tutorial"),
    "digits": lambda: make("digits"),
    "paper-fcn": lambda: make("paper-fcn"),
    "paper-cnn": lambda: make("paper-cnn"),
    "paper-st-fcn, projective": lambda: make("paper-st-fcn", transform="projective"),
    "paper-st-cnn": lambda: make("paper-st-cnn"),
    "paper-st-cnn, spline": lambda: make("paper-st-cnn", transform="thin_plate_spline"),
    "backbone, 64 px": lambda: make("backbone", input_shape=(64, 64, 3)),
    "backbone, 64 px, 2 stages": lambda: make("backbone", input_shape=(64, 64, 3), transformers=2),
    "parallel, 64 px": lambda: make("parallel", input_shape=(64, 64, 3), output_size=(32, 32)),
    "segmentation": lambda: make("segmentation"),
    "registration, diffeomorphic": lambda: make("registration", input_shape=(32, 32, 1)),
    "registration, dense": lambda: make("registration", input_shape=(32, 32, 1), flow="dense"),
    "vgg16, 32 px": lambda: make("vgg16", input_shape=(32, 32, 3)),
}


def stir(model: Any, seed: int) -> Any:
    """Move thetas away from the identity, and normalisations away from their start."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        path = variable.path
        if "theta" in path or "field" in path:
            variable.assign_add(rng.normal(0, 0.05, variable.shape))
        elif "gamma" in path or "variance" in path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "moving_mean" in path or "beta" in path or "bias" in path:
            variable.assign_add(rng.normal(0, 0.1, variable.shape))
    return model


@contextmanager
def without_optimisations() -> Iterator[None]:
    """Open files with the plain kernels of both runtimes."""
    import onnxruntime as ort
    from ai_edge_litert.interpreter import OpResolverType

    from stnkit.runtime.backends import litert

    session, interpreter = ort.InferenceSession, litert.Interpreter

    def plain_session(model: bytes, sess_options: Any, **options: Any) -> Any:
        sess_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return session(model, sess_options=sess_options, **options)

    def plain_interpreter(**options: Any) -> Any:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return interpreter(**options, experimental_op_resolver_type=plain)

    ort.InferenceSession, litert.Interpreter = plain_session, plain_interpreter
    try:
        yield
    finally:
        ort.InferenceSession, litert.Interpreter = session, interpreter


def made_plain(file: Any) -> Any:
    """Let a file always run with the plain kernels; its name says so."""

    def plainly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            with without_optimisations():
                return call(*args, **options)

        return wrapped

    file.run, file.fetch = plainly(file.run), plainly(file.fetch)
    file.name += ", plain kernels"
    return file


def opened(bundle: Path) -> list[Any]:
    """Return the files of a bundle, each in every way to run it."""
    found = []
    for plain in (False, True):
        for threads in (1, 2):
            for file in open_subjects(bundle, threads=threads):
                file.name += f", threads: {threads}"
                found.append(made_plain(file) if plain else file)
    return found


def alarms_of(name: str, seeds: int, folder: Path) -> dict[str, Any]:
    """Return how many comparisons of a network there were, and which failed."""
    keras.utils.set_random_seed(1)
    source = source_from_keras(stir(NETWORKS[name](), 7))
    bundle = folder / name.replace(" ", "_").replace(",", "")
    convert(source, bundle)
    reference = KerasSubject(name, source)
    files = opened(bundle)
    failed: list[str] = []
    closest = 0.0
    count = 0
    for seed in range(seeds):
        report = compare_subjects(reference, files, CompareOptions(seed=seed))
        for candidate in report.candidates:
            count += 1
            for item in candidate.proof.comparisons:
                if item.required is not None and item.tolerance.atol:
                    closest = max(closest, item.required / item.tolerance.atol)
            if not candidate.passed:
                worst = candidate.proof.failures[0].describe()
                failed.append(f"seed {seed}, {candidate.proof.file}: {worst}")
    for file in files:
        file.close()
    return {
        "comparisons": count,
        "false_alarms": failed,
        "closest_to_the_budget": round(closest, 4),
    }


def kept(output: Path | None, seeds: int) -> tuple[dict[str, Any], int]:
    """Return the networks that an earlier run wrote with as many seeds, and its seconds."""
    if output is None or not output.exists():
        return {}, 0
    record = json.loads(output.read_text("utf-8"))
    if record["seeds"] != seeds:
        raise SystemExit(f"{output} holds {record['seeds']} seeds, not {seeds}: write another file")
    return record["networks"], record["seconds"]


def main() -> None:
    """Measure all networks, print a line for each, and write the result with its provenance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    started = time.monotonic()
    found, before = kept(given.output, given.seeds) if given.network else ({}, 0)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.network or NETWORKS:
            found[name] = alarms_of(name, given.seeds, Path(folder))
            print(name, json.dumps(found[name]), flush=True)
            if given.output:
                record = {
                    "seeds": given.seeds,
                    "networks": found,
                    "versions": {
                        package: version(package)
                        for package in ("stnkit", "tensorflow", "keras", "ai-edge-litert", "numpy")
                    },
                    "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
                    "seconds": before + round(time.monotonic() - started),
                }
                given.output.parent.mkdir(parents=True, exist_ok=True)
                given.output.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
