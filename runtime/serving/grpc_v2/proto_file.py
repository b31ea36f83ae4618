"""Read `.proto` files at run time, so that no generated code is needed.

What is understood: `syntax`, `package`, `message`, `enum`, `oneof`, `map`, `repeated` and
`service`, in the form that this package's own files have; anything else is an error.

Source: https://protobuf.dev/reference/protobuf/proto3-spec/
"""

from __future__ import annotations

import re

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

__all__ = ["parse_proto"]

_TOKEN = re.compile(r'//[^\n]*|"[^"\n]*"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]|(?P<blank>\s+)')
_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


def parse_proto(text: str, name: str) -> FileDescriptorProto:
    """Return the descriptor of a file.

    Types are named as in the text: the descriptor pool finds them, and whether each is a message
    or an enum.

    Args:
        text: the file's text.
        name: the file's name.

    Raises:
        ValueError: something that is not understood, with its place.
    """
    return _Parser(text, name).file()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._tokens: list[str] = []
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise ValueError(f"{name}: cannot read {text[position : position + 20]!r}")
            if found["blank"] is None and not found[0].startswith("//"):
                self._tokens.append(found[0])
            position = found.end()
        self._tokens.reverse()

    def file(self) -> FileDescriptorProto:
        file = FileDescriptorProto(name=self._name)
        while self._tokens:
            match word := self._next():
                case "syntax":
                    self._expect("=")
                    file.syntax = self._next().strip('"')
                    self._expect(";")
                case "package":
                    file.package = self._next()
                    self._expect(";")
                case "message":
                    self._message(file.message_type.add())
                case "enum":
                    self._enum(file.enum_type.add())
                case "service":
                    self._service(file.service.add())
                case _:
                    self._fail(word)
        return file

    def _message(self, message: DescriptorProto) -> None:
        message.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            if word == "message":
                self._message(message.nested_type.add())
            elif word == "enum":
                self._enum(message.enum_type.add())
            elif word == "oneof":
                message.oneof_decl.add(name=self._next())
                self._expect("{")
                while (word := self._next()) != "}":
                    self._field(message, word).oneof_index = len(message.oneof_decl) - 1
            else:
                self._field(message, word)

    def _field(self, message: DescriptorProto, word: str) -> FieldDescriptorProto:
        field = message.field.add(label=FieldDescriptorProto.LABEL_OPTIONAL)
        if word == "map":
            self._expect("<")
            key = self._next()
            self._expect(",")
            value = self._next()
            self._expect(">")
            field.label = FieldDescriptorProto.LABEL_REPEATED
            field.name = self._next()
            # A map is a list of pairs, each a message of a name that is prescribed.
            words = "".join(part.capitalize() for part in field.name.split("_"))
            entry = message.nested_type.add(name=f"{words}Entry")
            entry.options.map_entry = True
            for number, part, kind in ((1, "key", key), (2, "value", value)):
                item = entry.field.add(name=part, number=number)
                item.label = FieldDescriptorProto.LABEL_OPTIONAL
                self._set_type(item, kind)
            field.type_name = entry.name
        else:
            if word == "repeated":
                field.label = FieldDescriptorProto.LABEL_REPEATED
                word = self._next()
            self._set_type(field, word)
            field.name = self._next()
        self._expect("=")
        field.number = self._number()
        self._expect(";")
        return field

    def _enum(self, enum: EnumDescriptorProto) -> None:
        enum.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            self._expect("=")
            enum.value.add(name=word, number=self._number())
            self._expect(";")

    def _service(self, service: ServiceDescriptorProto) -> None:
        service.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            if word != "rpc":
                self._fail(word)
            method = service.method.add(name=self._next())
            method.input_type, streamed = self._rpc_type()
            if streamed:
                method.client_streaming = True
            self._expect("returns")
            method.output_type, streamed = self._rpc_type()
            if streamed:
                method.server_streaming = True
            self._expect("{")
            self._expect("}")
            method.options.SetInParent()

    def _rpc_type(self) -> tuple[str, bool]:
        self._expect("(")
        word = self._next()
        streamed = word == "stream"
        name = self._next() if streamed else word
        self._expect(")")
        return name, streamed

    def _set_type(self, field: FieldDescriptorProto, word: str) -> None:
        if word in _SCALARS:
            field.type = _SCALARS[word]
        else:
            field.type_name = word

    def _next(self) -> str:
        if not self._tokens:
            raise ValueError(f"{self._name}: the file ends too early")
        return self._tokens.pop()

    def _expect(self, word: str) -> None:
        found = self._next()
        if found != word:
            self._fail(found, f": expected {word!r}")

    def _number(self) -> int:
        word = self._next()
        if not word.isdigit():
            self._fail(word, ": expected a number")
        return int(word)

    def _fail(self, word: str, more: str = "") -> None:
        after = " ".join(reversed(self._tokens[-4:]))
        raise ValueError(f"{self._name}: cannot read {word!r} in front of {after!r}{more}")
