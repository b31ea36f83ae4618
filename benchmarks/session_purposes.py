"""Which threads, and which waiting, suit a session for one request, for many, or for neither?

Run: python benchmarks/session_purposes.py digits.bundle photos.bundle --json purposes.json

Every artifact is opened in several settings, among them those of `load(..., purpose=...)`, and each
does four kinds of work in turns, in an order drawn anew for every round:

- alone: one caller, one run after the other.
- paced: one caller, twenty runs a second. Threads that spin are at work between them.
- many: two callers for each core.
- beside: one caller, while a process for each core computes something else.

Runs have a batch of one and write to arrays that are there already. A turn's time is the median of
its runs; quoted are quartiles over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.report import record
from stnkit.runtime import Session, open_bundle
from stnkit.runtime.bundle import Bundle
from stnkit.runtime.choice import choose
from stnkit.runtime.purposes import PURPOSES, RunSettings, settings_for, usable_cores
from stnkit.runtime.timing import Quartiles
from stnkit.runtime.timing.inputs import inputs_for
from stnkit.runtime.timing.machine import this_machine

TURN_S = 0.4
SETTLE_S = 0.05
PACE_S = 0.05
WORKS = ("alone", "paced", "many", "beside")


@dataclass(frozen=True)
class Turn:
    """What one setting did in one turn.

    Attributes:
        run_ms: Median time of a run.
        runs_a_second: Runs that ended in a second, of all callers.
        cores_busy: Processor time of this process over the turn's.
    """

    run_ms: float
    runs_a_second: float
    cores_busy: float


@dataclass(frozen=True)
class Row:
    """One setting at one kind of work."""

    model: str
    artifact: str
    setting: str
    purposes: tuple[str, ...]
    work: str
    run_ms: Quartiles
    runs_a_second: Quartiles
    cores_busy: Quartiles


def settings_of(backend: str) -> dict[str, RunSettings]:
    """Return the settings that are compared, by name."""
    cores = usable_cores()
    found = {
        "default threads": RunSettings(),
        "1 thread": RunSettings(threads=1),
        f"{cores} threads": RunSettings(threads=cores),
    }
    if backend == "onnxruntime":
        found["default threads, spinning"] = RunSettings(spinning=True)
        found[f"{cores} threads, spinning"] = RunSettings(threads=cores, spinning=True)
    else:
        found[f"1 thread, {cores} instances"] = RunSettings(threads=1, instances=cores)
    return found


def purposes_of(settings: RunSettings, backend: str) -> tuple[str, ...]:
    """Return the purposes for which `load` takes these settings."""

    def essence(one: RunSettings) -> tuple[object, ...]:
        # What the backend ignores tells nothing apart.
        litert = backend == "litert"
        return one.threads, not litert and one.spinning, one.instances if litert else 1

    return tuple(
        name for name in PURPOSES if essence(settings_for(name, None)) == essence(settings)
    )


def runs_of(bundle: Bundle, session: Session) -> Callable[[], Callable[[], object]]:
    """Return what makes a function that runs a batch of one, with arrays of its own."""
    inputs = inputs_for(session.signature, bundle.golden(), 1).arrays
    shapes = session.run(inputs)

    def of_one_caller() -> Callable[[], object]:
        own = {name: value.copy() for name, value in inputs.items()}
        out = {name: np.empty_like(value) for name, value in shapes.items()}
        return lambda: session.run(own, out=out)

    return of_one_caller


@contextmanager
def others_at_work() -> Iterator[None]:
    """Keep every core busy with a process of its own."""
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores())
    ]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def turn(make_run: Callable[[], Callable[[], object]], work: str) -> Turn:
    """Do one kind of work for a while."""
    callers = 2 * usable_cores() if work == "many" else 1
    taken: list[list[float]] = [[] for _ in range(callers)]
    started = threading.Barrier(callers + 1)

    def call(own: list[float]) -> None:
        run = make_run()
        run()
        started.wait()
        end = time.perf_counter() + TURN_S
        while (before := time.perf_counter()) < end:
            run()
            own.append((time.perf_counter() - before) * 1000)
            if work == "paced":
                time.sleep(max(0.0, before + PACE_S - time.perf_counter()))

    threads = [threading.Thread(target=call, args=(own,)) for own in taken]
    with others_at_work() if work == "beside" else nullcontext():
        for thread in threads:
            thread.start()
        started.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.join()
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    runs = [one for own in taken for one in own]
    return Turn(statistics.median(runs), len(runs) / wall_s, cpu_s / wall_s)


def measure(bundle: Bundle, rounds: int, works: Sequence[str] = WORKS) -> list[Row]:
    """Return a row for every artifact, setting and kind of work of a bundle."""
    shuffle = Random(0).shuffle
    rows = []
    for artifact in bundle.manifest.artifacts:
        choice = choose(bundle, "cpu", "auto", artifact.file)
        settings = settings_of(choice.backend.name)
        turns: dict[tuple[str, str], list[Turn]] = {}
        with ExitStack() as stack:
            runs = {}
            for name, one in settings.items():
                session = stack.enter_context(Session(bundle, choice, one))
                runs[name] = runs_of(bundle, session)
            pairs = [(name, work) for name in settings for work in works]
            for _ in range(rounds):
                shuffle(pairs)
                for name, work in pairs:
                    time.sleep(SETTLE_S)
                    turns.setdefault((name, work), []).append(turn(runs[name], work))
        rows += [
            Row(
                model=bundle.manifest.name,
                artifact=artifact.file,
                setting=name,
                purposes=purposes_of(settings[name], choice.backend.name),
                work=work,
                run_ms=Quartiles.of([it.run_ms for it in turns[name, work]]),
                runs_a_second=Quartiles.of([it.runs_a_second for it in turns[name, work]]),
                cores_busy=Quartiles.of([it.cores_busy for it in turns[name, work]]),
            )
            for work in works
            for name in settings
        ]
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text."""
    lines = []
    for row in rows:
        purposes = f" ({', '.join(row.purposes)})" if row.purposes else ""
        lines.append(
            f"{row.model}  {row.artifact:18}  {row.work:7}{row.setting + purposes:44}"
            f"{_spread(row.run_ms, 3):>26} ms{_spread(row.runs_a_second, 0):>20} runs/s"
            f"{row.cores_busy.median:6.2f} cores"
        )
    return "\n".join(lines)


