"""Which fields of a request reach a replica. Everything that is not named here is refused by name.

vLLM takes fields that are not for tenants (chat templates, priorities, tensors): they must not get through.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_CHOICES: Final = 8


class RequestError(Exception):
    """`message` says what is wrong and how to mend it; `param` names the field; `code` is OpenAI's."""

    def __init__(self, message: str, *, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A number between `least` and `most`, both allowed."""

    least: float
    most: float
    whole: bool = False

    def check(self, name: str, value: object) -> None:
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = "an integer" if self.whole else "a number"
            raise RequestError(f"'{name}' must be {wanted}.", param=name, code="invalid_type")
        if not self.least <= value <= self.most:
            raise RequestError(
                f"'{name}' is {value}; it must lie between {self.least:g} and {self.most:g}.",
                param=name,
                code="invalid_value",
            )


MAX_TOKENS: Final = Bounds(least=0, most=1_000_000, whole=True)
BOUNDS: Final[Mapping[str, Bounds]] = {
    "temperature": Bounds(least=0, most=2),
    "top_p": Bounds(least=0, most=1),
    "min_p": Bounds(least=0, most=1),
    "top_k": Bounds(least=-1, most=100_000, whole=True),
    "repetition_penalty": Bounds(least=0.01, most=10),
    "frequency_penalty": Bounds(least=-2, most=2),
    "presence_penalty": Bounds(least=-2, most=2),
    "n": Bounds(least=1, most=MAX_CHOICES, whole=True),
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
    "top_logprobs": Bounds(least=0, most=20, whole=True),
    "seed": Bounds(least=-(2**63), most=2**63 - 1, whole=True),
}
SAMPLING: Final = frozenset(BOUNDS) - {"max_completion_tokens", "top_logprobs"}
SHARED: Final = SAMPLING | {"model", "stop", "stream", "stream_options", "logit_bias", "logprobs"}
CHAT: Final = SHARED | {
    "messages",
    "max_completion_tokens",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
}
COMPLETION: Final = SHARED | {"prompt", "echo", "suffix"}
ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
# OpenAI's own fields that change nothing about the answer here: taken, so that code keeps working, and dropped.
DROPPED: Final = frozenset(
    {
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prediction",
        "reasoning_effort",
        "verbosity",
    }
)


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to forward. Raises RequestError."""
    kept = allowed(body, CHAT)
    messages = kept.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            "'messages' must be a list with at least one message.",
            param="messages",
            code="missing_required_parameter" if messages is None else "invalid_type",
        )
    for number, message in enumerate(messages):
        check_message(message, param=f"messages[{number}]")
    return kept


def completion_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to forward. Raises RequestError."""
    kept = allowed(body, COMPLETION)
    prompt = kept.get("prompt")
    if not isinstance(prompt, str | list) or prompt == []:
        raise RequestError(
            "'prompt' must be a string, or a list of strings or of token ids.",
            param="prompt",
            code="invalid_type" if prompt is not None else "missing_required_parameter",
        )
    if body.get("best_of") not in (None, kept.get("n", 1)):
        raise RequestError("'best_of' must equal 'n'.", param="best_of", code="invalid_value")
    return kept


def allowed(body: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    given = {name: value for name, value in body.items() if value is not None}
    unknown = sorted(set(given) - fields - DROPPED - {"best_of"})
    if unknown:
        raise RequestError(
            f"Unknown parameter: '{unknown[0]}'. Remove it from the request.",
            param=unknown[0],
            code="unknown_parameter",
        )
    for name in sorted(set(given) & set(BOUNDS)):
        BOUNDS[name].check(name, given[name])
    check_type(given, "stream", lambda value: isinstance(value, bool), "true or false")
    check_type(given, "stream_options", lambda value: isinstance(value, dict), "an object")
    check_type(given, "stop", lambda value: isinstance(value, str | list), "a string or a list of strings")
    return {name: value for name, value in given.items() if name in fields}


def check_type(given: Mapping[str, Any], name: str, fits: Callable[[Any], bool], wanted: str) -> None:
    if name in given and not fits(given[name]):
        raise RequestError(f"'{name}' must be {wanted}.", param=name, code="invalid_type")


def one_of(value: object, names: Container[str]) -> bool:
    """JSON may hold an object where a word is wanted, and an object cannot be looked up in a set."""
    return isinstance(value, str) and value in names


def check_message(message: object, *, param: str) -> None:
    """Text only: a URL in a message would make the replica fetch it."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(f"'{param}' must be an object with a 'role'.", param=param, code="invalid_type")
    if message["role"] not in ROLES:
        raise RequestError(
            f"'{param}.role' must be one of {', '.join(sorted(ROLES))}.",
            param=f"{param}.role",
            code="invalid_value",
        )
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    for part in parts:
        if not isinstance(part, dict) or not one_of(part.get("type"), {"text", "refusal"}):
            raise RequestError(
                f"'{param}.content' has a part that is not text: this model reads text alone.",
                param=f"{param}.content",
                code="invalid_value",
            )
