"""Write HTTP requests as bytes, once: the loops send the same ones again and again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from stnkit.runtime.errors import InputError
from stnkit.runtime.serving.datatypes import DATATYPES

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["get_request", "infer_request", "post_request"]


def get_request(path: str, *, host: str = "127.0.0.1") -> bytes:
    """Return a GET request.

    Args:
        path: from the slash on, percent-encoded.
        host: for the header `Host`.
    """
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")


def post_request(
    path: str, body: bytes, *, host: str = "127.0.0.1", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a POST request.

    Args:
        path: from the slash on, percent-encoded.
        body: what is posted.
        host: for the header `Host`.
        headers: further ones.
    """
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def infer_request(
    model: str,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    outputs: Sequence[str] = (),
    binary: bool = True,
    host: str = "127.0.0.1",
) -> bytes:
    """Return an inference request of the Open Inference Protocol over HTTP.

    Args:
        model: its name in the server.
        inputs: tensor name -> array.
        outputs: names of the wanted outputs; none for all.
        binary: tensors as raw bytes behind the JSON, both ways, by the binary tensor extension;
            else everything is JSON.
        host: for the header `Host`.

    Raises:
        InputError: an array of a dtype that the protocol has no fixed size for.
    """
    described, raw = [], []
    for name, value in inputs.items():
        datatype = DATATYPES.get(value.dtype.name)
        if datatype is None:
            raise InputError(f'"{name}" is {value.dtype}: expected one of {", ".join(DATATYPES)}')
        tensor: dict[str, Any] = {"name": name, "shape": value.shape, "datatype": datatype}
        if binary:
            raw.append(np.ascontiguousarray(value).tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = value.ravel().tolist()
        described.append(tensor)
    content: dict[str, Any] = {"inputs": described}
    if outputs:
        parameters = {"parameters": {"binary_data": True}} if binary else {}
        content["outputs"] = [{"name": name, **parameters} for name in outputs]
    elif binary:
        content["parameters"] = {"binary_data_output": True}
    head = json.dumps(content, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream" if binary else "application/json"}
    if binary:
        headers["Inference-Header-Content-Length"] = str(len(head))
    path = f"/v2/models/{quote(model, safe='')}/infer"
    return post_request(path, head + b"".join(raw), host=host, headers=headers)
