"""Messages to the fields of a form and objects to messages, by name: both wires read and show the same things."""

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from pydantic import BaseModel

M = TypeVar("M", bound=Message)


def fields_of(message: Message) -> dict[str, Any]:
    """What is there, under its own names. Whole numbers stay whole, also those of a Struct."""
    return {field.name: plain(value, field) for field, value in message.ListFields()}


def plain(value: Any, field: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [of(each) for each in value]
    return of(value)


def of(value: Any) -> Any:
    if isinstance(value, Struct | Value):
        return whole(MessageToDict(value))
    return fields_of(value) if isinstance(value, Message) else value


def whole(value: Any) -> Any:
    """JSON's 8 and 8.0 are one number to a Struct."""
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(into: type[M], value: BaseModel | Mapping[str, Any]) -> M:
    """An object as REST shows it, as a message: what is null or "auto" is absent, what the message lacks is left out."""
    fields = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    message: M = ParseDict(present(fields), into(), ignore_unknown_fields=True)
    return message


def present(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: present(v) for k, v in value.items() if v is not None and v != "auto"}
    return [present(each) for each in value] if isinstance(value, list | tuple) else value
