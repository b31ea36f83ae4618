"""What is served and asked for: a bundle's model, one input of it, and the right answer."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cases import Array
from stnkit.runtime import Session, load
from stnkit.runtime.bundle import Bundle, open_bundle
from stnkit.runtime.timing.inputs import inputs_for

MODEL = "subject"
"""Its name in every server."""


@dataclass(frozen=True)
class Subject:
    """A model that is served.

    Attributes:
        bundle: Its folder.
        artifact: File name of the artifact that all servers run.
        batch: Items in one request.
        inputs: Of one request, by name.
        expected: What the artifact answers to them here, by name.
    """

    bundle: Path
    artifact: str
    batch: int
    inputs: Mapping[str, Array] = field(repr=False)
    expected: Mapping[str, Array] = field(repr=False)

    @property
    def file(self) -> Path:
        """The artifact's file."""
        return self.bundle / self.artifact

    @property
    def shapes(self) -> str:
        """Shapes of the inputs, as they are written in tables."""
        return ", ".join("x".join(map(str, value.shape)) for value in self.inputs.values())


def make_subject(folder: Path, batch: int, artifact: str = "onnx") -> Subject:
    """Return a bundle's model with the input and answer of a batch size.

    Args:
        folder: The bundle's.
        batch: Items in one request.
        artifact: File name or format.
    """
    opened: Bundle = open_bundle(folder)
    inputs = inputs_for(opened.manifest.signature, opened.golden(), batch).arrays
    with load(opened, artifact=artifact) as session:
        expected = {name: value.copy() for name, value in session.run(inputs).items()}
        file = session.artifact.file
    return Subject(folder.resolve(), file, batch, inputs, expected)


def digits_bundle(root: Path) -> Path:
    """Return the shipped digits model as a bundle, made where it is not there yet.

    Args:
        root: Folder for such bundles.
    """
    return _converted(root / "digits.bundle", "digits")


def mobilenet_bundle(root: Path) -> Path:
    """Return MobileNetV2 behind a transformer at 224 px as a bundle, made where it is not there.

    Args:
        root: Folder for such bundles.
    """
    file, folder = root / "mobilenet.keras", root / "mobilenet.bundle"
    if not folder.exists():
        # TensorFlow stays out of the process that measures.
        root.mkdir(parents=True, exist_ok=True)
        made = "from benchmarks.share_models import mobilenet; mobilenet().model.save({!r})"
        here = Path(__file__).resolve().parents[2]
        subprocess.run([sys.executable, "-c", made.format(str(file))], check=True, cwd=here)
    return _converted(folder, str(file))


def _converted(folder: Path, source: str) -> Path:
    if not folder.exists():
        print(f"converting {source} to {folder}", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "stnkit.cli", "convert", source, "--output", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@dataclass(frozen=True)
class Bare:
    """A way to run the session without a server.

    Attributes:
        threads: That share one run; None leaves it to the session.
        callers: Threads that call it at once, each on and on.
    """

    threads: int | None
    callers: int

    @property
    def name(self) -> str:
        """As in tables."""
        callers = "1 caller" if self.callers == 1 else f"{self.callers} callers"
        threads = "threads as it likes" if self.threads is None else f"{self.threads} threads"
        return f"bare session, {callers}, {threads}".replace(" 1 threads", " 1 thread")


BARE = (Bare(None, 1), Bare(1, 1), Bare(2, 1), Bare(1, 2), Bare(None, 2))
"""What the bare session's best is the best of."""


@dataclass(frozen=True)
class BareTime:
    """What one turn of a bare session gave.

    Attributes:
        runs_per_s: Runs of all callers together, a second.
        median_ms: Median time of one run.
    """

    runs_per_s: float
    median_ms: float


def open_bare(subject: Subject, way: Bare) -> Session:
    """Return a session that runs what the servers run.

    Args:
        subject: What they serve.
        way: How it is run.
    """
    session = load(subject.bundle, artifact=subject.artifact, threads=way.threads)
    for _ in range(3):
        session.run(subject.inputs)
    return session


def time_bare(session: Session, subject: Subject, way: Bare, duration_s: float) -> BareTime:
    """Run a session for a while.

    Args:
        session: From `open_bare`.
        subject: Whose inputs it is run on.
        way: How many callers there are.
        duration_s: How long.
    """
    times: list[list[int]] = [[] for _ in range(way.callers)]
    session.run(subject.inputs)
    started_ns = time.perf_counter_ns()
    until_ns = started_ns + int(duration_s * 1e9)

    def call(taken: list[int]) -> None:
        before = time.perf_counter_ns()
        while before < until_ns:
            session.run(subject.inputs)
            after = time.perf_counter_ns()
            taken.append(after - before)
            before = after

    callers = [threading.Thread(target=call, args=(taken,)) for taken in times[1:]]
    for caller in callers:
        caller.start()
    call(times[0])
    for caller in callers:
        caller.join()
    spent_s = (time.perf_counter_ns() - started_ns) / 1e9
    every = [taken for some in times for taken in some]
    return BareTime(len(every) / spent_s, statistics.median(every) / 1e6)
