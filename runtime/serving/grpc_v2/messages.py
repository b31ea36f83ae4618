"""The protocol's messages, in a descriptor pool of their own.

The usual clients register a generated copy of the same messages in protobuf's default pool, which
takes each name once in a process: a second copy there would keep them from being imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from stnkit.runtime.serving.grpc_v2.proto_file import parse_proto

__all__ = [
    "HEALTH_SERVICE",
    "INFERENCE_SERVICE",
    "METHODS",
    "POOL",
    "message_class",
    "message_of",
]

INFERENCE_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

POOL = DescriptorPool()
"""Holds the messages of `inference.proto` and `health.proto`."""

for _file in ("inference.proto", "health.proto"):
    _text = files("stnkit.runtime.serving.grpc_v2").joinpath(_file).read_text("utf-8")
    POOL.Add(parse_proto(_text, f"stnkit/{_file}"))


def message_class(name: str) -> Any:
    """Return the class of a message.

    Args:
        name: its full name, e.g. `"inference.ModelInferRequest"`.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def message_of(name: str, fields: Mapping[str, Any]) -> Any:
    """Return a message.

    Args:
        name: its full name.
        fields: its fields as in the protocol's JSON; those that the message has not are left out.
    """
    return json_format.ParseDict(fields, message_class(name)(), ignore_unknown_fields=True)


METHODS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    service: {
        method.name: (method.input_type.full_name, method.output_type.full_name)
        for method in POOL.FindServiceByName(service).methods
    }
    for service in (INFERENCE_SERVICE, HEALTH_SERVICE)
}
"""Service -> method -> (name of its request, name of its answer)."""
