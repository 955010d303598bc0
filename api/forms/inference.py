"""What the OpenAPI document says of the routes that ask a model: made of the gateway's own tables of fields.

Answers are passed through as the replica gives them, so these forms are shown, not applied, and hold what is sure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.forms.wire import IdentifiedList, Json
from serving.gateway import messages, requests, responses
from serving.gateway.requests import Bounds

STRING: Final[Json] = {"type": "string"}
BOOLEAN: Final[Json] = {"type": "boolean"}
OBJECT: Final[Json] = {"type": "object"}
STRINGS: Final[Json] = {"type": "array", "items": STRING}
METADATA: Final[Json] = {"type": "object", "additionalProperties": STRING}
TEXTS: Final[Json] = {"anyOf": [STRING, STRINGS]}


def list_of(item: Json) -> Json:
    return {"type": "array", "items": item, "minItems": 1}


def part(*kinds: str) -> Json:
    return {
        "type": "object",
        "properties": {"type": {"enum": list(kinds)}, "text": STRING},
        "required": ["type", "text"],
    }


def message(*roles: str, parts: Sequence[str]) -> Json:
    content = {"anyOf": [STRING, {"type": "array", "items": part(*parts)}]}
    properties = {"role": {"enum": list(roles)}, "content": content}
    return {"type": "object", "properties": properties, "required": ["role", "content"]}


CHAT_MESSAGES: Final = list_of(
    message("system", "developer", "user", "assistant", "tool", parts=("text", "refusal"))
)
TOKEN_IDS: Final[Json] = list_of({"type": "integer", "minimum": 0})
PROMPT: Final[Json] = {"anyOf": [STRING, list_of(STRING), TOKEN_IDS, list_of(TOKEN_IDS)]}
TURNS: Final = list_of(message("user", "assistant", parts=("text",)))
ITEMS: Final = list_of(
    message("user", "assistant", "system", "developer", parts=("input_text", "output_text"))
)
SHARED: Final[Mapping[str, Json]] = {
    "model": STRING,
    "user": STRING,
    "stop": TEXTS,
    "stream": BOOLEAN,
    "store": BOOLEAN,
    "metadata": METADATA,
    "stream_options": {"type": "object", "properties": {"include_usage": BOOLEAN}},
    "logit_bias": {"type": "object", "additionalProperties": {"type": "number"}},
    "response_format": OBJECT,
    "parallel_tool_calls": BOOLEAN,
    "tools": {"type": "array", "items": OBJECT},
    "suffix": STRING,
    "echo": BOOLEAN,
    "instructions": STRING,
    "previous_response_id": STRING,
    "text": OBJECT,
    "include": STRINGS,
    "truncation": {"enum": ["auto", "disabled"]},
    "reasoning": OBJECT,
    "stop_sequences": STRINGS,
}


def numbers(bounds: Bounds) -> Json:
    kind = "integer" if bounds.whole else "number"
    return {"type": kind, "minimum": bounds.least, "maximum": bounds.most}


def body(
    fields: Iterable[str], *, required: Sequence[str], bounds: Mapping[str, Bounds], own: Mapping[str, Json]
) -> Json:
    """What is named here is taken; all else is refused by its name."""
    known = {**SHARED, **{name: numbers(limit) for name, limit in bounds.items()}, **own}
    schema = {
        "type": "object",
        "properties": {name: known.get(name, {}) for name in sorted(fields)},
        "required": list(required),
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


RESPONSE_BOUNDS: Final = {**requests.BOUNDS, "max_output_tokens": requests.MAX_TOKENS}
RESPONSE_INPUT: Final[Json] = {"anyOf": [STRING, ITEMS]}
CHAT_BODY: Final = body(
    requests.CHAT | requests.DROPPED,
    required=("model", "messages"),
    bounds=requests.BOUNDS,
    own={"messages": CHAT_MESSAGES, "logprobs": BOOLEAN},
)
COMPLETION_BODY: Final = body(
    requests.COMPLETION | requests.DROPPED | {"best_of"},
    required=("model", "prompt"),
    bounds=requests.BOUNDS,
    own={"prompt": PROMPT, "logprobs": {"type": "integer", "minimum": 0, "maximum": 5}},
)
EMBEDDING_BODY: Final = body(
    ("model", "input", "dimensions", "encoding_format", "user"),
    required=("model", "input"),
    bounds={},
    own={"input": PROMPT, "encoding_format": {"enum": ["float", "base64"]}},
)
RESPONSE_BODY: Final = body(
    responses.FORWARDED | responses.DROPPED,
    required=("model", "input"),
    bounds=RESPONSE_BOUNDS,
    own={"input": RESPONSE_INPUT},
)
COMPACTION_BODY: Final = body(
    responses.COMPACTED,
    required=("model",),
    bounds={},
    own={"input": RESPONSE_INPUT},
)
MESSAGES_BODY: Final = body(
    messages.FIELDS | messages.DROPPED,
    required=("model", "messages", "max_tokens"),
    bounds=messages.BOUNDS,
    own={"messages": TURNS, "system": {"anyOf": [STRING, {"type": "array", "items": part("text")}]}},
)
COUNT_BODY: Final = body(
    messages.FIELDS | messages.DROPPED,
    required=("model", "messages"),
    bounds=messages.BOUNDS,
    own={"messages": TURNS, "system": {"anyOf": [STRING, {"type": "array", "items": part("text")}]}},
)


class Shown(BaseModel):
    """The replica may tell more than is promised here."""

    model_config = ConfigDict(extra="allow")


class ChatMessage(Shown):
    role: str
    content: str | None = None


class ChatChoice(Shown):
    index: int
    message: ChatMessage
    finish_reason: str | None


class TokenUsage(Shown):
    prompt_tokens: int
    completion_tokens: int | None = None
    total_tokens: int


class ChatCompletion(Shown):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: Sequence[ChatChoice]
    usage: TokenUsage | None = None


class StoredMessage(Shown):
    id: str
    role: str
    content_parts: Sequence[Mapping[str, Any]] | None


class TextChoice(Shown):
    index: int
    text: str
    finish_reason: str | None


class TextCompletion(Shown):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: Sequence[TextChoice]
    usage: TokenUsage | None = None


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: Sequence[float] | str


class EmbeddingList(BaseModel):
    """No model that is served today gives one: the answer is 400 and says so."""

    object: Literal["list"]
    data: Sequence[Embedding]
    model: str
    usage: TokenUsage


class Item(Shown):
    type: str


class IdentifiedItem(Item):
    id: str


class ModelResponse(Shown):
    id: str
    object: Literal["response"]
    created_at: Annotated[float, Field(description="Unix seconds")]
    status: str
    model: str
    output: Sequence[Item]
    previous_response_id: str | None
    store: bool
    metadata: Mapping[str, str]


class Compaction(Shown):
    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: Sequence[IdentifiedItem]
    usage: Mapping[str, Any]


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class AnthropicMessage(Shown):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: Sequence[Item]
    stop_reason: str | None
    usage: Mapping[str, Any]


class MessageTokens(Shown):
    input_tokens: int


CompletionList = IdentifiedList[ChatCompletion]
MessageList = IdentifiedList[StoredMessage]
ItemList = IdentifiedList[IdentifiedItem]
