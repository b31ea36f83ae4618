"""The command line as a user meets it: run in this process, or as a process of its own.

Most tests run a command in this process, because TensorFlow takes seconds to import. What only
a process shows (native log noise, a terminal, start-up, what is not installed) runs as one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from stnkit.models import pretrained

STAGES = (
    "starting TensorFlow",
    "loading ",
    "freezing the model",
    "running the model on the probes",
    "exporting to ",
    "comparing ",
    "classifying ",
    "publishing the bundle",
    "epoch ",
)
"""How the lines begin that tell of progress on stderr."""

# What a console script does, behind a hook that makes packages look as if they were not installed.
LAUNCHER = """
import sys
from importlib.machinery import PathFinder

missing = set(sys.argv.pop(1).split(",")) - {""}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in missing else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from stnkit.cli.main import main
sys.argv[0] = "stnkit"
main()
"""

Command = Callable[..., Result]


def tree(folder: Path) -> dict[str, str]:
    """Return what is in a folder: hash of every file, "folder" for every folder, by path."""
    return {
        str(path.relative_to(folder)): (
            "link"
            if path.is_symlink()
            else "folder"
            if path.is_dir()
            else hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(folder.rglob("*"))
    }


def check_refused(code: int, stdout: str, stderr: str, parts: Sequence[str]) -> str:
    """Assert that a command was refused as every command has to; return the one line."""
    lines = stderr.splitlines()
    assert code == 2, (code, stdout, stderr)
    assert stdout == ""
    assert lines, "nothing on stderr"
    assert lines[-1].startswith("error: "), stderr
    assert [line for line in lines[:-1] if not line.startswith(STAGES)] == []
    assert "Traceback" not in stderr
    assert "bug in stnkit" not in stderr
    for part in parts:
        assert part in lines[-1], f"{part!r} is not in: {lines[-1]}"
    return lines[-1]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def stnkit() -> Command:
    """Return `stnkit(*arguments)`: run a command in this process; nothing unforeseen may happen."""
    from stnkit.cli.main import group

    def run(*arguments: Any, code: int | None = 0) -> Result:
        result = CliRunner().invoke(group, [str(it) for it in arguments], prog_name="stnkit")
        shown = f"{arguments}: {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert result.exception is None or isinstance(result.exception, SystemExit), shown
        assert result.exit_code != 3, shown
        assert code is None or result.exit_code == code, shown
        return result

    return run


@pytest.fixture
def refused(stnkit: Command, scratch: Path) -> Callable[..., str]:
    """Return `refused(*arguments, says=[...])`: assert one clear line and an untouched folder."""

    def run(*arguments: Any, says: Sequence[str] = ()) -> str:
        before = tree(scratch)
        result = stnkit(*arguments, code=None)
        line = check_refused(result.exit_code, result.stdout, result.stderr, says)
        assert tree(scratch) == before, "something was left behind"
        return line

    return run


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return `process(*arguments, missing="package,package")`: run a command as a process."""
    script = Path(sys.executable).with_name("stnkit")

    def run(*arguments: Any, missing: str = "", **options: Any) -> Any:
        # A script does not have the working directory on its path: -P keeps it from here too.
        start = [sys.executable, "-P", "-c", LAUNCHER, missing] if missing else [script]
        command = [*start, *(str(it) for it in arguments)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "COV_"))}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, **options
        )

    return run


@pytest.fixture
def refused_process(process: Any, scratch: Path) -> Callable[..., str]:
    """Return `refused` for a command that runs as a process."""

    def run(*arguments: Any, says: Sequence[str] = (), **options: Any) -> str:
        before = tree(scratch)
        result = process(*arguments, **options)
        line = check_refused(result.returncode, result.stdout, result.stderr, says)
        assert tree(scratch) == before, "something was left behind"
        return line

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Path]:
    """Return `shared(name, make)`: a path that one of the test processes makes, for all."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / name).exists():
                draft = folder / f"{name}.draft"
                make(draft)
                draft.rename(folder / name)
        return folder / name

    return get


@pytest.fixture(scope="session")
def samples(shared: Any, stnkit: Command) -> Path:
    """Return a folder with the sample images of the shipped model; not to be written."""
    return shared("samples", lambda path: stnkit("samples", "digits", "-o", path))


@pytest.fixture(scope="session")
def digits_bundle(shared: Any, stnkit: Command) -> Path:
    """Return a bundle of the shipped model; not to be written."""
    return shared(
        "digits.bundle", lambda path: stnkit("convert", "digits", "-o", path, "--name", "digits")
    )


@pytest.fixture
def bundle(digits_bundle: Path, scratch: Path) -> Path:
    """Return a copy of the bundle, `digits.bundle` in the working directory, to be damaged."""
    target = scratch / "digits.bundle"
    shutil.copytree(digits_bundle, target)
    return Path(target.name)


@pytest.fixture
def digit(scratch: Path) -> Path:
    """Return a real digit, `digit.png` in the working directory."""
    Image.fromarray(pretrained.samples("digits").images[0, ..., 0]).save("digit.png")
    return Path("digit.png")


@pytest.fixture(scope="session")
def keras_file() -> Path:
    """Return the shipped model's `.keras` file; not to be written."""
    return pretrained.model_file("digits")
