"""Checks that bodies of several resources share, each with words that say what to give instead."""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def wrong(message: str) -> PydanticCustomError:
    """pydantic would read `{…}` in a message as a field."""
    return PydanticCustomError("invalid_value", "{message}", {"message": message})


def whole_or_auto(least: int, most: int) -> BeforeValidator:
    def check(value: object) -> object:
        if value == "auto" and isinstance(value, str):
            return value
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not least <= int(value) <= most:  # type: ignore[call-overload]
            raise wrong(f"give an integer from {least} to {most}, or 'auto' (given: {value!r:.60}).")
        return value

    return BeforeValidator(check)


def above_or_auto(floor: float, most: float) -> BeforeValidator:
    def check(value: object) -> object:
        if value == "auto" and isinstance(value, str):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not floor < float(value) <= most:  # type: ignore[arg-type]
            raise wrong(
                f"give a number above {floor:g} and at most {most:g}, or 'auto' (given: {value!r:.60})."
            )
        return value

    return BeforeValidator(check)


def shown_as(number: dict[str, Any]) -> Any:
    """What the OpenAPI document says of a number that has validators of its own."""
    return Field(json_schema_extra={"anyOf": [number, {"const": "auto"}]})


def shown_whole(least: int, most: int) -> Any:
    return shown_as({"type": "integer", "minimum": least, "maximum": most})


def shown_above(floor: float, most: float) -> Any:
    return shown_as({"type": "number", "exclusiveMinimum": floor, "maximum": most})


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
