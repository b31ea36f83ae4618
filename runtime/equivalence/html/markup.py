"""HTML that cannot be broken out of: every text is escaped unless it was made here.

Names of tensors and files are written by whoever wrote the model. A plain `str` is text, wherever
it is put; only `Markup`, which `element` returns, is taken as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from stnkit.runtime.equivalence.plain_text import plain

__all__ = ["Markup", "element", "fragment"]

_VOID = frozenset({"br", "col", "img", "meta"})


class Markup(str):
    """HTML that is escaped already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    Args:
        name: of the element, a constant.
        *children: `Markup` as it is, any other text escaped.
        **attributes: `class_` stands for class and `aria_label` for aria-label; None is left out.
    """
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{text}>")
    return Markup(f"<{name}{text}>{fragment(children)}</{name}>")


def fragment(children: Iterable[str]) -> Markup:
    """Return children one after the other, escaped where they are text."""
    return Markup("".join(_escaped(child) for child in children))


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(plain(text), quote=True)


def _number(value: str | float) -> str:
    # Two digits behind the point are a hundredth of a pixel, which no screen shows.
    return value if isinstance(value, str) else f"{round(value, 2):g}"