def figure(value: float) -> str:
    """Return a number with three digits that count, as the documentation has it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the documentation's table: a line for each model, artifact and purpose."""
    cells = {(row.model, row.artifact, row.setting, row.work): row for row in rows}
    heading = ["model, artifact", "purpose: setting", "alone, ms", "paced, ms", "cores busy then"]
    heading += ["many, runs/s", "beside, runs/s"]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for row in rows:
        if row.work != "alone" or not row.purposes:
            continue
        key = (row.model, row.artifact, row.setting)
        paced, many, beside = (cells[(*key, work)] for work in ("paced", "many", "beside"))
        values = [
            *(f"{row.model}, {row.artifact}", f"{', '.join(row.purposes)}: {row.setting}"),
            *(figure(row.run_ms.median), figure(paced.run_ms.median)),
            *(f"{paced.cores_busy.median:.2f}", figure(many.runs_a_second.median)),
            # The median of short runs does not show those that another process interrupted.
            figure(beside.runs_a_second.median),
        ]
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines)


def _spread(values: Quartiles, digits: int) -> str:
    return f"{values.median:.{digits}f} ({values.q1:.{digits}f}-{values.q3:.{digits}f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure bundles and print a table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error("--rounds is 1 or more")
    load_average = this_machine().load_average  # before the load is of our making
    rows: list[Row] = []
    for path in given.bundles:
        some = measure(open_bundle(path), given.rounds)
        print(format_table(some), end="\n\n", flush=True)
        rows += some
    print(markdown(rows))
    settings = {"rounds": given.rounds, "turn_s": TURN_S, "usable_cores": usable_cores()}
    written = record([], **settings, load_average_before=load_average)
    written["results"] = [asdict(row) for row in rows]
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(written, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
