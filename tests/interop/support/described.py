"""What a description of services says on the wire, so that two of them can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Field: TypeAlias = tuple[str, int, int, str, str, bool]
"""Name, type, label, name of the message's type, name of its group of alternatives, whether packing is off."""
Method: TypeAlias = tuple[str, str, bool, bool]
"""Request, answer, whether the client streams, whether the server does."""


@dataclass(frozen=True)
class Description:
    """Fields by message and number, calls by service and name."""

    messages: dict[str, dict[int, Field]]
    methods: dict[str, dict[str, Method]]

    def fields_without(self, other: Description, *, only_known: bool = False) -> dict[tuple[str, int], str]:
        """The fields that have no counterpart of the same name there; `only_known`: of messages that both have.

        Entries of maps are left out: they belong to the field.
        """
        return {
            (message, number): field[0]
            for message, fields in self.messages.items()
            if not message.endswith("Entry") and (not only_known or message in other.messages)
            for number, field in fields.items()
            if other.messages.get(message, {}).get(number, ("",))[0] != field[0]
        }

    def different_fields(self, other: Description) -> dict[tuple[str, int], tuple[Field, Field]]:
        """The fields that both have by the same number and name, and that are not the same on the wire."""
        return {
            (message, number): (field, theirs)
            for message, fields in self.messages.items()
            for number, field in fields.items()
            if (theirs := other.messages.get(message, {}).get(number)) and theirs[0] == field[0] and theirs != field
        }


def described(files: Iterable[Any]) -> Description:
    """What descriptor files say, each a `FileDescriptorProto`."""
    messages: dict[str, dict[int, Field]] = {}
    methods: dict[str, dict[str, Method]] = {}
    for file in files:
        for message in file.message_type:
            for name, one in _nested(message, file.package):
                messages[name] = {field.number: _field(one, field) for field in one.field}
        for service in file.service:
            methods[f"{file.package}.{service.name}"] = {
                one.name: (one.input_type, one.output_type, one.client_streaming, one.server_streaming)
                for one in service.method
            }
    return Description(messages, methods)


def _nested(message: Any, above: str) -> Iterator[tuple[str, Any]]:
    name = f"{above}.{message.name}"
    yield name, message
    for one in message.nested_type:
        yield from _nested(one, name)


def _field(message: Any, field: Any) -> Field:
    group = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    unpacked = field.options.HasField("packed") and not field.options.packed
    return field.name, field.type, field.label, field.type_name, group, unpacked
