"""What is raised where training data cannot be used."""

from __future__ import annotations


class DataError(ValueError):
    """The training data is missing, damaged or of another kind; the message says what to do."""
