"""What is wrong with a body, in words: pydantic's findings as OpenAI's message, param and code; and
OpenAI's type of each kind of error."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from api.domain.errors import ErrorKind, invalid

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
TYPES: Final[Mapping[ErrorKind, str]] = {
    ErrorKind.INVALID: INVALID,
    ErrorKind.UNAUTHENTICATED: INVALID,
    ErrorKind.FORBIDDEN: INVALID,
    ErrorKind.NOT_FOUND: INVALID,
    ErrorKind.CONFLICT: INVALID,
    ErrorKind.TOO_LARGE: INVALID,
    ErrorKind.RATE_LIMITED: "rate_limit_error",
    ErrorKind.OVER_QUOTA: "insufficient_quota",
    ErrorKind.STALE_ATTEMPT: INVALID,
    ErrorKind.UNAVAILABLE: SERVER,
}
AWAY: Final = "The model is not being served right now. Please try again."

T = TypeVar("T", bound=BaseModel)


def checked(form: type[T], fields: Mapping[str, Any]) -> T:
    """The form filled in. Raises ServiceError(INVALID) for the first field that is wrong."""
    try:
        return form.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        param = path_of(("body", *first["loc"]))
        message, code = worded(first, param)
        raise invalid(message, param=param or None, code=code) from error


def worded(found: Mapping[str, Any], param: str) -> tuple[str, str]:
    """What is wrong and what is wanted, and OpenAI's code for it."""
    match found["type"]:
        case "json_invalid":
            return "We could not parse the JSON body of your request: it is not valid JSON.", "invalid_json"
        case "missing":
            return f"Missing required parameter: '{param}'.", "missing_required_parameter"
        case "extra_forbidden":
            return f"Unknown parameter: '{param}'. Remove it from the request.", "unknown_parameter"
        case "invalid_value":
            return f"Invalid '{param}': {found['msg']}", "invalid_value"
    code = "invalid_type" if found["type"].endswith(("_type", "_parsing")) else "invalid_value"
    return f"Invalid '{param}': {found['msg']} (given: {shown(found.get('input'))}).", code


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def path_of(location: Sequence[int | str]) -> str:
    """`("body", "method", "type")` is `method.type`; list positions stand in brackets."""
    path = ""
    for part in location[1:]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
