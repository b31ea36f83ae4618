"""Where a theta comes from, and who reads it: the sampler alone, or other parts too."""

from __future__ import annotations

from stnkit.runtime.equivalence.subject import Subject, Tap

__all__ = ["input_of", "is_read_elsewhere"]


def input_of(subject: Subject, theta: Tap) -> str | None:
    """Return the input that a theta is; None for one that the model computes."""
    start = _unmarked(subject, theta)
    names = (spec.name for spec in subject.inputs)
    return next((name for name in names if subject.node_of("input", name) == start), None)


def _unmarked(subject: Subject, theta: Tap) -> str | None:
    """Return the tensor that holds theta. A mark is an identity of its own in front of it."""
    nodes = {node.name: node for node in subject.nodes()}
    start = subject.node_of("tap", theta.name)
    while start in nodes and nodes[start].op == "Identity":
        start = nodes[start].inputs[0]
    return start


def is_read_elsewhere(subject: Subject, theta: Tap, warped: Tap) -> bool:
    """Return whether a theta reaches an output or another transformer other than by its own image.

    So it does where a result is pasted back by the inverse of theta, where thetas of several stages
    are composed, or where theta is an output.

    Args:
        subject: the model.
        theta: the theta.
        warped: the image that its transformer makes.

    Returns:
        True as well where the model does not show what is inside.
    """
    nodes = {node.name: node for node in subject.nodes()}
    start, image = _unmarked(subject, theta), subject.node_of("tap", warped.name)
    if start is None or image is None or not nodes:
        return True
    reached = {start}
    for node in nodes.values():  # in the order of computation
        if node.name != image and not reached.isdisjoint(node.inputs):
            reached.add(node.name)
    own = {theta.name, warped.name}
    others = [subject.node_of("output", spec.name) for spec in subject.outputs]
    others += [subject.node_of("tap", tap.name) for tap in subject.taps if tap.name not in own]
    return any(name in reached for name in others)
