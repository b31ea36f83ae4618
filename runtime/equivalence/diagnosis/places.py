"""Where the difference comes in, when no cause of it is known: shapes, layers, parts."""

from __future__ import annotations

from collections.abc import Iterator

from stnkit.runtime.equivalence.answers import partners
from stnkit.runtime.equivalence.diagnosis.case import Case, Claim
from stnkit.runtime.equivalence.results import NodeError

__all__ = ["place_claims", "shape_claims"]

_KINDS: dict[str, tuple[str, ...]] = {
    "weights": ("conv", "matmul", "gemm", "fully_connected", "dense", "biasadd", "batchnorm"),
    "activation": ("relu", "softmax", "sigmoid", "logistic", "tanh", "clip", "elu", "prelu"),
    "pooling": ("pool", "mean", "reduce"),
    "sampler": ("gather", "gridsample", "floor"),
    "shape": ("reshape", "transpose", "slice", "concat", "pad"),
}
_ADVICE = {
    "weights": "its weights or its settings are not the source's: export it again from the model "
    "that was trained",
    "activation": "its activation is not the source's",
    "pooling": "it pools otherwise: compare kind, window and padding",
    "sampler": "it reads other pixels",
    "shape": "it orders or cuts its values otherwise",
    "operation": "it computes something else",
}


def shape_claims(case: Case) -> Iterator[Claim]:
    """Yield what comparisons say that measured nothing: other shapes, NaN and infinity."""
    for item in case.comparisons:
        if item.reason is None:
            continue
        got = next((b for a, b in case.received if a.probe.name == item.case), None)
        value = None if got is None else {**got.outputs, **got.taps}.get(item.tensor)
        if value is None:
            continue
        if value.shape != item.shape:
            turned = sorted(value.shape[1:]) == sorted(item.shape[1:])
            yield Claim(
                "layout" if turned else "shape",
                f"{item.tensor!r} has shape {list(value.shape)} where the source has "
                f"{list(item.shape)}: "
                + ("its axes are swapped; transpose back" if turned else "compare its layers"),
                item.reason,
                0.9,
            )
        elif "not finite" in item.reason:
            driven = any(a.probe.thetas and a.probe.name == item.case for a, _ in case.received)
            yield Claim(
                "hostile_coordinates" if driven else "not_finite",
                f"{item.tensor!r} becomes NaN or infinite"
                + (
                    " where theta is extreme: clip coordinates by a comparison before they are used"
                    if driven
                    else ": look for a division by zero or an overflow before it"
                ),
                item.reason,
                0.8,
            )
        return


def place_claims(case: Case) -> Iterator[Claim]:
    """Yield the layer where the two part, or at least the part of the model."""
    first = None if case.bisection is None else case.bisection.first
    if first is not None:
        yield _at(first)
    for transformer, (theta, warped) in partners(case.reference.taps).items():
        wrong_theta = [i for i in case.failed("theta", driven=False) if i.tensor == theta.name]
        wrong_warp = [i for i in case.failed("warped", driven=True) if i.tensor == warped.name]
        if wrong_warp:
            worst = max(item.max_abs or 0.0 for item in wrong_warp)
            yield Claim(
                "sampler",
                f"the transformer {transformer!r} makes another image of the same theta: compare "
                "its sampler and grid, and what is done to the image before it",
                f"up to {worst:.1e} with thetas that were given",
                0.3,
            )
        elif wrong_theta:
            worst = max(item.max_abs or 0.0 for item in wrong_theta)
            given = bool(case.driven)
            yield Claim(
                "localization",
                f"the transformer {transformer!r} finds another theta"
                + (", but warps rightly by a given one" if given else "")
                + ": the difference is in its localisation network",
                f"theta is off by up to {worst:.1e}"
                + ("; warped images are right where theta is given" if given else ""),
                0.3,
            )
        else:
            continue
        return
    if case.failed("output") and not case.failed("theta") and not case.failed("warped"):
        names = ", ".join(
            repr(name) for name in dict.fromkeys(i.tensor for i in case.failed("output"))
        )
        yield Claim(
            "after_transformer" if case.binding.taps else "unknown",
            f"only {names} differ: look at the layers that lead there"
            + (" from the warped image" if case.binding.taps else ""),
            "every transformer is right" if case.binding.taps else "no taps were compared",
            0.2,
        )


def _at(node: NodeError) -> Claim:
    op = node.op.lower().replace("-", "")
    kind = next(
        (name for name, words in _KINDS.items() if any(word in op for word in words)), "operation"
    )
    where = f"the tensor {node.name!r}"
    if node.layer:
        names = [repr(name) for name in node.layer.split(", ")]
        where = f"the layer {names[0]}"
        if len(names) > 1:
            where = f"the layers {', '.join(names[:-1])} and {names[-1]}, computed as one"
    error = "" if node.max_abs is None else f", off by {node.max_abs:.1e}"
    scale = "" if node.scale is None else f" of {node.scale:.3g}"
    return Claim(
        kind,
        f"the two part at {where} (op {node.op}): {_ADVICE[kind]}",
        f"{node.name!r} is the first tensor that is wrong while its inputs are right{error}{scale}",
        0.6,
    )
