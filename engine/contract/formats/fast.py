"""Rows that are surely right, told from their bytes in one pass of C. Whatever it does not accept is for `rows`.

It must never accept what `rows` refuses; the other way round costs time alone. So its types are narrower: no keys but
the known ones, JSON of few levels, and integers and floats of 64 bits.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import orjson
from msgspec import Meta, Struct

from engine.contract.formats.messages import object_in

NAME_LENGTH: Final = 64
MOST_KEYS: Final = 32
MOST_SHAPES: Final = 8
ESCAPE: Final = b"\\"

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
Json9: TypeAlias = Leaf | list[Json8] | dict[str, Json8]
Json10: TypeAlias = Leaf | list[Json9] | dict[str, Json9]


class Part(Struct, forbid_unknown_fields=True):
    """Not by a tag: msgspec lets one that stands outside a union be missing."""

    type: Literal["text"]
    text: str


Content: TypeAlias = str | Annotated[list[Part], Meta(min_length=1)]


class Call(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str

    def __post_init__(self) -> None:
        if object_in(self.arguments) is None:
            raise ValueError


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


class Output(Struct, forbid_unknown_fields=True):
    """An assistant's message without a weight."""

    role: Literal["assistant"]
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
    parameters: dict[str, Json8] | None = None
    strict: bool | None = None


class Offer(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
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


DOUBTS: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What reading may raise over bytes that it does not accept."""

Accepts: TypeAlias = Callable[[bytes], bool]


def spelled_out(line: bytes, at: int) -> bool:
    """Whether two \\uXXXX in a row stand at its first escape: text that is not English, which orjson reads twice as fast
    as msgspec does."""
    return line[at + 1 : at + 2] == b"u" and line[at + 6 : at + 8] == b"\\u"


def accepting(
    decode: Callable[[bytes], Any], *, convert: Callable[[Any], Any], right: Callable[[Any], bool]
) -> Accepts:
    """Lines that have a type and for which `right` holds too. It runs for every line of every file: one flat function."""
    loads = orjson.loads

    def accepts(line: bytes) -> bool:
        try:
            at = line.find(ESCAPE)
            row = decode(line) if at < 0 or not spelled_out(line, at) else convert(loads(line))
        except DOUBTS:
            return False
        return right(row)

    return accepts


def accepting_rows(row: type[Any], *, right: Callable[[Any], bool]) -> Accepts:
    return accepting(
        msgspec.json.Decoder(row).decode, convert=partial(msgspec.convert, type=row), right=right
    )


def supervised() -> Accepts:
    return accepting_rows(Supervised, right=teaches)


def dpo() -> Accepts:
    return accepting_rows(Dpo, right=compares)


class Held(Struct):
    """msgspec remembers what it makes of a struct; of a dict's type it would make it again for each line."""

    value: dict[str, Json10]


@cache
def json_object() -> Accepts:
    """Any JSON object of few levels."""
    return accepting(
        msgspec.json.Decoder(dict[str, Json10]).decode,
        convert=lambda value: msgspec.convert({"value": value}, Held),
        right=lambda _: True,
    )


def teaches(row: Supervised) -> bool:
    learns = False
    for message in row.messages:
        if type(message) is Assistant:
            if message.content is None and not says_else(message):
                return False
            if message.weight:
                learns = True
    first = row.messages[0]
    return learns and not (type(first) is Assistant and first.weight)


def compares(row: Dpo) -> bool:
    return says_all(row.input.messages) and says_all(row.preferred_output + row.non_preferred_output)


def asks(row: Any) -> bool:
    return type(row.messages[-1]) is not Assistant and says_all(row.messages)


def says_all(messages: Sequence[Message | Output]) -> bool:
    """Whether each assistant's message without content has something instead."""
    return not [message for message in messages if message.content is None and not says_else(message)]


def says_else(message: Message | Output) -> bool:
    """Calls, or a refusal."""
    return isinstance(message, Assistant | Output) and (
        bool(message.tool_calls) or message.function_call is not None or bool(message.refusal)
    )


class Reinforcement:
    """Rows have free keys, mostly the same ones in every row of a file: it learns those of rows that were found right.

    `MOST_KEYS` and `MOST_SHAPES` bound what a file of ever new keys can cost.
    """

    def __init__(self, *, needed: frozenset[str]) -> None:
        self._needed = needed
        self._keys: frozenset[str] = frozenset()
        self._shapes = 0
        self.accepts: Accepts = lambda _: False

    def learn(self, keys: Iterable[str]) -> None:
        """`keys` are those of a right row that was not accepted."""
        known = self._keys | {key for key in keys if plain(key)}
        if known == self._keys or len(known) > MOST_KEYS or self._shapes == MOST_SHAPES:
            return
        self._keys, self._shapes = known, self._shapes + 1
        if self._needed <= known:  # else one has a name that no field can have: `rows` reads such files
            self.accepts = accepting_rows(prompt_row(known, needed=self._needed), right=asks)


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
            required.append((f"free{number}", Json6))
        else:
            optional.append((f"free{number}", Json6, None))
    return msgspec.defstruct("PromptRow", [*required, *optional], rename=names, forbid_unknown_fields=True)
