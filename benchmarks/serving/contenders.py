"""The servers that are compared: `stnkit serve`, MLServer and PyTriton, and how each is set.

All run the same ONNX file with the same version of ONNX Runtime, and no thread of it spins while it
waits: see `benchmarks/waiting.py`. The others' sessions have the number of threads with which the
session was fastest alone. They are measured with several settings, and what stnkit is compared with
is the best of them:

- MLServer in one process (`parallel_workers: 0`); with one worker process, its default; with
  adaptive batching; and with its inputs as base64 in place of numbers in JSON. It does not know the
  binary tensor extension, so it gets JSON. Its compression and debugging output are off.
- PyTriton with dynamic batching, its default, and without. It gets binary tensors. Its processes
  need Python's own library (`libpython3.so`): they find it through `LD_LIBRARY_PATH`.
"""

from __future__ import annotations

import base64
import json
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Array
from benchmarks.serving.environments import Environment, environment, onnxruntime_version
from benchmarks.serving.processes import HOST, Command, free_ports
from benchmarks.serving.subject import MODEL, Subject
from stnkit.runtime.timing.load import infer_request, post_request

SCRIPTS = Path(__file__).parent / "peer_scripts"
STNKIT, MLSERVER, PYTRITON = "stnkit", "MLServer", "PyTriton"
BATCH_MOST = 32


@dataclass(frozen=True)
class Contender:
    """A server with its settings.

    Attributes:
        server: `STNKIT`, `MLSERVER` or `PYTRITON`.
        setting: What is special about this one, as in tables.
        command: How it is started, from what it serves and a folder for its files.
        request: The bytes that ask it.
        versions: Of its packages, by name.
    """

    server: str
    setting: str
    command: Callable[[Subject, Path], Command]
    request: Callable[[Subject], bytes]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As in tables."""
        return f"{self.server}, {self.setting}" if self.setting else self.server


def _binary(subject: Subject) -> bytes:
    return infer_request(MODEL, subject.inputs)


def _json(subject: Subject) -> bytes:
    return infer_request(MODEL, subject.inputs, binary=False)


def _base64(subject: Subject) -> bytes:
    inputs = [_base64_input(name, value) for name, value in subject.inputs.items()]
    body = json.dumps({"inputs": inputs}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    return post_request(f"/v2/models/{MODEL}/infer", body, headers=headers)


def _base64_input(name: str, value: Array) -> dict[str, Any]:
    text = base64.b64encode(np.ascontiguousarray(value)).decode("ascii")
    described = {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}
    return {**described, "parameters": {"content_type": "base64"}}


def stnkit_command(subject: Subject, *options: str, artifact: bool = True) -> Command:
    """Return how `stnkit serve` is started.

    Args:
        subject: What it serves.
        options: Further ones of its command line.
        artifact: Whether it has to run the subject's artifact; else it chooses.
    """
    http_port, grpc_port = free_ports(2)
    argv = [sys.executable, "-m", "stnkit.cli", "serve", f"{MODEL}={subject.bundle}"]
    argv += ["--host", HOST, "--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    if artifact:
        argv += ["--artifact", subject.artifact]
    if subject.batch > 1 and "--max-batch" not in options:
        argv += ["--max-batch", str(subject.batch)]  # at its own default large ones are refused
    return Command([*argv, *options], "/v2/health/ready", http_port)


def stnkit_contenders(options: tuple[str, ...] = ()) -> list[Contender]:
    """Return `stnkit serve`, asked in binary and in JSON.

    Args:
        options: Further ones of its command line.
    """

    def command(subject: Subject, folder: Path) -> Command:
        return stnkit_command(subject, *options)

    return [
        Contender(STNKIT, "", command, _binary),
        Contender(STNKIT, "JSON", command, _json),
    ]


def mlserver_contenders(root: Path, threads: int) -> list[Contender]:
    """Return MLServer with each setting.

    Args:
        root: Folder of all environments.
        threads: That share one run.

    Raises:
        UnavailableError: It cannot be installed.
    """
    ort = f"onnxruntime=={onnxruntime_version()}"
    # Under uvloop 0.22 and later a worker of MLServer 1.7 ends with "no current event loop".
    made = environment(root, "mlserver", ["mlserver==1.7.*", "uvloop<0.22", ort])
    batching = {"max_batch_size": BATCH_MOST, "max_batch_time": 0.001}
    settings: list[tuple[str, int, dict[str, Any], Callable[[Subject], bytes]]] = [
        ("in one process", 0, {}, _json),
        ("in one process, batching", 0, batching, _json),
        ("one worker", 1, {}, _json),
        ("in one process, base64", 0, {}, _base64),
    ]
    return [
        Contender(MLSERVER, name, _mlserver(made, workers, model, threads), request, made.versions)
        for name, workers, model, request in settings
    ]


def _mlserver(
    made: Environment, workers: int, model: Mapping[str, Any], threads: int
) -> Callable[[Subject, Path], Command]:
    def command(subject: Subject, folder: Path) -> Command:
        http_port, grpc_port, metrics_port = free_ports(3)
        folder.mkdir(parents=True, exist_ok=True)
        server = {
            "host": HOST,
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            "parallel_workers": workers,
            "debug": False,
            "gzip_enabled": False,
        }
        described = {
            "name": MODEL,
            "implementation": "mlserver_model.OnnxModel",
            "parameters": {"uri": str(subject.file), "extra": {"threads": threads}},
            **model,
        }
        (folder / "settings.json").write_text(json.dumps(server), "utf-8")
        (folder / "model-settings.json").write_text(json.dumps(described), "utf-8")
        return Command(
            [str(made.bin / "mlserver"), "start", "."],
            f"/v2/models/{MODEL}/ready",
            http_port,
            {"PYTHONPATH": str(SCRIPTS)},
            folder,
        )

    return command


def pytriton_contenders(root: Path, threads: int) -> list[Contender]:
    """Return PyTriton with each setting.

    Args:
        root: Folder of all environments.
        threads: That share one run.

    Raises:
        UnavailableError: It cannot be installed.
    """
    ort = f"onnxruntime=={onnxruntime_version()}"
    made = environment(root, "pytriton", ["nvidia-pytriton==0.7.*", ort])
    settings: list[tuple[str, dict[str, Any]]] = [
        ("batching", {"batching": True, "max_batch": BATCH_MOST, "delay_us": 0}),
        ("no batching", {"batching": False, "max_batch": 1, "delay_us": 0}),
    ]
    return [
        Contender(
            PYTRITON, name, _pytriton(made, {**chosen, "threads": threads}), _binary, made.versions
        )
        for name, chosen in settings
    ]


def _pytriton(made: Environment, chosen: Mapping[str, Any]) -> Callable[[Subject, Path], Command]:
    def command(subject: Subject, folder: Path) -> Command:
        http_port, grpc_port, metrics_port = free_ports(3)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "onnx": str(subject.file),
            "model": MODEL,
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            **chosen,
        }
        script = str(SCRIPTS / "pytriton_server.py")
        return Command(
            [str(made.bin / "python"), script, json.dumps(settings)],
            f"/v2/models/{MODEL}/ready",
            http_port,
            {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
            folder,
        )

    return command


PEERS: Mapping[str, Callable[[Path, int], list[Contender]]] = {
    MLSERVER: mlserver_contenders,
    PYTRITON: pytriton_contenders,
}
