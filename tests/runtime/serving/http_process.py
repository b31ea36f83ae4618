"""A server of HTTP alone as a process of its own, with any limits."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = """
import json, sys
from stnkit.runtime.serving import Limits, ModelOptions, ServerOptions, ServingCore, run_server
from stnkit.runtime.serving.options import parse_source
from stnkit.runtime.serving.request_log import set_up_logging

told = json.loads(sys.argv[1])
core = ServingCore(
    [parse_source(it) for it in told["bundles"]],
    ModelOptions(**{"device": "cpu", "threads": 1, "instances": 1, **told["options"]}),
    Limits(**told["limits"]),
    management_token=told["token"],
)
set_up_logging("text", told["log"])
options = {"http_port": 0, "grpc_port": None, "drain_ms": 0, "grace_s": 5, **told["server"]}
run_server(core, ServerOptions(**options), announce=lambda text: print(text, flush=True))
"""


class HttpProcess:
    """The process; `port` is where it listens."""

    def __init__(self, folder: Path, *bundles: str | Path, **told: Any) -> None:
        told = {"options": {}, "limits": {}, "server": {}, "token": None, "log": "error", **told}
        told["bundles"] = [str(it) for it in bundles]
        self._log = folder / "stderr.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", SCRIPT, json.dumps(told)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr()
        self.port = int(line.rpartition(":")[2])
        self.url = line.strip().partition("://")[2]

    def stderr(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def rss_bytes(self) -> int:
        """Return the memory in use; 0 where the system does not tell."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def end(self) -> None:
        """End it, and check that it ends well and has nothing to complain about."""
        try:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        assert self.process.returncode == 0, self.stderr()
        assert self.stderr() == ""


@contextlib.contextmanager
def serving(folder: Path, *bundles: str | Path, **told: Any) -> Iterator[HttpProcess]:
    """Run a server; at the end it has to have written nothing to stderr.

    Args:
        folder: for its log; made.
        bundles: as on the command line.
        told: `options`, `limits` and `server` as dicts of fields; `token`; `log`, the level.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = HttpProcess(folder, *bundles, **told)
    try:
        yield process
    except BaseException:
        process.process.kill()
        raise
    finally:
        if process.alive:
            process.end()
        else:
            process.process.wait()
            process.process.stdout.close()  # type: ignore[union-attr]
