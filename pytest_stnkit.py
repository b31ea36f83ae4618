"""The pytest plugin of stnkit, as pytest finds it: a module at the top of the wheel.

pytest rewrites the assertions of all that a plugin's distribution holds. Where that has nothing at
the top, as a namespace package has not, pytest looks one folder deeper: it would rewrite packages
called `cli`, `convert`, `models` and `runtime`, which are the user's own, and warn of each that was
imported before. PYTEST_DONT_REWRITE: there are no assertions here.
"""

from stnkit.runtime.equivalence.pytest_plugin import (
    equivalence,
    pytest_addoption,
    pytest_configure,
    pytest_unconfigure,
)

__all__ = ["equivalence", "pytest_addoption", "pytest_configure", "pytest_unconfigure"]
