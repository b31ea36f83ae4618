"""Environments for the other servers, each with its own packages, in a folder of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.peers.contender import UnavailableError

STAMP = "requirements.txt"


def cache_folder() -> Path:
    """Return where environments, models and tools are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stnkit-bench"


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime here, so that the other servers get the same.

    Raises:
        UnavailableError: There is none.
    """
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise UnavailableError("onnxruntime is not installed")


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        folder: Where it is.
        versions: Of the packages that were asked for, and of some that matter, by name.
    """

    folder: Path
    versions: dict[str, str]

    @property
    def bin(self) -> Path:
        """Folder of its programs."""
        return self.folder / "bin"


def environment(root: Path, name: str, requirements: Sequence[str]) -> Environment:
    """Return an environment with some packages, made where it is not there yet.

    Args:
        root: Folder of all environments.
        name: Of its own folder.
        requirements: What pip installs.

    Raises:
        UnavailableError: The packages cannot be installed here; says what pip said.
    """
    folder = root / name
    wanted = "\n".join(requirements) + "\n"
    stamp = folder / STAMP
    python = folder / "bin" / "python"
    if not (python.exists() and stamp.exists() and stamp.read_text("utf-8") == wanted):
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr, flush=True)
        root.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)], name)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", *requirements], name)
        stamp.write_text(wanted, "utf-8")
    return Environment(folder, _versions(python, requirements))


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        text = " ".join((said or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise UnavailableError(f"{name} cannot be installed: {text[:300]}")


def _versions(python: Path, requirements: Sequence[str]) -> dict[str, str]:
    listed = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {item["name"].lower(): item["version"] for item in json.loads(listed.stdout)}
    asked = [re.split(r"[^\w-]", it)[0].lower() for it in requirements]
    also = ["fastapi", "pydantic", "uvicorn", "uvloop", "numpy"]
    return {name: found[name] for name in dict.fromkeys([*asked, *also]) if name in found}
