"""Loading a SavedModel folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from stnkit.convert.source.keras_signature import Inputs
from stnkit.convert.source.model import SourceModel, base_name, describe
from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.manifest import Source

_SIGNATURE = "serving_default"


def load_saved_model(path: Path) -> SourceModel:
    """Load the serving signature of a SavedModel, or the only one where none has that name.

    Args:
        path: The folder that holds `saved_model.pb`.

    Raises:
        InputError: If it is damaged, has no usable signature, or an input without a fixed rank.
    """
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as exc:  # TensorFlow raises errors of every family on damaged files
        raise InputError(f"{path}: TensorFlow cannot load it ({one_line(exc)})") from exc
    function = _signature(path, loaded.signatures)
    inputs: Inputs = []
    for name, spec in function.structured_input_signature[1].items():
        if spec.shape.rank is None:
            raise InputError(f"{path}: the input {name!r} has no fixed rank: save it with one")
        inputs.append((name, tuple(spec.shape.as_list()), spec.dtype.name))

    def call(values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(function(**values))

    specs_in, specs_out = describe(call, inputs)
    name = base_name(path.resolve().name)
    return SourceModel(
        name=name,
        origin=Source(file=name, kind="saved_model"),
        inputs=specs_in,
        outputs=specs_out,
        call=call,
        owner=loaded,
    )


def _signature(path: Path, signatures: Mapping[str, Any]) -> Any:
    """Return the function to convert."""
    if _SIGNATURE in signatures:
        return signatures[_SIGNATURE]
    if len(signatures) == 1:
        (only,) = signatures.values()
        return only
    raise InputError(
        f"{path}: has no signature {_SIGNATURE!r}, but {sorted(signatures) or 'none at all'}: "
        "save it with model.export(), or with signatures={'serving_default': …}"
    )
