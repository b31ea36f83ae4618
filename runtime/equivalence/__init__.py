"""Is this model that model? Compare any two files, explain a difference, and report it.

The names below are imported when they are first used, so that importing this package is cheap: the
pytest plugin lies in it, and every test run loads that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stnkit.runtime.equivalence.annotations import summary_markdown, workflow_commands
    from stnkit.runtime.equivalence.asserting import assert_equivalent
    from stnkit.runtime.equivalence.engine import compare_models
    from stnkit.runtime.equivalence.html import write_html
    from stnkit.runtime.equivalence.junit import write_junit
    from stnkit.runtime.equivalence.options import CompareOptions
    from stnkit.runtime.equivalence.results import EquivalenceReport

__all__ = [
    "CompareOptions",
    "EquivalenceReport",
    "assert_equivalent",
    "compare_models",
    "summary_markdown",
    "workflow_commands",
    "write_html",
    "write_junit",
]

_HOMES = {
    "CompareOptions": "options",
    "EquivalenceReport": "results",
    "assert_equivalent": "asserting",
    "compare_models": "engine",
    "summary_markdown": "annotations",
    "workflow_commands": "annotations",
    "write_html": "html",
    "write_junit": "junit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
