"""The pytest plugin: an option for the folder of reports, and the fixture `equivalence`.

It is loaded by every pytest run of whoever has stnkit installed: it imports nothing of stnkit
until the fixture is used, but for two light modules. PYTEST_DONT_REWRITE: pytest warns where a
plugin was imported before it could rewrite the assertions in it, and there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stnkit.runtime.equivalence.asserting import REPORT_FOLDER, assert_equivalent, report_folders

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.results import EquivalenceReport

__all__ = ["equivalence", "pytest_addoption", "pytest_configure", "pytest_unconfigure"]

_OPTION = "--stnkit-reports"
_KEY = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--stnkit-reports`."""
    parser.getgroup("stnkit").addoption(
        _OPTION,
        metavar="DIR",
        default=None,
        help="Folder for the HTML pages of models that differ, made when the first one does. "
        f"Default: {REPORT_FOLDER} in pytest's rootdir.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Remember where pages are written, in each process of pytest-xdist too."""
    chosen: str | None = config.getoption(_OPTION)
    # A worker's own folder can be another: what the user typed is relative to where they are.
    base = config.invocation_params.dir if chosen else config.rootpath
    folder = base / (chosen or REPORT_FOLDER)
    config.stash[_KEY] = folder
    report_folders.append(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Forget the folder: pytest can run within pytest."""
    folder = config.stash.get(_KEY, None)
    if folder in report_folders:
        report_folders.remove(folder)


@pytest.fixture
def equivalence(pytestconfig: pytest.Config) -> Callable[..., EquivalenceReport]:
    """Return `assert_equivalent`: `equivalence(reference, candidate, *more, **options)`."""

    def check(reference: Any, candidate: Any, *more: Any, **options: Any) -> EquivalenceReport:
        __tracebackhide__ = True
        folder = options.pop("report_dir", pytestconfig.stash[_KEY])
        return assert_equivalent(reference, candidate, *more, report_dir=folder, **options)

    return check
