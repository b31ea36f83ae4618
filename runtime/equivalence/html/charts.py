"""Charts as inline SVG: error histograms and the error curve over the layers."""

from __future__ import annotations

import math

from stnkit.runtime.equivalence.html.markup import Markup, element
from stnkit.runtime.equivalence.results import Bisection, NodeError
from stnkit.runtime.equivalence.summary import TensorSummary, error_text

__all__ = ["error_curve", "error_histogram"]


def error_histogram(summary: TensorSummary, label: str) -> Markup:
    """Draw how many elements differ by how much.

    The height is the logarithm of the count, so that a single element among a million shows.

    Args:
        summary: of a tensor of which a probe at least was measured. Bars beyond what is allowed
            are marked; the line stands at the least that a probe allows.
        label: what is shown, for those who cannot see it.
    """
    counts, equal, over = dict(summary.histogram), summary.equal, summary.decades_over
    limits = [item.tolerance.atol for item in summary.comparisons]
    allowed = min(limits)
    more = " or more" if max(limits) > 1.1 * allowed else ""
    shown = [*counts] or [-8, -4]
    mark = math.log10(allowed) if allowed > 0 else None
    if mark is not None:
        # A tolerance far from every difference would squeeze the bars.
        mark = min(max(mark, min(shown) - 3.0), max(shown) + 4.0)
        shown.append(math.ceil(mark) - 1)
    first, last = min(shown), max(shown)
    width, height, left, top, bottom = 360.0, 180.0, 16.0, 40.0, 34.0
    # Half a slot of air parts the bar of what is equal, which has no place on the axis.
    step = (width - 2 * left) / (last - first + 2.5)
    plot = height - top - bottom
    tallest = math.log10(1 + max([equal, *counts.values(), 1]))

    def bar(slot: float, count: int, kind: str, name: str) -> list[Markup]:
        tall = plot * math.log10(1 + count) / tallest
        x, y = left + slot * step, top + plot - tall
        box = element(
            "rect",
            element("title", f"{name}: {count:,} elements"),
            x=x + step * 0.08,
            y=y,
            width=step * 0.84,
            height=tall,
            rx=2,
            class_=f"bar {kind}".rstrip(),
        )
        if not count:
            return []
        text = element(
            "text", _short(count), x=x + step / 2, y=y - 4, text_anchor="middle", class_="count"
        )
        return [box, text]

    parts = bar(0, equal, "equal", "equal")
    for decade, count in counts.items():
        kind = "over" if decade in over else ""
        parts += bar(decade - first + 1.5, count, kind, f"1e{decade} to 1e{decade + 1}")
    base = top + plot
    zero = left + 1.5 * step
    axis = f"M{left} {base}h{step:.2f}M{zero:.2f} {base}H{width - left}"
    parts.append(element("path", d=axis, class_="axis"))
    parts.append(_label(left + step / 2, base + 15, "equal"))
    every = max(1, math.ceil(34 / step))
    for edge in range(first, last + 2):
        if (edge - first) % every == 0:
            parts.append(_label(left + (edge - first + 1.5) * step, base + 15, f"1e{edge}"))
    parts.append(_label(width / 2, height - 4, "absolute difference"))
    if mark is not None:
        x = left + (mark - first + 1.5) * step
        anchor = "end" if x > width / 2 else "start"
        parts.append(element("path", d=f"M{x:.2f} {top - 17}V{base}", class_="limit"))
        parts.append(
            element(
                "text",
                f"allowed {error_text(allowed)}{more}",
                x=x - 5 if anchor == "end" else x + 5,
                y=top - 22,
                text_anchor=anchor,
                class_="strong",
            )
        )
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def error_curve(bisection: Bisection, label: str) -> Markup:
    """Draw the relative error of every tensor inside, in the order of computation.

    Tensors without any error lie on the lowest line. The first that is wrong is a diamond.

    Args:
        bisection: with at least one tensor whose relative error is known.
        label: what is shown, for those who cannot see it.
    """
    known = [(i, node, node.relative) for i, node in enumerate(bisection.curve)]
    errors = [(i, node, error) for i, node, error in known if error is not None]
    decades = [math.log10(error) for _, _, error in errors if error > 0]
    low = math.floor(min(decades, default=-8.0)) - 1
    high = max(math.ceil(max(decades, default=-7.0)), low + 2)
    width, height, left, right, top, bottom = 1060.0, 300.0, 56.0, 16.0, 40.0, 36.0
    across = (width - left - right) / max(len(bisection.curve) - 1, 1)
    tall = (height - top - bottom) / (high - low)

    def place(index: int, error: float) -> tuple[float, float]:
        decade = math.log10(error) if error > 0 else low
        return left + index * across, top + (high - decade) * tall

    parts = []
    every = max(1, math.ceil(20 / tall))
    for decade in range(low, high + 1, every):
        y = top + (high - decade) * tall
        parts.append(element("path", d=f"M{left} {y:.2f}H{width - right}", class_="grid"))
        name = "equal" if decade == low else f"1e{decade}"
        parts.append(element("text", name, x=left - 8, y=y + 4, text_anchor="end", class_="count"))
    points = [place(i, error) for i, _, error in errors]
    line = " ".join(f"{'M' if k == 0 else 'L'}{x:.2f} {y:.2f}" for k, (x, y) in enumerate(points))
    parts.append(element("path", d=Markup(line), class_="line"))
    first = bisection.first
    radius = 3.5 if len(points) <= 120 else 2.0
    for (x, y), (index, node, error) in zip(points, errors, strict=True):
        title = element("title", _hover(index, node, error))
        if first is not None and node.name == first.name:
            parts.append(element("path", d=f"M{x:.2f} {top - 6}V{height - bottom}", class_="drop"))
            shape = f"M{x:.2f} {y - 8:.2f}l8 8l-8 8l-8 -8Z"
            parts.append(element("path", title, d=shape, class_="point first"))
            anchor = "end" if x > width / 2 else "start"
            parts.append(
                element(
                    "text",
                    f"first wrong: {_cut(node.name, 48)}",
                    x=x - 6 if anchor == "end" else x + 6,
                    y=top - 10,
                    text_anchor=anchor,
                    class_="alarm",
                )
            )
        else:
            parts.append(element("circle", title, cx=x, cy=y, r=radius, class_="point"))
    parts.append(_label((left + width - right) / 2, height - 8, "tensors, input to output"))
    parts.append(element("text", "relative error", x=12, y=18))
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def _hover(index: int, node: NodeError, error: float) -> str:
    layer = f", layer {_cut(node.layer, 80)}" if node.layer else ""
    return (
        f"{index + 1}. {_cut(node.name, 120)} ({_cut(node.op, 40)}{layer}): relative error "
        f"{error_text(error)}, absolute {error_text(node.max_abs)}"
    )


def _label(x: float, y: float, text: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor="middle")


def _cut(text: str, count: int) -> str:
    """Shorten in the middle: the ends of a tensor's name tell the most."""
    if len(text) <= count:
        return text
    half = (count - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _short(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
