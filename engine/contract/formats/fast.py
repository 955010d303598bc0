"""Rows that are surely right, told from their bytes in one pass of C. Whatever it does not accept is for `rows`.

It must never accept what `rows` refuses; the other way round costs time alone. So its types are narrower: no keys but
the known ones, JSON of few levels, and integers and floats of 64 bits.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

NAME_LENGTH: Final = 64
MOST_KEYS: Final = 32
MOST_SHAPES: Final = 16

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Leaf: TypeAlias = str | Integer | float | bool | None
# A type for each level: a recursive one would say nothing of the depth. Each doubles what msgspec makes of it.
Json1: TypeAlias = Leaf | list[Leaf] | dict[str, Leaf]
Json2: TypeAlias = Leaf | list[Json1] | dict[str, Json1]
Json3: TypeAlias = Leaf | list[Json2] | dict[str, Json2]
Json4: TypeAlias = Leaf | list[Json3] | dict[str, Json3]
Json5: TypeAlias = Leaf | list[Json4] | dict[str, Json4]
Json6: TypeAlias = Leaf | list[Json5] | dict[str, Json5]
Json7: TypeAlias = Leaf | list[Json6] | dict[str, Json6]
Json8: TypeAlias = Leaf | list[Json7] | dict[str, Json7]
Object: TypeAlias = dict[str, Json8]


class Part(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


Content: TypeAlias = str | Annotated[list[Part], Meta(min_length=1)]


class Call(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    function: Call
    id: str = ""
    type: Literal["function"] = "function"


class System(Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: Content
    name: str = ""


class Developer(Struct, tag_field="role", tag="developer", forbid_unknown_fields=True):
    content: Content
    name: str = ""


class User(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: Content
    name: str = ""


class Tool(Struct, tag_field="role", tag="tool", forbid_unknown_fields=True):
    content: Content
    tool_call_id: str
    name: str = ""


class Function(Struct, tag_field="role", tag="function", forbid_unknown_fields=True):
    content: Content
    name: str = ""


class Output(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    """An assistant's message without a weight."""

    content: Content | None = None
    name: str = ""
    tool_calls: list[ToolCall] | None = None
    function_call: Call | None = None
    refusal: str | None = None


class Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: Content | None = None
    weight: Literal[0, 1] = 1
    name: str = ""
    tool_calls: list[ToolCall] | None = None
    function_call: Call | None = None
    refusal: str | None = None


class Signature(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Offer(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    function: Signature


Message: TypeAlias = System | Developer | User | Assistant | Tool | Function
Messages: TypeAlias = Annotated[list[Message], Meta(min_length=1)]
Outputs: TypeAlias = Annotated[list[Output], Meta(min_length=1, max_length=1)]


class Supervised(Struct, forbid_unknown_fields=True):
    messages: Messages
    tools: list[Offer] = []
    functions: list[Signature] = []
    parallel_tool_calls: bool = True


class Input(Struct, forbid_unknown_fields=True):
    messages: Messages
    tools: list[Offer] = []
    parallel_tool_calls: bool = True


class Dpo(Struct, forbid_unknown_fields=True):
    input: Input
    preferred_output: Outputs
    non_preferred_output: Outputs


DOUBTS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder may raise over bytes that it does not accept."""

Accepts: TypeAlias = Callable[[bytes], bool]


def says_something(message: Message | Output) -> bool:
    """Whether an assistant's message without content has calls instead."""
    if type(message) is not Assistant and type(message) is not Output:
        return True
    return message.content is not None or bool(message.tool_calls) or message.function_call is not None


def supervised() -> Accepts:
    decode = msgspec.json.Decoder(Supervised).decode

    def accepts(line: bytes) -> bool:
        try:
            messages = decode(line).messages
        except DOUBTS:
            return False
        learns = False
        for message in messages:
            if type(message) is Assistant:
                if message.content is None and not says_something(message):
                    return False
                if message.weight:
                    learns = True
        return learns

    return accepts


def dpo() -> Accepts:
    decode = msgspec.json.Decoder(Dpo).decode

    def accepts(line: bytes) -> bool:
        try:
            row = decode(line)
        except DOUBTS:
            return False
        for message in row.input.messages:
            if message.content is None and not says_something(message):
                return False
        return says_something(row.preferred_output[0]) and says_something(row.non_preferred_output[0])

    return accepts


def json_object() -> Accepts:
    """Any JSON object of few levels."""
    decode = msgspec.json.Decoder(Object).decode

    def accepts(line: bytes) -> bool:
        try:
            decode(line)
        except DOUBTS:
            return False
        return True

    return accepts


class Reinforcement:
    """Rows have free keys, mostly the same ones in every row of a file: it learns those of rows that were found right.

    `MOST_KEYS` and `MOST_SHAPES` bound what a file of ever new keys can cost.
    """

    def __init__(self, *, needed: frozenset[str]) -> None:
        self._needed = needed
        self._keys: frozenset[str] = frozenset()
        self._shapes = 0
        self._decode: Callable[[bytes], Any] | None = None

    def accepts(self, line: bytes) -> bool:
        if self._decode is None:
            return False
        try:
            messages = self._decode(line).messages
        except DOUBTS:
            return False
        for message in messages:
            if message.content is None and not says_something(message):
                return False
        return type(messages[-1]) is not Assistant

    def learn(self, keys: Iterable[str]) -> None:
        """`keys` are those of a right row that was not accepted."""
        known = self._keys | {key for key in keys if plain(key)}
        if known == self._keys or len(known) > MOST_KEYS or self._shapes == MOST_SHAPES:
            return
        self._keys, self._shapes = known, self._shapes + 1
        if self._needed <= known:  # else one has a name that no field can have: `rows` reads such files
            self._decode = msgspec.json.Decoder(prompt_row(known, needed=self._needed)).decode


def plain(key: str) -> bool:
    """Whether msgspec can name a field so."""
    return 0 < len(key) <= NAME_LENGTH and key.isascii() and key.isprintable() and not set(key) & {'"', "\\"}


def prompt_row(keys: frozenset[str], *, needed: frozenset[str]) -> type[Any]:
    """A row with these free keys. A needed one has no default, so a row without it is not accepted."""
    required: list[Any] = [("messages", Messages)]
    optional: list[Any] = [("tools", list[Offer], msgspec.field(default_factory=list))]
    if "tools" in needed:
        required, optional = [*required, ("tools", list[Offer])], []
    names = {}
    for number, key in enumerate(sorted(keys - {"messages", "tools"})):
        names[f"free{number}"] = key
        if key in needed:
            required.append((f"free{number}", Json4))
        else:
            optional.append((f"free{number}", Json4, None))
    return msgspec.defstruct("PromptRow", [*required, *optional], rename=names, forbid_unknown_fields=True)
