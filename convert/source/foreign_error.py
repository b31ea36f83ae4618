"""What a long error of TensorFlow or Keras says, in one line."""

from __future__ import annotations

import re

import tensorflow as tf

from stnkit.runtime.errors import one_line

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Keras lists the arguments of the call behind the message.
_ARGUMENTS = re.compile(r"^\s*(Call a|A)rguments received by\b", re.MULTILINE)
# Where it happened, in TensorFlow's own terms: nothing there is the user's.
_PLACE = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:\w+\]( name:.*)?|^\(\d+\) [A-Z_]+: ")
_EMPTY = re.compile(
    r'File "|in user code:|Graph execution error|Detected at node|<stack traces|Exception '
    r"encountered when calling|\d+ (successful operations|derived errors)|[\s^~.*]*$"
)
_TYPE = re.compile(r"\w+(Error|Exception): ")


def cause(error: Exception) -> str:
    """Return the last line of a foreign error that tells what went wrong.

    Args:
        error: What a model raised while it was traced or run.

    Returns:
        One line of at most 400 characters; it starts with the error's class where the text alone
        says little, e.g. `KeyError: 'b'`.
    """
    text = str(error)
    if isinstance(error, KeyError):  # its text is the repr of what it was given
        text = text.replace("\\n", "\n").replace("\\x1b", "\x1b")
    text = _ARGUMENTS.split(_COLOUR.sub("", text))[0]
    lines = [_PLACE.sub("", line.strip()).strip() for line in text.splitlines()]
    told = [line for line in lines if not _EMPTY.match(line)]
    last = one_line(told[-1]) if told else ""
    plain = isinstance(error, (ValueError, RuntimeError, tf.errors.OpError))
    if last and (plain or _TYPE.match(last)):
        return last.removeprefix("ValueError: ")
    # Tracing hands on a KeyError as a class of its own.
    name = "KeyError" if isinstance(error, KeyError) else type(error).__name__
    return one_line(f"{name}: {last}" if last else name)
