"""The one error a user sees. Knows no HTTP and no gRPC: the edges hold one total table each."""

from enum import StrEnum


class ErrorKind(StrEnum):
    INVALID = "invalid"  # the request can never succeed as it is
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  # the object is in a state that forbids this
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"  # more than agreed; wait
    OVER_QUOTA = "over_quota"  # more than the project may hold or use; waiting a moment does not help
    STALE_ATTEMPT = "stale_attempt"  # an engine reported for a lease it has lost
    UNAVAILABLE = "unavailable"  # a part the service stands on does not answer; try again


class ServiceError(Exception):
    """`message` says what is wrong and how to mend it; `param` names the request field; `code` is OpenAI's."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ServiceError:
    return ServiceError(ErrorKind.INVALID, message, param=param, code=code)


def nothing_after(after: str) -> ServiceError:
    return invalid(f"There is no object with id '{after}' to go on after.", param="after")


def not_found(message: str, *, param: str | None = None, code: str | None = None) -> ServiceError:
    return ServiceError(ErrorKind.NOT_FOUND, message, param=param, code=code)
