"""Text from files and users that is shown to people: on pages, in logs, in assertions."""

from __future__ import annotations

__all__ = ["plain"]

_TEXT_MAX = 2000


def plain(text: str) -> str:
    """Return a text without what a browser, a terminal or a reader could take for something else.

    Control characters other than tab and line feed, marks that turn the direction of writing, and
    halves of surrogate pairs become U+FFFD; what is longer than 2,000 characters is cut.

    Args:
        text: from a file, or from a user.
    """
    shown = text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in shown)
