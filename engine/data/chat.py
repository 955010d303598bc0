"""JSONL rows to token ids and loss weights, by the model's own chat template. Knows no tensor."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from engine.contract.formats.messages import object_in
from engine.contract.formats.plain import offered, plain
from engine.contract.formats.rows import BEGINS
from engine.core.packing import Tokens
from engine.data.errors import DataError

Message = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """A tokenizer with its template, the tokens that end a turn, and the longest example it may make."""

    tokenizer: PreTrainedTokenizerBase
    end_of_turn: frozenset[int]
    max_tokens: int
    model: str

    def render(self, messages: Sequence[Message], *, tools: object, prompt: bool) -> list[int]:
        """Raises ValueError as `text` does."""
        return self.tokens(self.text(messages, tools=tools, prompt=prompt))

    def text(self, messages: Sequence[Message], *, tools: object, prompt: bool) -> str:
        """Raises ValueError for what the template refuses, in words that follow "Example K"."""
        try:
            text = self.tokenizer.apply_chat_template(
                [with_objects(message) for message in messages],
                tools=tools,
                add_generation_prompt=prompt,
                tokenize=False,
            )
        except (TemplateError, TypeError, RecursionError) as error:
            raise ValueError(f"is refused by the chat template of {self.model}: {error}") from error
        return str(text)

    def tokens(self, text: str) -> list[int]:
        return [int(i) for i in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def with_objects(message: Message) -> dict[str, Any]:
    """The arguments of its calls as objects, not as OpenAI's strings, which templates would encode once more. vLLM does
    so too before it renders, and makes {} of what is no object; files checked by earlier releases may hold such."""
    calls = [
        {
            **call,
            "function": {**call["function"], "arguments": object_in(call["function"]["arguments"]) or {}},
        }
        for call in message.get("tool_calls", [])
    ]
    return {**message, "tool_calls": calls} if calls else dict(message)


def read_examples(path: Path, *, chat: ChatFormat, param: str) -> list[Tokens]:
    """Raises DataError naming the example and its line (both 1-based) that cannot be trained on."""
    return read_rows(path, encode=lambda row: encode(row, chat=chat), param=param)


def read_rows(path: Path, *, encode: Callable[[Mapping[str, Any]], T], param: str) -> list[T]:
    """Every row encoded; what `encode` raises as ValueError becomes a DataError with its place."""
    found: list[T] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found.append(encode(json.loads(line)))
            except ValueError as error:
                place = f"Example {len(found) + 1} (line {number})"
                raise DataError(f"Invalid file format. {place} {error}", param=param) from error
    return found


def encode(row: Mapping[str, Any], *, chat: ChatFormat) -> Tokens:
    """Loss on each assistant message whose weight is not 0, up to and with its end-of-turn token.

    An assistant's span is what the template adds after its generation prompt, found by rendering the prefix of the
    conversation with and without the message: no template needs to mark it. Raises ValueError.
    """
    messages, tools = [plain(message) for message in row["messages"]], offered(row)
    check_template(messages, tools=tools, chat=chat)
    whole = Tokenised(chat.text(messages, tools=tools, prompt=False), chat=chat)
    spans = [
        span(messages[: index + 1], whole=whole, tools=tools, chat=chat)
        for index, message in enumerate(row["messages"])
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    ]
    weights = [0.0] * len(whole.ids)
    for start, end in spans:
        weights[start:end] = [1.0] * (end - start)
    length = last_weighted(weights) + 1
    if length > chat.max_tokens:
        raise ValueError(
            f"has {length} tokens, but the limit of {chat.model} is {chat.max_tokens}: shorten or split it."
        )
    return Tokens(token_ids=tuple(whole.ids[:length]), weights=tuple(weights[:length]))


class Tokenised:
    """A conversation's tokens: of one text, but begun anew where a token would reach into an answer from what stands
    before it. Serving tokenises the prompt before there is an answer, so the model would never be asked like that.
    """

    def __init__(self, text: str, *, chat: ChatFormat) -> None:
        self.text, self._chat = text, chat
        self.ids = chat.tokens(text)
        self._begun, self._first = 0, 0  # the character where it was begun anew last, and which token that is

    def upto(self, end: int) -> list[int]:
        """The tokens of the text up to this character, where nothing follows."""
        return self.ids[: self._first] + self._chat.tokens(self.text[self._begun : end])

    def begin(self, at: int) -> int:
        """Which token begins at this character. Raises ValueError where none can."""
        before = self.upto(at)
        if self.ids[: len(before)] != before:
            apart = before + self._chat.tokens(self.text[at:])
            if self._chat.decoded(apart) != self._chat.decoded(self.ids):  # some put a blank before any text
                raise ValueError(
                    f"has an answer whose beginning the tokenizer of {self._chat.model} joins with its prompt: "
                    "take the blanks there away."
                )
            self.ids, self._begun, self._first = apart, at, len(before)
        return len(before)


def span(
    messages: Sequence[Message], *, whole: Tokenised, tools: object, chat: ChatFormat
) -> tuple[int, int]:
    """Where the last of `messages` stands in `whole`: from the generation prompt to its end of turn, exclusive."""
    if len(messages) == 1:
        raise ValueError(BEGINS)
    prompt = chat.text(messages[:-1], tools=tools, prompt=True)
    answered = chat.text(messages, tools=tools, prompt=False)
    if not answered.startswith(prompt) or not whole.text.startswith(answered):
        raise ValueError("is rewritten by the model's chat template: train on its last answer alone.")
    start = whole.begin(len(prompt))
    ids = whole.upto(len(answered))
    end = next((i + 1 for i in range(start, len(ids)) if ids[i] in chat.end_of_turn), len(ids))
    if whole.ids[:end] != ids[:end]:
        whole.begin(len(answered))
    return start, end


def last_weighted(weights: Sequence[float]) -> int:
    for index in range(len(weights) - 1, -1, -1):
        if weights[index]:
            return index
    raise ValueError("has no assistant message to learn from: give one a weight of 1.")


def check_template(messages: Sequence[Message], *, tools: object, chat: ChatFormat) -> None:
    """A template that ignores tools would drop them in silence and train on something else."""
    template = str(chat.tokenizer.chat_template)
    calls = any("tool_calls" in m or m["role"] in {"tool", "function"} for m in messages)
    if (tools and "tools" not in template) or (calls and "tool_calls" not in template):
        raise ValueError(f"uses tools, but the chat template of {chat.model} has none: remove them.")
