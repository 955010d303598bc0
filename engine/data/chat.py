"""JSONL rows to token ids and loss weights, by the model's own chat template. Knows no tensor."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from engine.contract.formats.plain import plain
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
        ids = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, add_generation_prompt=prompt, return_dict=False
        )
        return [int(i) for i in ids]


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
    messages = [plain(message) for message in row["messages"]]
    tools = row.get("tools") or None
    check_template(messages, tools=tools, chat=chat)
    ids = chat.render(messages, tools=tools, prompt=False)
    weights = [0.0] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and row["messages"][index].get("weight", 1) != 0:
            start, end = span(messages[: index + 1], ids=ids, tools=tools, chat=chat)
            weights[start:end] = [1.0] * (end - start)
    length = last_weighted(weights) + 1
    if length > chat.max_tokens:
        raise ValueError(
            f"has {length} tokens, but the limit of {chat.model} is {chat.max_tokens}: shorten or split it."
        )
    return Tokens(token_ids=tuple(ids[:length]), weights=tuple(weights[:length]))


def span(
    messages: Sequence[Message], *, ids: Sequence[int], tools: object, chat: ChatFormat
) -> tuple[int, int]:
    """Where the last of `messages` stands in `ids`: from the generation prompt to its end of turn, exclusive."""
    prefix = chat.render(messages[:-1], tools=tools, prompt=True)
    whole = chat.render(messages, tools=tools, prompt=False)
    start = len(prefix)
    if list(ids[:start]) != prefix or list(ids[: len(whole)]) != whole:
        raise ValueError("is rewritten by the model's chat template: train on its last answer alone.")
    ends = (i + 1 for i in range(start, len(whole)) if whole[i] in chat.end_of_turn)
    return start, next(ends, len(whole))


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
